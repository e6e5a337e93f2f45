# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of `ttjournal mount` share: recorded file systems, and what a
view may leave behind."""
import contextlib
import glob
import json
import os
import subprocess
import time

from ttjtest import (KIB, MIB, Recorder, Skip, built, check, check_equal,
                     need, read_file, sha)

START = 2 * MIB          # of the partition that holds a file system
JBD2 = b'\xc0\x3b\x39\x98\0\0\0\1'  # begins a transaction in ext4's journal
LIMIT = 300              # seconds what must happen by itself may take

MKFS = {                 # kind: (arguments, MiB)
    'ext4': (['mkfs.ext4', '-q', '-F', '-m', '0'], 24),
    'xfs': (['mkfs.xfs', '-q', '-f'], 64),
    'btrfs': (['mkfs.btrfs', '-q', '-f'], 128),
    'vfat': (['mkfs.vfat', '-F', '32'], 40),
    'ntfs': (['mkfs.ntfs', '-q', '-F', '-f'], 16),
}


def run(*args, **kwargs):
    """What it printed; it must succeed."""
    p = subprocess.run(args, text=True, capture_output=True, **kwargs)
    check(p.returncode == 0, f'{" ".join(args)}: {p.returncode}: '
          f'{p.stderr or p.stdout}')
    return p.stdout


def kernel_has(kind):
    return kind in read_file('/proc/filesystems').decode().split()


def wait_for(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        check(time.monotonic() < end, f'not within {LIMIT} s: {what}')
        time.sleep(0.01)


def need_mounting():
    if os.geteuid() != 0:
        raise Skip('mounting takes root')
    for path in ('/dev/fuse', '/dev/loop-control'):
        if not os.path.exists(path):
            raise Skip(f'there is no {path}')
    for name in ('nbdfuse', 'mount', 'mkfs.ext4'):
        need(name)


def make_fs(t, kind, partitioned):
    """A disk with one file system: its path and where that lies."""
    args, size = MKFS[kind]
    n = t.number()
    fs, disk = t.path(f'fs{n}'), t.path(f'disk{n}')
    with open(fs, 'wb') as f:
        f.truncate(size * MIB)
    # mkfs.xfs makes none below 300 MiB but for its own tests
    run(need(args[0]), *args[1:], fs,
        env=dict(os.environ, TEST_DIR='x', TEST_DEV='x', QA_CHECK_FS='x'))
    if not partitioned:
        os.rename(fs, disk)
        return disk, 0
    with open(disk, 'wb') as f:
        f.truncate((size + 3) * MIB)
    run(need('sfdisk'), '-q', disk, input=f'label: '
        f'{t.random.choice(("dos", "gpt"))}\n'
        f'start=2048,size=1024\nstart={START // 512},'
        f'size={size * MIB // 512}\n')
    run('dd', f'if={fs}', f'of={disk}', 'bs=1M', f'seek={START // MIB}',
        'conv=notrunc,sparse', 'status=none')
    os.unlink(fs)
    return disk, START


@contextlib.contextmanager
def mounted_rw(t, kind, recorder, start):
    """The recorded disk's file system, mounted as its guest would."""
    n = t.number()
    fuse, target = t.path(f'live{n}'), t.path(f'guest{n}')
    os.mkdir(fuse)
    os.mkdir(target)
    log = open(t.path(f'nbdfuse{n}.log'), 'wb')
    server = subprocess.Popen(
        [need('nbdfuse'), f'{fuse}/disk',
         f'nbd+unix:///d?socket={recorder.sock}'],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    log.close()
    t.undo.append(lambda: (server.poll() is None and server.kill(),
                           server.wait()))
    t.undo.append(lambda: subprocess.run(['umount', '-l', fuse],
                                         capture_output=True))
    wait_for(lambda: os.path.exists(f'{fuse}/disk') or
             server.poll() is not None, 'nbdfuse')
    check(server.poll() is None, 'nbdfuse has ended')
    # what is not synced stays where it is until the end
    slow = {'ext4': ',commit=600', 'btrfs': ',commit=300'}.get(kind, '')
    run('mount', '-t', kind, '-o', f'loop,offset={start},'
        f'sizelimit={MKFS[kind][1] * MIB}{slow}', f'{fuse}/disk', target)
    t.undo.append(lambda: subprocess.run(['umount', '-l', target],
                                         capture_output=True))
    yield target
    run('umount', target)
    wait_for(lambda: subprocess.run(['umount', fuse],
                                    capture_output=True).returncode == 0,
             f'umount {fuse}')
    check_equal(server.wait(), 0, 'status of nbdfuse')


def fsync_write(path, data):
    with open(path, 'wb') as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def fsync_dir(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def now():
    ns = time.time_ns()
    return f'@{ns // 10**9}.{ns % 10**9:09}'


class States:
    """A disk of which whole states are recorded, for what the kernel here
    cannot mount."""

    def __init__(self, t, size):
        self.t = t
        n = t.number()
        self.disk, self.journal = t.path(f'disk{n}'), t.path(f'd{n}.ttj')
        with open(self.disk, 'wb') as f:
            f.truncate(size)
        t.create(self.journal, self.disk)

    def record(self, path, mark):
        """Makes the disk hold what the file @path holds."""
        recorder = Recorder(self.t, self.disk, self.journal)
        h = recorder.connect()
        with open(path, 'rb') as f:
            for at in range(0, os.path.getsize(path), 64 * KIB):
                data = f.read(64 * KIB)
                if bytes(h.pread(len(data), at)) != data:
                    h.pwrite(data, at)
        h.flush()
        h.shutdown()
        recorder.stop()
        self.t.tool('mark', self.journal, mark)
        return f'mark:{mark}'


def spoil(t, journal, at, word):
    """A copy of the journal, where what was first recorded with @word @at
    that place of a record's payload is damaged."""
    copy = t.path(f'spoiled{t.number()}.ttj')
    data = bytearray(read_file(journal))
    for line in t.tool('dump', journal).splitlines():
        fields = dict(x.split('=', 1) for x in line.split() if '=' in x)
        if fields.get('kind') in ('write', 'preimage') and \
                int(fields['payload_length']) > 0:
            start = int(fields['frame']) + int(fields['payload_offset'])
            if data[start + at:start + at + len(word)] == word:
                data[start + at] ^= 1
                break
    else:
        check(False, f'nothing with {word} was recorded')
    with open(copy, 'wb') as f:
        f.write(data)
    return copy


# ---- mounting, and what is left ---------------------------------------------

class Mounts:
    """Directories to mount on, which are free again at the end."""

    def __init__(self, t):
        self.t = t

    def target(self, name=''):
        path = self.t.path(f'view{self.t.number()}{name}')
        os.mkdir(path)
        self.t.undo.append(lambda: subprocess.run(
            [built('tools/ttjournal'), 'umount', path], capture_output=True))
        return path

    def mount(self, moment, *options):
        """Where it is now, and what was said on stderr."""
        target = self.target()
        p = self.t.tool_raw('mount', moment, target, *options)
        check_equal(p.returncode, 0, f'mount {moment} {options}: {p.stderr}')
        return target, p.stderr

    def refused(self, moment, *options, status=10):
        """The one line that says why."""
        p = self.t.tool_raw('mount', moment, self.target(), *options)
        check_equal(p.returncode, status,
                    f'mount {moment} {options}: {p.stdout}{p.stderr}')
        lines = p.stderr.splitlines()
        check_equal(len(lines), 1, f'lines that refuse {moment}: {lines}')
        return lines[0]


def diff(a, b):
    p = subprocess.run(['diff', '-r', a, b], text=True, capture_output=True,
                       env=dict(os.environ, LC_ALL='C'))
    check(p.returncode in (0, 1), f'diff: {p.stderr}')
    return p.stdout.replace(a, 'a').replace(b, 'b').splitlines()


def processes(word):
    """Those with @word in their command line or environment, but us."""
    found = []
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        pid = int(path.split('/')[2])
        try:
            text = read_file(path)
        except OSError:
            continue
        if word.encode() in text and pid != os.getpid():
            found.append((pid, text.replace(b'\0', b' ').decode()))
    return found


def run_dirs(t, base):
    """Where the state of views of this test would be: others may have some
    of their own."""
    targets = glob.glob(f'{t.dir}/*') + glob.glob(f'{t.dir}/user/*')
    return [f'{base}/{sha(os.fsencode(x))[:16]}' for x in targets
            if not os.path.isfile(x)]


def left_behind(t, base='/run/ttjournal'):
    """All that belongs to this test's views and should be gone."""
    folders = run_dirs(t, base)
    found = [f'process {pid}: {text}' for pid, text in processes('.ttj')
             if t.dir in text]
    found += [line for line in
              read_file('/proc/self/mounts').decode().splitlines()
              if f'{t.dir}/view' in line or f'{t.dir}/user/' in line or
              any(f'{x}/' in line for x in folders)]
    found += [line for line in run('losetup', '-a').splitlines()
              if any(f'{x}/' in line for x in folders)]
    return found + [x for x in folders if os.path.lexists(x)]


def check_clean(t, when, **kwargs):
    """Nothing is left; the kernel may take a moment to let go."""
    end = time.monotonic() + LIMIT
    while left_behind(t, **kwargs) and time.monotonic() < end:
        time.sleep(0.02)
    check_equal(left_behind(t, **kwargs), [], f'left behind {when}')


def listed(t):
    """`ttjournal mounts`, as far as they are this test's."""
    lines = t.tool('mounts', '--json').splitlines()
    return [v for v in map(json.loads, lines)
            if v['target'].startswith(t.dir)]
