# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the integration tests share: the programs under test, and their end.

A test is a program of its own:

    #!/usr/bin/python3
    from ttjtest import Test
    def main(t): ...
    Test(main)

It exits 0, 1 (failed) or 77 (skipped, with the reason) and closes with one
line.  Everything it makes is in t.dir and is gone at the end, whatever the
end; daemons die with it even if it is killed.  What failed stays where it is
with TTJ_KEEP=1.

    QEMU_BUILD   where qemu-storage-daemon and qemu-io are (build/qemu)
    TTJ_BUILD    where tools/ and nbd-plugin/ are (build)
    TTJ_SEED     repeats a run; each test prints its seed
    TTJ_LONG=1   the full figures
    TTJ_TRACE=1  what each call to disks of PowerDisks was, beside their socket
"""
import atexit
import ctypes
import hashlib
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

try:
    import nbd
except ImportError:
    print('skipped: python3-libnbd is not installed')
    sys.exit(77)

KIB = 1024
MIB = 1024 * KIB
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
QEMU = os.path.abspath(os.environ.get('QEMU_BUILD', ROOT + '/build/qemu'))
BUILD = os.path.abspath(os.environ.get('TTJ_BUILD', ROOT + '/build'))
LONG = os.environ.get('TTJ_LONG', '') not in ('', '0')
# What waits for these is lost if it has not come by then, on any machine.
START_LIMIT = 300  # seconds a daemon may take until it listens
STOP_LIMIT = 300   # and until it has ended
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """This test cannot run here."""


class Failed(Exception):
    """The product does not do what it should."""


def check(condition, what):
    if not condition:
        raise Failed(what)


# ASan says these of QEMU's coroutines, whatever happens.
COROUTINES = ('makecontext/swapcontext', '__asan_handle_no_return',
              'False positive error reports may follow',
              'github.com/google/sanitizers/issues/189')


def without_asan(lines):
    """What a program has said itself."""
    return [x for x in lines if not any(c in x for c in COROUTINES)]


def check_equal(got, want, what):
    check(got == want, f'{what}: got {got!r}, expected {want!r}')


def qemu(name):
    """Path of one of QEMU's programs, as built or as installed."""
    for path in (f'{QEMU}/{name}', f'{QEMU}/storage-daemon/{name}'):
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise Skip(f'{name} is not in {QEMU}: scripts/build-qemu builds it')


def built(path):
    path = f'{BUILD}/{path}'
    if not os.path.exists(path):
        raise Skip(f'{path} is not built: ninja -C {BUILD}')
    return path


def need(program):
    path = shutil.which(program, path=os.environ['PATH'] + ':/usr/sbin:/sbin')
    if not path:
        raise Skip(f'{program} is not installed')
    return path


def driver_has(option):
    """Does the driver of this QEMU know this option?"""
    p = subprocess.run(
        [qemu('qemu-storage-daemon'), '--blockdev',
         f'driver=ttjournal,node-name=x,file=no,journal=no,{option}'],
        text=True, capture_output=True)
    return 'is unexpected' not in p.stderr and \
        'does not accept value' not in p.stderr


def sha(data):
    return hashlib.sha256(data).hexdigest()


def read_file(path):
    with open(path, 'rb') as f:
        return f.read()


def write_file(path, data):
    with open(path, 'wb') as f:
        f.write(data)


def first_difference(a, b):
    """Where two byte strings differ, for a message."""
    if len(a) != len(b):
        return f'lengths {len(a)} and {len(b)}'
    for at in range(0, len(a), 512):
        if a[at:at + 512] != b[at:at + 512]:
            return f'first at {at}'
    return 'not at all'


def mount(t, kind, size):
    """A small file system of its own, or None."""
    where = t.path(f'mount-{kind}-{t.number()}')
    os.mkdir(where)
    args = ['-t', 'tmpfs', '-o', f'size={size}', 'tmpfs']
    if kind != 'tmpfs':
        mkfs = shutil.which(f'mkfs.{kind}', path='/usr/sbin:/sbin:/usr/bin')
        if not mkfs:
            return None
        image = t.path(f'{kind}.img')
        with open(image, 'wb') as f:
            f.truncate(size)
        subprocess.run([mkfs, '-q', image], check=True)
        args = ['-t', kind, '-o', 'loop', image]
    if subprocess.run([need('mount'), *args, where],
                      capture_output=True).returncode:
        return None
    t.undo.append(lambda: subprocess.run([need('umount'), '-l', where]))
    return where


