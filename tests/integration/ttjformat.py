# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second reader of the journal, written after docs/journal-format.md alone.

It is as simple as can be: it walks the frames of a whole journal from the
first to the last and replays their records into a byte array.  So it has
nothing in common with the library that it checks, neither the index nor the
pre-images.
"""
import ctypes
import ctypes.util
import struct

from ttjtest import Failed, Skip, check

SEGMENTS = 65536
HEADER = 256
MAGIC = b'\x89TTFRM\r\n'
WRITE, ZERO, PREIMAGE, FLUSH, RESIZE, MARK, EVENT, CLOCK, SESSION = range(1, 10)
CHECKPOINT, GAP, SEAL, FOOTER, DAMAGE = range(10, 15)
INLINE = 2


def xxh3(data):
    """XXH3, 64 bits."""
    global _xxhash
    if not _xxhash:
        name = ctypes.util.find_library('xxhash')
        if not name:
            raise Skip('libxxhash is not installed')
        _xxhash = ctypes.CDLL(name)
        _xxhash.XXH3_64bits.restype = ctypes.c_uint64
        _xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return _xxhash.XXH3_64bits(bytes(data), len(data))


_xxhash = None


class Record:
    __slots__ = ('seq', 'kind', 'flags', 'time', 'offset', 'length', 'payload',
                 'payload_length', 'frame', 'table_at', 'epoch')


class Frame:
    __slots__ = ('offset', 'first_seq', 'durable_seq', 'epoch', 'session',
                 'records', 'table_length', 'payload_offset', 'length',
                 'segment', 'flags', 'chain')


def u32(b, at):
    return struct.unpack_from('<I', b, at)[0]


def u64(b, at):
    return struct.unpack_from('<Q', b, at)[0]


def read_frame(data, at):
    """The frame at @at, or None."""
    if data[at:at + 8] != MAGIC or u64(data, at + 24) != at:
        return None
    if u64(data, at + 248) != xxh3(data[at:at + 248]):
        return None
    f = Frame()
    f.offset = at
    f.segment, f.chain = u64(data, at + 32), u64(data, at + 48)
    f.session = u64(data, at + 56)
    f.epoch, f.first_seq = u64(data, at + 80), u64(data, at + 88)
    f.durable_seq = u64(data, at + 96)
    f.flags = u32(data, at + 164)
    count, f.table_length = u32(data, at + 168), u32(data, at + 172)
    f.payload_offset, f.length = u32(data, at + 176), u32(data, at + 180)
    table = data[at + HEADER:at + HEADER + f.table_length]
    if u64(data, at + 184) != xxh3(table):
        return None
    f.records = []
    pos = 0
    for i in range(count):
        r = Record()
        r.frame, r.seq, r.epoch = f, f.first_seq + i, f.epoch
        r.table_at = at + HEADER + pos
        r.kind, r.flags, length = struct.unpack_from('<HHI', table, pos)
        r.time, = struct.unpack_from('<q', table, pos + 8)
        r.offset, r.length = u64(table, pos + 16), u64(table, pos + 24)
        r.payload, r.payload_length = u32(table, pos + 32), u32(table, pos + 36)
        r.payload += at if r.payload else 0
        f.records.append(r)
        pos += length
    return f


def frames(data, after=None):
    """All frames of a journal without damage, in order; those behind the frame
    @after, if given.  One that ends behind the journal's end is not there."""
    segment_size = u64(data, 88)
    at = SEGMENTS
    expected, chain = 1, 0
    if after:
        at = after.offset + after.length
        expected = after.first_seq + len(after.records)
        chain = xxh3(data[after.offset:after.offset + HEADER])
    ret = []
    while True:
        f = read_frame(data, at)
        if not f or f.first_seq != expected or f.chain != chain or \
                at + f.length > len(data):
            following = SEGMENTS + ((at - SEGMENTS) // segment_size + 1) * \
                segment_size
            if (at - SEGMENTS) % segment_size == 0:
                return ret
            at = following
            continue
        ret.append(f)
        expected += len(f.records)
        chain = xxh3(data[at:at + HEADER])
        at += f.length


class Replay:
    """The disk after each sequence number, in ascending order."""

    def __init__(self, original, data):
        self.disk = bytearray(original)
        self.data = data
        self.frames = frames(data)
        self.records = [r for f in self.frames for r in f.records]
        self.at = 0

    def apply(self, r):
        if r.kind == WRITE:
            self.disk[r.offset:r.offset + r.length] = \
                self.data[r.payload:r.payload + r.payload_length]
        elif r.kind == ZERO:
            self.disk[r.offset:r.offset + r.length] = bytes(r.length)
        elif r.kind == RESIZE:
            check(len(self.disk) == r.offset, f'RESIZE {r.seq}: old size')
            if r.length < r.offset:
                del self.disk[r.length:]
            else:
                self.disk += bytes(r.length - r.offset)

    def state(self, seq):
        """The disk after @seq; do not go back."""
        if self.at > seq:
            raise Failed('replay goes forward only')
        while self.at < min(seq, len(self.records)):
            self.apply(self.records[self.at])
            self.at += 1
        return self.disk


def patch_superblock(data, change):
    """Both copies with change(copy) applied and right checksums."""
    data = bytearray(data)
    for at in (0, 32768):
        copy = bytearray(data[at:at + 512])
        change(copy)
        struct.pack_into('<Q', copy, 504, xxh3(copy[:504]))
        data[at:at + 512] = copy
    return bytes(data)
