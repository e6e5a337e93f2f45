# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that keeps account while its journal cannot be written: what the
tests of on-journal-error share."""
import errno
import time

import nbd

from ttjformat import GAP, INLINE, frames, u32, u64
from ttjtest import (KIB, MIB, Failed, Flight, Recorder, Views, check,
                     check_equal, first_difference, read_all, read_file,
                     write_file)

DISK = 4 * MIB
HELD = 0.5                       # seconds: longer than five tries
STUCK = 300                      # until one counts as lost
HOLDING = 'on-journal-error=wait,ahead=6M'


class Case:
    """A recorded disk, and a guest that keeps account."""

    def __init__(self, t, name, journal=None, node=None, **kwargs):
        self.t, self.name = t, name
        self.disk = t.path(f'{name}.raw')
        self.journal = journal or t.path(f'{name}.ttj')
        self.known = bytearray(t.bytes(DISK))
        write_file(self.disk, self.known)
        t.create(self.journal, self.disk, '4M', '--ahead', '0')
        self.node, self.kwargs = node, kwargs
        self.touched = set()

    def start(self, options=HOLDING):
        self.recorder = Recorder(self.t, self.disk, self.journal,
                                 journal_node=self.node and self.node(),
                                 options=options, **self.kwargs)
        self.recorder.command('query-version')
        self.h = [self.recorder.connect(structured=False) for _ in range(2)]
        self.flight = Flight(self.h, 16)

    def issue(self, length=32 * KIB, flags=0, first=False):
        """A write where no other one in flight is; or where there was none
        before, so that what was there has to be captured."""
        slots = set(range(DISK // (64 * KIB))) - {
            at // (64 * KIB) for at, _ in self.flight.requests.values()}
        slots -= self.touched if first else set()
        slot = self.t.random.choice(sorted(slots))
        self.touched.add(slot)
        at = slot * 64 * KIB
        buf = nbd.Buffer.from_bytearray(bytearray(self.t.bytes(length)))
        self.flight.issue((at, bytes(buf.to_bytearray())),
                          lambda h: h.aio_pwrite(buf, at, flags=flags))

    def settle(self, want=0):
        """Takes what has been answered into account."""
        for (at, data), error in self.flight.done:
            check_equal(error, want, f'{self.name}: errno')
            if not error:
                self.known[at:at + len(data)] = data
        n = len(self.flight.done)
        self.flight.done = []
        return n

    def until_held(self):
        """Writes until one is not answered; nobody sees an error."""
        for _ in range(10000):
            self.issue()
            if not self.is_answered():
                break
            self.settle()
        check(self.flight.requests, f'{self.name}: nothing is held')
        data = self.event('TTJOURNAL_WAITING')
        check_equal(data['node-name'], 'd', f'{self.name}: node')
        return data['error']

    def is_answered(self):
        """Or is it held?  What is neither yet is slow."""
        end = time.monotonic() + STUCK
        while not self.flight.poll(HELD):
            if self.recorder.qmp.has_come('TTJOURNAL_WAITING'):
                return False
            check(time.monotonic() < end, f'{self.name}: stuck')
        return True

    def event(self, name):
        return self.recorder.qmp.event(name)

    def is_held(self, count):
        check(not self.flight.poll(HELD), f'{self.name}: not held')
        check_equal(len(self.flight.requests), count, f'{self.name}: held')

    def all_answered(self, want=0):
        while self.flight.requests:
            check(self.flight.poll(STUCK), f'{self.name}: stuck')
        self.settle(want)

    def finish(self, want=0):
        self.all_answered(want)
        return self.event('TTJOURNAL_RESUMED')

    def drain(self):
        """Does not wait for room; whether its flush fails does not matter.  (But
        for a request that a client has sent half of it does.)"""
        began = time.monotonic()
        try:
            self.recorder.command('blockdev-reopen', options=[{
                'driver': 'ttjournal', 'node-name': 'd', 'file': 'r',
                'journal': 'j', 'on-journal-error': 'wait', 'ahead': 6 * MIB,
                'discard': 'unmap'}])
        except Failed as e:
            check('Error flushing' in str(e), f'{self.name}: {e}')
        took = time.monotonic() - began
        check(took < STUCK / 2, f'{self.name}: a drain took {took} s')

    def said(self, what):
        log = self.recorder.daemon.log()
        return sum(what in line for line in log.splitlines())

    def reads(self):
        """What is held does not keep reads from being answered."""
        h = self.recorder.connect()
        got = bytes(read_all(h))
        h.shutdown()
        for at, data in self.flight.requests.values():
            # a write that was not acknowledged is not there
            check(got[at:at + len(data)] == self.known[at:at + len(data)],
                  f'{self.name}: a held write is seen')
        check(got == self.known,
              f'{self.name}: {first_difference(got, self.known)}')

    def reads_after(self):
        """Once all is answered, that is what is there."""
        while self.flight.requests:
            check(self.flight.poll(STUCK), f'{self.name}: stuck')
        self.settle()
        self.reads()

    def end(self):
        for h in self.h:
            h.shutdown()
        self.recorder.stop()

    def end_held(self):
        """Neither the export's end nor the process's waits for room."""
        began = time.monotonic()
        if self.t.random.random() < 0.5:
            self.recorder.command('block-export-del', id='e', mode='hard')
            self.event('BLOCK_EXPORT_DELETED')
        self.recorder.stop()
        took = time.monotonic() - began
        check(took < STUCK / 2, f'{self.name}: the end took {took} s')

    def check(self):
        got = read_file(self.disk)
        check(got == self.known, f'{self.name}: the disk: '
              f'{first_difference(got, self.known)}')
        self.t.verify(self.journal)
        views = Views(self.t, self.journal)
        check(views.image('latest') == got, f'{self.name}: view(latest)')
        views.stop()


GRID = 4096


class Gap(Case):
    """A guest that goes on when the journal is full."""

    def start(self):
        super().start('on-journal-error=continue,ahead=6M')

    def go_on(self, count):
        """Writes, one after the other; none fails."""
        for _ in range(count):
            self.issue(self.t.random.choice((512, 4 * KIB, 32 * KIB)),
                       flags=self.t.random.choice((0, 0, nbd.CMD_FLAG_FUA)))
            check(self.flight.poll(STUCK), f'{self.name}: stuck')
            self.settle()

    def until_unrecorded(self, arm=None):
        """Keeps what was there before the first write that is not.  arm() makes
        an append fail, which may be one of the driver's own."""
        n = self.said('NOT RECORDED')
        for i in range(10000):
            if arm and i % 20 == 0:
                arm()
            self.before = bytes(self.known)
            self.go_on(1)
            if self.said('NOT RECORDED') > n:
                return
        check(False, f'{self.name}: always recorded')

    def until_recorded(self, n=1):
        end = time.monotonic() + STUCK
        while self.said('are recorded again') < n:
            check(time.monotonic() < end, f'{self.name}: never recorded again')
            time.sleep(0.05)

    def gaps(self):
        """(from_seq, ranges or [] for all of it) of each that counts."""
        data, found = read_file(self.journal), []
        for r in (r for f in frames(data) for r in f.records):
            if r.kind != GAP:
                continue
            body = r.table_at + 48 if r.flags & INLINE else r.payload
            if u32(data, body + 44) & 1:
                continue
            found.append((u64(data, body), [
                (u64(data, at), u64(data, at + 8)) for at in
                (body + 56 + 16 * i for i in range(u32(data, body + 48)))]))
        return found

    def in_view(self, views, at, want, doubt, what):
        """Outside of @doubt it is exact; inside it may be unknown."""
        h = views.connect(at)
        unknown = 0
        for x in range(0, DISK, GRID):
            try:
                got = h.pread(GRID, x)
            except nbd.Error as e:
                check(e.errnum == errno.EIO and x // GRID in doubt,
                      f'{what}: at {x}: {e}')
                unknown += 1
                continue
            check(got == want[x:x + GRID] or x // GRID in doubt,
                  f'{what}: at {x}')
        h.shutdown()
        return unknown


def blocks(ranges):
    """Their numbers; no ranges are the whole disk."""
    return {x for at, length in ranges or [(0, DISK)]
            for x in range(at // GRID, -(-(at + length) // GRID))}