def cpu_time(pid):
    """Of all threads of a process, ended ones too, in seconds."""
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def idle_cpu(pid, seconds, enough):
    """The least that it uses in so many seconds.  Who has work left when this
    begins, or wakes up on a busy machine, has other times to be idle in."""
    least = None
    for _ in range(20):
        before = cpu_time(pid)
        time.sleep(seconds)
        used = cpu_time(pid) - before
        least = used if least is None else min(least, used)
        if least <= enough:
            break
    return least


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """A process that listens on a unix socket."""

    def __init__(self, t, name, args, sock, env=None, wait=True):
        self.name = name
        self.sock = sock
        self.log_path = t.path(f'{name}-{t.number()}.log')
        with open(self.log_path, 'wb') as log:
            self.process = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=env, cwd=t.dir, preexec_fn=die_with_parent)
        t.daemons = [d for d in t.daemons if d.process.returncode is None]
        t.daemons.append(self)
        if wait:
            self.wait_for_socket(sock)

    def log(self):
        with open(self.log_path, errors='replace') as f:
            return f.read()

    def listens(self, path):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(path)
                # nbdkit under ASan may hang at its end if a client
                # left amid the greeting (in libc's locale lock).
                if self.name == 'nbdkit':
                    s.recv(18, socket.MSG_WAITALL)
                return True
            except OSError:
                return False

    def wait_for_socket(self, path):
        self.wait_for(lambda: self.listens(path), 'listen')

    def wait_for(self, condition, what):
        end = time.monotonic() + START_LIMIT
        while not condition():
            if self.process.poll() is not None:
                raise Refused(self.name, self.process.returncode, self.log())
            check(time.monotonic() < end,
                  f'{self.name} does not {what} after {START_LIMIT} s: '
                  f'{self.log()}')
            time.sleep(0.003)

    def stop(self):
        """Ends it in an orderly way; it must not fail over that."""
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise Failed(f'{self.name} does not end: {self.log()}')
        check(self.process.returncode in (0, -signal.SIGTERM),
              f'{self.name} ended with {self.process.returncode}: '
              f'{self.log()}')

    def kill(self):
        self.process.kill()
        self.process.wait()


class Refused(Exception):
    """A daemon said why it does not start."""

    def __init__(self, name, status, text):
        super().__init__(f'{name} exited with {status}: {text}')
        self.status = status
        self.lines = [x for x in without_asan(text.splitlines()) if x]


def connect(sock, export='', block_size=False, strict=True, structured=True,
            full_info=False):
    """An NBD connection.  Without block_size, any offset can be asked for;
    with structured replies, QEMU hangs up on a read that fails."""
    h = nbd.NBD()
    h.set_full_info(full_info)
    h.set_request_structured_replies(structured)
    h.set_request_block_size(block_size)
    h.set_export_name(export)
    if not strict:
        h.set_strict_mode(0)
    h.add_meta_context('base:allocation')
    h.connect_unix(sock)
    return h


def read_all(h, step=8 * MIB):
    size = h.get_size()
    return b''.join(bytes(h.pread(min(step, size - at), at))
                    for at in range(0, size, step))


def preload(t, name):
    """An environment in which NAME.c of this folder is preloaded."""
    lib = t.path(f'{name}.so')
    subprocess.run([need('cc'), '-shared', '-fPIC', '-O2', '-o', lib,
                    f'{os.path.dirname(os.path.abspath(__file__))}/{name}.c',
                    '-ldl'], check=True)
    return dict(os.environ, LD_PRELOAD=' '.join(
        filter(None, (os.environ.get('LD_PRELOAD'), lib))))


