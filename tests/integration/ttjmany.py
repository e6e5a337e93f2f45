# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk's past, known from what was written to it, and many views of it that
are open at once.

The truth is a buffer to which every operation is applied, and its hash at each
moment; nothing of it is read back from the disk or from the journal.
"""
import collections
import concurrent.futures
import hashlib
import resource
import time

import nbd

from ttjplugin import stamp
from ttjtest import Flight, KIB, check

SECTOR = 512
GRID = 4 * KIB
PIECE = 256 * KIB             # what is read of a view at a time

# What was written until then: a name for behind NAME@, and a SHA-256.
Moment = collections.namedtuple('Moment', 'time sha256')


def allow_many_files():
    """One for each view, here and in servers, which inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(hard, 16384)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Past:
    """Changes a disk through its recorder, and knows what it was when."""

    def __init__(self, random, handles, original, limit=16):
        self.random = random
        self.now = bytearray(original)
        self.flight = Flight(handles, limit)
        self.moments = []

    def change(self, count, largest=64 * KIB):
        """So many operations.  No two of those in flight overlap: which of them
        comes last would not be known."""
        for _ in range(count):
            kind = self.random.choice(('write',) * 7 + ('fua', 'zero', 'trim'))
            at, length = self.free_range(GRID if kind == 'trim' else SECTOR,
                                         largest)
            self.issue(kind, at, length)

    def free_range(self, unit, largest):
        while True:
            length = unit * self.random.randint(1, largest // unit)
            at = unit * self.random.randint(0, (len(self.now) - length) // unit)
            if all(at + length <= a or a + n <= at
                   for a, n in self.flight.requests.values()):
                return at, length
            if len(self.flight.requests) == self.flight.limit:
                self.flight.poll()

    def issue(self, kind, at, length):
        tag = (at, length)
        if kind in ('zero', 'trim'):
            self.now[at:at + length] = bytes(length)
            self.flight.issue(tag, lambda h: (
                h.aio_zero if kind == 'zero' else h.aio_trim)(length, at))
            return
        data = bytearray(self.random.randbytes(length))
        self.now[at:at + length] = data
        buf = nbd.Buffer.from_bytearray(data)
        flags = nbd.CMD_FLAG_FUA if kind == 'fua' else 0
        self.flight.issue(tag, lambda h: h.aio_pwrite(buf, at, flags=flags))

    def moment(self):
        """All that was written is complete, and nothing else is under way."""
        self.flight.drain()
        self.moments.append(Moment(stamp(time.time_ns()),
                                   hashlib.sha256(self.now).digest()))
        return self.moments[-1]


class View:
    """One that is open, and is read from its beginning to its end."""

    def __init__(self, handle, name, sha256):
        self.handle, self.name, self.sha256 = handle, name, sha256
        self.size = handle.get_size()
        self.whole = 0        # how often it was read to the end, and was right
        self.begin()

    def begin(self):
        self.at = 0
        self.sha = hashlib.sha256()

    def read(self):
        """The next piece; its length."""
        length = min(PIECE, self.size - self.at)
        self.sha.update(self.handle.pread(length, self.at))
        self.at += length
        if self.at == self.size:
            check(self.sha.digest() == self.sha256,
                  f'{self.name} is not what the disk was then')
            self.whole += 1
            self.begin()
        return length

    def close(self):
        self.handle.shutdown()


def read_whole(views, threads=4):
    """Each of them once and to its end, a piece of each in turns."""
    left = collections.deque(views)
    for v in views:
        v.begin()

    def work():
        while True:
            try:
                v = left.popleft()
            except IndexError:
                return        # whoever has the last ones ends them
            v.read()
            if v.at:
                left.append(v)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for worker in [pool.submit(work) for _ in range(threads)]:
            worker.result()
