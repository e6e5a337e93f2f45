# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest knows of its disk, and what a journal says of it.

Every write has a number, and every sector that it writes holds this number and
the sector's own: so a sector says which write it is from, and a misplaced or
torn one is seen.  0 is a sector of zeroes, 1 the original.
"""
import mmap
import struct

import nbd

from ttjformat import PREIMAGE, RESIZE, SESSION, WRITE, ZERO, frames
from ttjtest import check

SECTOR = 512
ORIGINAL = 1


def contents(number, first, count):
    """What write @number puts into sectors first … first + count - 1."""
    return b''.join(struct.pack('<QQ', number, x) * (SECTOR // 16)
                    for x in range(first, first + count))


def decode(image, what, first=0):
    """The number of the write that each sector is from."""
    zero = bytes(SECTOR)
    numbers = []
    for at in range(0, len(image), SECTOR):
        s = image[at:at + SECTOR]
        number, x = struct.unpack_from('<QQ', s)
        if s == zero:
            number = 0
        else:
            check(x == first + at // SECTOR and s == s[:16] * (SECTOR // 16),
                  f'{what}: sector {first + at // SECTOR} is torn or not its '
                  f'own: {s[:32].hex()}')
        numbers.append(number)
    return numbers


class Op:
    """A request that changes sectors."""

    def __init__(self, number, kind, first, count, fua, issued):
        self.number = number
        self.kind = kind         # 'write', 'zero' or 'trim'
        self.first, self.count = first, count
        self.fua = fua
        self.issued = issued
        self.ended = None        # answered, maybe with an error
        self.acknowledged = None

    def holds(self):
        return self.number if self.kind == 'write' else 0

    def __str__(self):
        return (f'{self.kind} {self.number}{" FUA" if self.fua else ""} of '
                f'{self.first}+{self.count} (issued {self.issued}, '
                f'ended {self.ended}, '
                f'acknowledged {self.acknowledged})')


class Flush:
    def __init__(self, issued):
        self.issued = issued


class Guest:
    """Issues requests, and knows what must be on the disk after a crash.

    base: the number in each sector when it began; a crash's outcome is the
    next base.
    """

    def __init__(self, random, sectors):
        self.random = random
        self.base = [ORIGINAL] * sectors
        self.now = 0             # counts what happens
        self.number = ORIGINAL
        self.begin(self.base)

    def begin(self, base):
        self.base = base
        self.ops = []            # since then
        self.by_sector = {}
        self.flushed = -1        # all acknowledged by then is durable

    def op(self, kind, first, count, fua=False):
        self.now += 1
        self.number += 1
        o = Op(self.number, kind, first, count, fua, self.now)
        self.ops.append(o)
        for x in range(first, first + count):
            self.by_sector.setdefault(x, []).append(o)
        return o

    def submit(self, op):
        """For Flight.issue()."""
        at, length = op.first * SECTOR, op.count * SECTOR
        fua = nbd.CMD_FLAG_FUA if op.fua else 0
        if op.kind == 'zero':
            return lambda h: h.aio_zero(length, at, flags=fua)
        if op.kind == 'trim':
            return lambda h: h.aio_trim(length, at, flags=fua)
        buf = nbd.Buffer.from_bytearray(bytearray(
            contents(op.number, op.first, op.count)))
        return lambda h: h.aio_pwrite(buf, at, flags=fua)

    def flush(self):
        self.now += 1
        return Flush(self.now)

    def settle(self, tag, error):
        """An answer."""
        self.now += 1
        if isinstance(tag, Flush):
            if not error:
                self.flushed = max(self.flushed, tag.issued)
        elif isinstance(tag, Op):
            tag.ended = self.now
            if not error:
                tag.acknowledged = self.now

    def durable(self, op):
        return op.acknowledged is not None and (
            op.fua or op.acknowledged < self.flushed)

    def allowed(self, x, must):
        """What sector x may hold: the newest version that must() be there, or
        one that had not ended before that was issued."""
        ops = self.by_sector.get(x, ())
        newest = max((o.issued for o in ops if must(o)), default=-1)
        numbers = {o.holds() for o in ops
                   if o.ended is None or o.ended >= newest}
        return numbers if newest >= 0 else numbers | {self.base[x]}

    def check_sectors(self, held, what, must=None, first=0):
        for x, number in enumerate(held, first):
            if x not in self.by_sector:
                check(number == self.base[x], f'{what}: sector {x} is from '
                      f'{number}, and nobody wrote it over {self.base[x]}')
                continue
            allowed = self.allowed(x, must or self.durable)
            check(number in allowed, f'{what}: sector {x} is from {number}, '
                  f'not from one of {allowed}; there were '
                  f'{[str(o) for o in self.by_sector[x]]} over '
                  f'{self.base[x]}; flushed {self.flushed}')


def acknowledged(op):
    return op.acknowledged is not None


class History:
    """A journal that is read again after each crash, and what it says."""

    def __init__(self, path, sectors):
        with open(path, 'rb') as f:
            self.map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self.after = None        # the frame of the last SESSION
        self.session = 0
        self.numbers = [ORIGINAL] * sectors   # the disk as it says
        self.versions = [{ORIGINAL} for _ in range(sectors)]
        self.records = []

    def seq(self):
        return self.after.first_seq + len(self.after.records) - 1 \
            if self.after else 0

    def read(self, what, all=False):
        """To the newest SESSION, which recovery makes durable before anything
        else can be: all before it is history for ever.  Or all there is."""
        new = frames(self.map, self.after)
        last = max((i for i, f in enumerate(new)
                    if any(r.kind == SESSION for r in f.records)), default=-1)
        if not all:
            check(last >= 0 and new[last].session > self.session,
                  f'{what}: no durable SESSION of the new session')
            self.session = new[last].session
            del new[last + 1:]
        self.records = [r for f in new for r in f.records]
        self.held = {}           # seq -> numbers that a record has
        if new:
            self.after = new[-1]
        for r in self.records:
            self.apply(r, what)

    def apply(self, r, what):
        first, count = r.offset // SECTOR, r.length // SECTOR
        if r.kind in (WRITE, PREIMAGE) and r.payload_length:
            numbers = decode(self.map[r.payload:r.payload + r.payload_length],
                             f'{what}: record {r.seq}', first)
        elif r.kind in (ZERO, PREIMAGE):
            numbers = [0] * count
        elif r.kind == RESIZE:
            self.resize(r.length // SECTOR)
            return
        else:
            return
        if r.kind == PREIMAGE:
            check(set(numbers) == {ORIGINAL}, f'{what}: the pre-image {r.seq} '
                  f'of {first}+{count} has {set(numbers)}')
            return
        self.held[r.seq] = numbers
        self.numbers[first:first + count] = numbers
        for x, number in enumerate(numbers, first):
            self.versions[x].add(number)

    def resize(self, sectors):
        del self.numbers[sectors:]
        self.numbers += [0] * (sectors - len(self.numbers))
        while len(self.versions) < sectors:
            self.versions.append({0})

    def check_records(self, guest, what):
        """The new records are the guest's requests, in a possible order, with
        no hole among them, and all that were durable."""
        ops = {o.number: o for o in guest.ops if o.kind == 'write'}
        there = {}
        earliest = None          # acknowledgement among the later ones
        for r in reversed(self.records):
            if r.kind != WRITE:
                continue
            numbers = self.held[r.seq]
            first, number = r.offset // SECTOR, numbers[0]
            check(number in ops and set(numbers) == {number},
                  f'{what}: record {r.seq} has writes {set(numbers)}')
            o = ops[number]
            last = first + len(numbers)
            check(o.first <= first and last <= o.first + o.count,
                  f'{what}: record {r.seq} is not {o}')
            check(earliest is None or earliest.acknowledged > o.issued,
                  f'{what}: {o} is record {r.seq}, but {earliest} came '
                  'later and was complete before')
            if o.acknowledged is not None and (
                    earliest is None or
                    o.acknowledged < earliest.acknowledged):
                earliest = o
            there[number] = there.get(number, 0) + len(numbers)
        newest = max((ops[n] for n in there), key=lambda o: o.issued,
                     default=None)
        for o in ops.values():
            if there.get(o.number, 0) >= o.count:
                continue
            check(not guest.durable(o), f'{what}: {o} was durable, and is not '
                  'in the journal')
            check(o.acknowledged is None or newest is None or
                  o.acknowledged > newest.issued,
                  f'{what}: {o} is lost, and the later {newest} is not')
        return len(there)

    def check_known(self, held, what):
        """Promise 2: a disk holds nothing that is not in the journal."""
        for x, number in enumerate(held):
            check(number in self.versions[x], f'{what}: sector {x} of the '
                  f'disk is from {number}, which is not in the journal: it '
                  f'has {sorted(self.versions[x])}')