class Recorder:
    """qemu-storage-daemon with a recorded disk behind an NBD server."""

    def __init__(self, t, disk, journal, fmt='raw', env=None, connections=16,
                 extra=(), disk_node=None, journal_node=None, wait=True,
                 nbd=True, iothread=False, options=''):
        disk_node = disk_node or f'driver=file,filename={disk}'
        journal_node = journal_node or f'driver=file,filename={journal}'
        n = t.number()
        self.t = t
        self.sock = t.path(f'nbd{n}')
        self.qmp_sock = t.path(f'qmp{n}')
        self.qmp = None
        # QEMU 10.2 answers clients before it has come to the export.
        started = t.path(f'started{n}')
        export = 'type=nbd,id=e,node-name=d,writable=on,name=d'
        if iothread:
            export += ',iothread=io'
            extra = ['--object', 'iothread,id=io', *extra]
        args = [
            qemu('qemu-storage-daemon'),
            '--chardev', f'socket,id=q,path={self.qmp_sock},server=on,wait=off',
            '--monitor', 'chardev=q', '--pidfile', started,
            '--blockdev', f'{disk_node},node-name=f,discard=unmap',
            '--blockdev', f'driver={fmt},node-name=r,file=f,discard=unmap',
            '--blockdev', f'{journal_node},node-name=j',
            '--blockdev', 'driver=ttjournal,node-name=d,file=r,journal=j,'
                          f'discard=unmap{"," if options else ""}{options}',
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
                            f'max-connections={connections}',
            *extra, *(['--export', export] if nbd else [])]
        self.daemon = Daemon(t, 'qemu-storage-daemon', args, self.sock, env,
                             wait)
        if wait:
            self.daemon.wait_for(lambda: os.path.exists(started), 'start')

    def connect(self, **kwargs):
        return connect(self.sock, 'd', **kwargs)

    def command(self, name, /, **arguments):
        """A QMP command; its answer, or Failed."""
        if not self.qmp:
            self.qmp = Qmp(self.qmp_sock)
        return self.qmp.command(name, **arguments)

    def resize(self, size):
        """Connections must be made again: an export's size is for ever."""
        self.command('block-export-del', id='e', mode='hard')
        self.qmp.event('BLOCK_EXPORT_DELETED')
        self.command('block_resize', **{'node-name': 'd', 'size': size})
        self.command('block-export-add', **{
            'type': 'nbd', 'id': 'e', 'node-name': 'd', 'writable': True,
            'name': 'd'})

    def stop(self):
        self.daemon.stop()

    def kill(self):
        self.daemon.kill()


class Qmp:
    LIMIT = 300                   # seconds a command may take

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(self.LIMIT)
        self.socket.connect(path)
        self.file = self.socket.makefile('rwb')
        self.events = []
        self.read()               # the greeting
        self.command('qmp_capabilities')

    def read(self):
        try:
            line = self.file.readline()
        except TimeoutError:
            raise Failed(f'QMP: no answer within {self.LIMIT} s')
        check(line.endswith(b'\n'), 'qemu-storage-daemon ended')
        return json.loads(line)

    def command(self, name, /, **arguments):
        self.file.write(json.dumps({'execute': name, 'arguments': arguments})
                        .encode() + b'\n')
        self.file.flush()
        while True:
            answer = self.read()
            if 'event' in answer:
                self.events.append(answer)
            elif 'error' in answer:
                raise Failed(f"{name}: {answer['error']['desc']}")
            else:
                return answer['return']

    def has_come(self, name):
        """Has this event happened, and was not asked for yet?"""
        self.command('query-version')   # events come before its answer
        return any(e['event'] == name for e in self.events)

    def event(self, name):
        """Waits for one that has not been asked for yet; its data."""
        while True:
            for i, e in enumerate(self.events):
                if e['event'] == name:
                    return self.events.pop(i).get('data')
            answer = self.read()
            if 'event' in answer:
                self.events.append(answer)


class PowerDisks:
    """Disks that can lose power and fail, all at once: see ttjcut.c.

    files: the name of each export and its file, which is the medium.
    """

    def __init__(self, t, **files):
        self.t = t
        self.files = files
        self.daemon = None
        self.on()

    def on(self):
        """The power is back."""
        if self.daemon:
            self.daemon.kill()
        self.sock = self.t.path(f'power{self.t.number()}')
        self.control_sock = self.sock + 'c'
        # each call, with offset and length
        trace = bool(os.environ.get('TTJ_TRACE'))
        self.daemon = Daemon(
            self.t, 'nbdkit',
            [need('nbdkit'), '-f', '-t', '64', '-U', self.sock,
             *['--filter=log'] * trace, built('tests/integration/ttjcut.so'),
             f'control={self.control_sock}',
             *[f'logfile={self.sock}.calls'] * trace,
             *(f'{name}={path}' for name, path in self.files.items())],
            self.sock)
        self.control = self.new_control()
        self.tell('seed', self.t.random.randrange(1 << 60))

    def new_control(self):
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.control_sock)
        return s.makefile('rwb', 0)

    def tell(self, *words, control=None):
        """A command; returns its answer."""
        control = control or self.control
        control.write(' '.join(map(str, words)).encode() + b'\n')
        answer = control.readline().decode().strip()
        check(answer and not answer.startswith('error'),
              f'ttjcut: {words}: "{answer}" {self.daemon.log()}')
        return answer

    def node(self, name):
        """How QEMU opens it."""
        return (f'driver=nbd,server.type=unix,server.path={self.sock},'
                f'export={name}')

    def count(self):
        return json.loads(self.tell('count'))

    def cut(self, after, percent, then, limit):
        """Cuts the power before the call number @after from now (0: at once)
        or after @limit seconds, and calls then() at once; a thread, to be
        joined.  @percent: what survives, for each export.  The power stays
        off until on()."""
        def wait():
            try:
                late = threading.Timer(limit, lambda: self.tell(
                    'cut', 0, *percent, control=self.new_control()))
                late.start()
                self.tell('cut', after, *percent, control=self.new_control())
                late.cancel()
                late.join()
            finally:
                then()
        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    def stop(self):
        """An orderly end: the files are up to date."""
        self.tell('settle')
        self.daemon.kill()


