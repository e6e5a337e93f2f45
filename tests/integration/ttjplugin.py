# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the plugin share: servers of any form, and maps."""
import struct
import subprocess
import time

import nbd

from ttjformat import CHECKPOINT, HEADER, MARK, frames, u32, u64, xxh3
from ttjtest import Daemon, built, check, connect, need, read_all

PLUGIN = 'nbd-plugin/nbdkit-ttview-plugin.so'
DATA, HOLE, HOLE_ZERO = 0, 1, 3          # types of base:allocation
MAX_COUNT = 0xffffffff
LEAF = 65536                             # of the journal's hash tree


def stamp(when=None):
    """A moment, in ns, as a TIME of the plugin."""
    when = time.time_ns() if when is None else when
    return f'@{when // 10**9}.{when % 10**9:09}'


class Server:
    """An nbdkit with the plugin, its parameters, filters and flags."""

    def __init__(self, t, *args, filters=(), flags=(), env=None):
        self.sock = t.path(f'server{t.number()}')
        command = [need('nbdkit'), '-f', '-U', self.sock, *flags,
                   *(f'--filter={f}' for f in filters), built(PLUGIN), *args]
        self.daemon = Daemon(t, 'nbdkit', command, self.sock, env)

    def connect(self, name='', **kwargs):
        return connect(self.sock, name, **kwargs)

    def refuses(self, name, *words):
        """There is no such export, and the log says why."""
        before = len(self.daemon.log())
        try:
            self.connect(name).shutdown()
        except nbd.Error:
            pass
        else:
            check(False, f'the export "{name[:100]}" should be refused')
        said = self.daemon.log()[before:]
        for word in words:
            check(word in said, f'"{name[:100]}" is refused, but "{word}" is '
                  f'not said: {said}')

    def image(self, name=''):
        h = self.connect(name)
        data = read_all(h)
        h.shutdown()
        return data

    def info(self, name=''):
        """(canonical name, description, size, multi-conn)"""
        h = nbd.NBD()
        h.set_full_info(True)
        h.set_export_name(name)
        h.connect_unix(self.sock)
        ret = (h.get_canonical_export_name(), h.get_export_description(),
               h.get_size(), h.can_multi_conn())
        h.shutdown()
        return ret

    def list(self):
        """{name: description}"""
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.connect_unix(self.sock)
        found = {}
        count = h.opt_list(lambda name, about: found.__setitem__(name, about))
        h.opt_abort()
        check(count == len(found), f'{count} exports, {len(found)} names')
        return found

    def log(self):
        return self.daemon.log()

    def stop(self):
        self.daemon.stop()


def statuses(h, count, offset, one=False):
    """One answer of block status: [(length, type)]."""
    found = []

    def extent(context, at, entries, error):
        if context == 'base:allocation':
            found.extend(zip(entries[::2], entries[1::2]))
    h.block_status(count, offset, extent,
                   nbd.CMD_FLAG_REQ_ONE if one else 0)
    return found


def extents(h, step=MAX_COUNT, one=False):
    """All of an export: [[offset, length, type]], alike ones joined."""
    size, at, ret = h.get_size(), 0, []
    while at < size:
        got = statuses(h, min(step, size - at), at, one)
        check(got, f'no extent at {at}')
        for length, kind in got:
            check(length > 0, f'an extent of nothing at {at}')
            if ret and ret[-1][2] == kind:
                ret[-1][1] += length
            else:
                ret.append([at, length, kind])
            at += length
    check(at == size, f'the extents end at {at}, the disk at {size}')
    return ret


def per_sector(found, size):
    """Extents as a list of types, one for each sector."""
    types = [None] * (size // 512)
    for at, length, kind in found:
        check(at % 512 == 0 and length % 512 == 0,
              f'an extent of {at}+{length} is not of whole sectors')
        types[at // 512:(at + length) // 512] = [kind] * (length // 512)
    return types


def run_captive(t, args, script, flags=()):
    """nbdkit -U - … --run; returns what the script printed."""
    p = subprocess.run(
        [need('nbdkit'), '-U', '-', *flags, built(PLUGIN), *args, '--run',
         script], text=True, capture_output=True, cwd=t.dir)
    check(p.returncode == 0, f'nbdkit --run: {p.returncode}: {p.stderr}')
    return p.stdout


def append_marks(journal, names, per_frame=100):
    """Appends MARKs to a journal of one segment that has one already; a tool
    would make a session for each.  Those in the last frame are not durable."""
    with open(journal, 'rb') as f:
        data = f.read()
    whole = frames(data)
    last, mark = whole[-1], [r for f in whole for r in f.records
                             if r.kind == MARK][-1]
    template = data[mark.table_at:][:u32(data, mark.table_at + 4)]
    head = bytearray(data[last.offset:last.offset + HEADER])
    if any(r.kind == CHECKPOINT for r in last.records):
        struct.pack_into('<Q', head, 128, last.offset)
    notable, at = mark.frame.offset, last.offset + last.length
    seq = last.first_seq + len(last.records)
    chain, prev = xxh3(data[last.offset:last.offset + HEADER]), last.offset
    with open(journal, 'r+b') as f:
        for i in range(0, len(names), per_frame):
            some = names[i:i + per_frame]
            frame = _mark_frame(head, template, some, at, prev, chain, seq,
                                notable)
            f.seek(at)
            f.write(frame)
            head = bytearray(frame[:HEADER])
            chain, prev, notable = xxh3(head), at, at
            at += len(frame)
            seq += len(some)


def _mark_frame(head, template, names, at, prev, chain, seq, notable):
    head = bytearray(head)
    align, when = u32(head, 160), u64(head, 112)
    leaf = u64(head, 144) + -(-u32(head, 180) // LEAF)
    table = b''.join(_mark(template, name, when) for name in names)
    payload = -(-(HEADER + len(table)) // align) * align
    for offset, value in ((24, at), (40, prev), (48, chain), (88, seq),
                          (96, seq - 1), (104, when), (144, leaf),
                          (184, xxh3(table)), (216, notable)):
        struct.pack_into('<Q', head, offset, value)
    struct.pack_into('<IIIII', head, 164, 0, len(names), len(table), payload,
                     payload)
    struct.pack_into('<Q', head, 248, xxh3(head[:248]))
    return bytes(head) + table + bytes(payload - HEADER - len(table))


def _mark(template, name, when):
    fixed, body = bytearray(template[:48]), name.encode()
    sums = struct.pack('<Q', xxh3(body)) if u32(fixed, 40) else b''
    tail = sums + body
    tail += bytes(-len(tail) % 8)
    struct.pack_into('<I', fixed, 4, 48 + len(tail))
    struct.pack_into('<Q', fixed, 8, when)
    struct.pack_into('<I', fixed, 36, len(body))
    return bytes(fixed) + tail
