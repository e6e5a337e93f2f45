# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vhost-user-blk front end: what a guest and its virtual machine do.

The guest's memory is a memfd that the back end maps, too, so whoever else has
it mapped can change a buffer while the back end reads from it.  That is what
this is for; it knows one queue and polls.
"""
import array
import ctypes
import mmap
import os
import socket
import struct
import time

from ttjtest import Failed, check

GET_FEATURES, SET_FEATURES, SET_OWNER = 1, 2, 3
SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE = 5, 8, 9, 10
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, SET_VRING_ENABLE = 15, 16, 18
F_VERSION_1, F_PROTOCOL_FEATURES = 1 << 32, 1 << 30
BLK_IN, BLK_OUT, BLK_FLUSH = 0, 1, 4
DESC_NEXT, DESC_WRITE = 1, 2

LIMIT = 300                        # seconds until a request is lost
SIZE = 64                          # of the queue
DESC, AVAIL, USED, HEADS = 0, 0x2000, 0x3000, 0x4000
BUFFERS = 0x10000


class Front:
    """Connects to the export and offers a memory of @buffers bytes."""

    def __init__(self, path, buffers):
        self.size = BUFFERS + buffers
        self.fd = os.memfd_create('guest')
        os.ftruncate(self.fd, self.size)
        self.memory = mmap.mmap(self.fd, self.size)
        # read and written at once, not byte by byte as struct does
        self.avail_index = ctypes.c_uint16.from_buffer(self.memory, AVAIL + 2)
        self.used_index = ctypes.c_uint16.from_buffer(self.memory, USED + 2)
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.free = list(range(SIZE // 3))
        self.avail = self.used = 0
        self.tags = {}
        self.start()

    def message(self, request, body=b'', fds=(), reply=False):
        head = struct.pack('<III', request, 1, len(body))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                   array.array('i', fds))] if fds else []
        self.socket.sendmsg([head + body], rights)
        if not reply:
            return None
        got = self.socket.recv(20, socket.MSG_WAITALL)
        check(len(got) == 20, 'the vhost-user back end hung up')
        return struct.unpack('<Q', got[12:])[0]

    def start(self):
        features = self.message(GET_FEATURES, reply=True)
        check(features & F_VERSION_1, 'vhost-user: no virtio 1')
        self.message(SET_OWNER)
        if features & F_PROTOCOL_FEATURES:
            self.message(GET_PROTOCOL_FEATURES, reply=True)
            self.message(SET_PROTOCOL_FEATURES, struct.pack('<Q', 0))
        self.message(SET_FEATURES, struct.pack(
            '<Q', F_VERSION_1 | (features & F_PROTOCOL_FEATURES)))
        # guest addresses and "user" addresses are both offsets
        self.message(SET_MEM_TABLE, struct.pack(
            '<IIQQQQ', 1, 0, 0, self.size, 0, 0), [self.fd])
        self.message(SET_VRING_NUM, struct.pack('<II', 0, SIZE))
        self.message(SET_VRING_BASE, struct.pack('<II', 0, 0))
        self.message(SET_VRING_ADDR, struct.pack('<IIQQQQ', 0, 0, DESC, USED,
                                                 AVAIL, 0))
        self.message(SET_VRING_CALL, struct.pack('<Q', 0), [self.call])
        self.message(SET_VRING_KICK, struct.pack('<Q', 0), [self.kick])
        if features & F_PROTOCOL_FEATURES:
            self.message(SET_VRING_ENABLE, struct.pack('<II', 0, 1))

    def submit(self, tag, kind, offset, at, length):
        """One request; the data is @length bytes at @at in the buffers."""
        while not self.free:
            self.wait()
        slot = self.free.pop()
        head = HEADS + slot * 32
        struct.pack_into('<IIQB', self.memory, head, kind, 0, offset // 512,
                         0xff)
        first = slot * 3
        parts = [(head, 16, 0)]
        if length:
            parts.append((BUFFERS + at, length,
                          DESC_WRITE if kind == BLK_IN else 0))
        parts.append((head + 16, 1, DESC_WRITE))
        for i, (address, size, flags) in enumerate(parts):
            last = i == len(parts) - 1
            struct.pack_into('<QIHH', self.memory, DESC + 16 * (first + i),
                             address, size, flags | (0 if last else DESC_NEXT),
                             0 if last else first + i + 1)
        struct.pack_into('<H', self.memory, AVAIL + 4 + 2 * (self.avail % SIZE),
                         first)
        self.avail = (self.avail + 1) & 0xffff
        self.avail_index.value = self.avail
        self.tags[first] = tag
        os.eventfd_write(self.kick, 1)

    def collect(self):
        """Tags of what has completed; it must have succeeded."""
        done = []
        while self.used_index.value != self.used:
            first, = struct.unpack_from(
                '<I', self.memory, USED + 4 + 8 * (self.used % SIZE))
            self.used = (self.used + 1) & 0xffff
            slot = first // 3
            status = self.memory[HEADS + slot * 32 + 16]
            tag = self.tags.pop(first)
            check(status == 0, f'{tag}: virtio-blk status {status}')
            self.free.append(slot)
            done.append(tag)
        return done

    def wait(self):
        """Until something has completed."""
        end = time.monotonic() + LIMIT
        while True:
            done = self.collect()
            if done:
                return done
            if time.monotonic() > end:
                raise Failed(f'vhost-user: no answer within {LIMIT} s')
            time.sleep(0)

    def drain(self):
        while self.tags:
            self.wait()