class Views:
    """One nbdkit that serves a journal."""

    def __init__(self, t, journal, *options, env=None, flags=()):
        self.sock = t.path(f'views{t.number()}')
        self.name = re.sub(r'\.ttj$', '', os.path.basename(journal))
        args = [need('nbdkit'), '-f', *flags, '-U', self.sock,
                built('nbd-plugin/nbdkit-ttview-plugin.so'),
                f'journal={journal}', *options]
        self.daemon = Daemon(t, 'nbdkit', args, self.sock, env)

    def connect(self, at, **kwargs):
        """Raises nbd.Error if there is no such view."""
        return connect(self.sock, f'{self.name}@{at}', **kwargs)

    def image(self, at):
        h = self.connect(at)
        data = read_all(h)
        h.shutdown()
        return data

    def description(self, at):
        h = nbd.NBD()
        h.set_full_info(True)
        h.set_export_name(f'{self.name}@{at}')
        h.connect_unix(self.sock)
        text = h.get_export_description()
        h.shutdown()
        return text

    def seq(self, at):
        """The sequence number that @at is bound to."""
        text = self.description(at)
        found = re.search(r'seq(?:uence number|:)? ?(\d+)', text)
        check(found, f'no sequence number in "{text}"')
        return int(found.group(1))

    def stop(self):
        self.daemon.stop()


class Clock:
    """A clock for a recorder that can be set while it runs."""

    LIB = 'libfaketimeMT.so.1'

    def __init__(self, t):
        lib = None
        for base in ('/usr/lib', '/lib'):
            for at, _, files in os.walk(base, followlinks=False):
                if os.path.basename(at) == 'faketime' and self.LIB in files:
                    lib = f'{at}/{self.LIB}'
                    break
            if lib:
                break
        if not lib:
            raise Skip('libfaketime is not installed (package faketime)')
        self.path = t.path('faketime')
        self.offset = 0
        self.set(0)
        preload = ' '.join(filter(None, (os.environ.get('LD_PRELOAD'), lib)))
        self.env = dict(
            os.environ, LD_PRELOAD=preload, FAKETIME_TIMESTAMP_FILE=self.path,
            FAKETIME_NO_CACHE='1', FAKETIME_DONT_FAKE_MONOTONIC='1',
            DONT_FAKE_MONOTONIC='1', NO_FAKE_STAT='1')

    def set(self, offset):
        """Seconds from the true time, in eighths: libfaketime takes no more
        digits without rounding."""
        with open(self.path + '.new', 'w') as f:
            f.write(f'{offset:+.3f}\n')
        os.rename(self.path + '.new', self.path)
        self.offset = offset

    def now(self):
        """What a recorder reads, in ns."""
        return time.time_ns() + int(self.offset * 8) * 10**9 // 8


