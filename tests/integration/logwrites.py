# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads the log of a block device's writes that Linux' dm-log-writes and QEMU's
blklogwrites make, as Documentation/admin-guide/device-mapper/log-writes.rst and
drivers/md/dm-log-writes.c of Linux describe it.

All is little-endian, and in units of the log's sectors.  Sector 0 is the super
block: magic, version and number of entries (8 bytes each), sector size (4).
Then the entries, back to back: a sector with the disk's sector, how many,
flags and length of a mark's text (8 bytes each), and, but for discards, as
many sectors of data.
"""
import mmap
import struct

from ttjtest import check, check_equal

MAGIC = 0x6a736677736872
VERSION = 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR_UNITS = (512, 4096)


class Entry:
    __slots__ = ('number', 'flags', 'offset', 'length', 'data')

    def __str__(self):
        return (f'entry {self.number} ({self.length} bytes at {self.offset}, '
                f'flags {self.flags})')


class Log:
    """The entries of a whole log, in order.

    data is None for a discard, which is taken to leave zeroes: that is what
    the recorder under test makes of it, and what it promises.
    """

    def __init__(self, path):
        with open(path, 'rb') as f:
            self.map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, self.count, self.sector = \
            struct.unpack_from('<QQQI', self.map)
        check_equal(magic, MAGIC, f"{path}: the log's magic")
        check_equal(version, VERSION, f"{path}: the log's version")
        check(self.sector in SECTOR_UNITS,
              f'{path}: sectors of {self.sector} bytes')
        self.entries = list(self.walk(path))

    def walk(self, path):
        at = self.sector
        for number in range(self.count):
            check(at + self.sector <= len(self.map),
                  f'{path} ends before entry {number} of {self.count}')
            first, count, flags, mark = \
                struct.unpack_from('<QQQQ', self.map, at)
            at += self.sector
            check(flags & ~(FLUSH | FUA | DISCARD) == 0 and mark == 0,
                  f'{path}: entry {number} has flags {flags:#x}, text of '
                  f'{mark} bytes')
            e = Entry()
            e.number, e.flags = number, flags
            e.offset, e.length = first * self.sector, count * self.sector
            e.data = None
            if not flags & DISCARD:
                e.data = memoryview(self.map)[at:at + e.length]
                check_equal(len(e.data), e.length, f'{path}: data of {e}')
                at += e.length
            yield e


class Disk:
    """The disk after the entries that were applied, in order."""

    def __init__(self, original):
        self.bytes = bytearray(original)

    def apply(self, e):
        check(e.offset + e.length <= len(self.bytes),
              f'{e} is beyond the disk of {len(self.bytes)} bytes')
        self.bytes[e.offset:e.offset + e.length] = \
            bytes(e.length) if e.data is None else e.data