class Test:
    def __init__(self, main):
        self.name = os.path.basename(sys.argv[0])
        self.seed = int(os.environ.get('TTJ_SEED') or
                        random.SystemRandom().randrange(10**9))
        self.random = random.Random(self.seed)
        self.long = LONG
        self.children = []  # forked, to be killed first
        self.daemons = []
        self.undo = []
        self.count = 0
        self.keep = os.environ.get('TTJ_KEEP')
        self.dir = tempfile.mkdtemp(prefix='ttj-')
        atexit.register(self.clean_up)
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(s, lambda number, frame: sys.exit(1))
        print(f'{self.name}: TTJ_SEED={self.seed}', flush=True)
        sys.exit(self.run(main))

    def run(self, main):
        began = time.monotonic()
        status, word, text = 0, 'passed', ''
        try:
            text = main(self) or ''
            self.keep = None
        except Skip as e:
            status, word, text = 77, 'skipped', str(e)
        except (Failed, Refused) as e:
            status, word, text = 1, 'FAILED', str(e)
            traceback.print_exc()
        except Exception as e:  # a test must always end with its line
            status, word, text = 1, 'FAILED', f'{type(e).__name__}: {e}'
            traceback.print_exc()
        text = ' '.join(text.split())
        print(f'{self.name}: {word} in {time.monotonic() - began:.1f} s'
              f'{": " if text else ""}{text} (TTJ_SEED={self.seed})',
              flush=True)
        return status

    def clean_up(self):
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for d in self.daemons:
            if d.process.poll() is None:
                d.process.kill()
                d.process.wait()
        for undo in reversed(self.undo):
            undo()
        if self.keep:
            print(f'{self.name}: kept {self.dir}')
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def fork(self, run):
        """Runs run() in a process of its own, which ends with the test."""
        pid = os.fork()
        if pid:
            self.children.append(pid)
            return pid
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(s, signal.SIG_DFL)
            run()
            os._exit(0)
        except BaseException as e:
            print(f'{run.__name__}: {type(e).__name__}: {e}', flush=True)
        finally:
            os._exit(1)

    def kill_child(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.wait_child(pid)

    def wait_child(self, pid):
        self.children.remove(pid)
        return os.waitpid(pid, 0)[1]

    def number(self):
        self.count += 1
        return self.count

    def path(self, name):
        return f'{self.dir}/{name}'

    def bytes(self, length):
        return self.random.randbytes(length)

    def tool(self, *args, status=0):
        """Runs ttjournal, which must exit so; its stdout."""
        p = self.tool_raw(*args)
        check(p.returncode == status,
              f'ttjournal {" ".join(args)}: exit status {p.returncode}, not '
              f'{status}: {p.stderr or p.stdout}')
        return p.stdout

    def tool_raw(self, *args):
        return subprocess.run([built('tools/ttjournal'), *args], text=True,
                              capture_output=True, cwd=self.dir,
                              errors='replace')

    def create(self, journal, disk, segment='4M', *options):
        self.tool('create', journal, '--disk', disk, '--segment-size',
                  segment, *options)

    def log(self, journal, *options):
        """What ttjournal log --json lists."""
        return [json.loads(line) for line in
                self.tool('log', journal, '--json', *options).splitlines()]

    def verify(self, journal):
        self.tool('verify', journal)

    def qemu_io(self, *commands, image, options=()):
        args = [qemu('qemu-io'), *options]
        for c in commands:
            args += ['-c', c]
        return subprocess.run([*args, *image], text=True, capture_output=True,
                              cwd=self.dir)


class Flight:
    """Requests in flight on several NBD connections."""

    def __init__(self, handles, limit):
        self.handles = handles
        self.limit = limit
        self.requests = {}  # (handle's index, cookie) -> the caller's object
        self.done = []      # (object, errno or 0)

    def issue(self, tag, submit):
        """submit(handle) returns a cookie; waits while too many are out."""
        while len(self.requests) >= self.limit:
            self.poll()
        i = min(range(len(self.handles)),
                key=lambda k: self.handles[k].aio_in_flight())
        self.requests[i, submit(self.handles[i])] = tag

    def collect(self):
        for i, h in enumerate(self.handles):
            while any(k == i for k, _ in self.requests):
                cookie = h.aio_peek_command_completed()
                if cookie <= 0:
                    break
                tag = self.requests.pop((i, cookie))
                try:
                    h.aio_command_completed(cookie)
                    self.done.append((tag, 0))
                except nbd.Error as e:
                    self.done.append((tag, e.errnum or -1))

    def poll(self, limit=None):
        """Waits until something has completed, or for @limit seconds; False if
        nothing has."""
        before = len(self.done)
        end = None if limit is None else time.monotonic() + limit
        self.collect()
        while len(self.done) == before:
            p = select.poll()
            by_fd = {}
            for h in self.handles:
                fd = h.aio_get_fd()
                direction = h.aio_get_direction()
                by_fd[fd] = h
                p.register(
                    fd, (select.POLLIN if direction & nbd.AIO_DIRECTION_READ
                         else 0) |
                    (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE
                     else 0))
            if end is not None and time.monotonic() >= end:
                return False
            left = None if end is None else (end - time.monotonic()) * 1000
            for fd, events in p.poll(left and max(left, 1)):
                h = by_fd[fd]
                direction = h.aio_get_direction()
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) \
                        and direction & nbd.AIO_DIRECTION_READ:
                    h.aio_notify_read()
                elif events & select.POLLOUT:
                    h.aio_notify_write()
            self.collect()
        return True

    def drain(self):
        """Waits for all; errors are not expected."""
        while self.requests:
            self.poll()
        for tag, error in self.done:
            check(not error, f'{tag}: {error}')
        self.done = []
