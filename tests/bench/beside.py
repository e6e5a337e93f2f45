# SPDX-License-Identifier: LGPL-2.1-or-later
"""Views beside a recorder: are all of them right, and what do they cost it?

A disk is written by operations that are also applied to a buffer, whose hash is
taken at as many moments as there are to be views.  Then it is written at full
speed by fio, in rounds: without a view (and without a server), with all of them
open in one server and idle, and with all open while they are read at a certain
pace.  In the end, while fio writes on, all are opened, stay open, and are read
to their ends, as fast as that goes, and hashed.
"""
import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time

from benchlib import cpu_seconds, interval, run, with_interval
from ttjmany import Past, View, allow_many_files, read_whole
from ttjtest import (Failed, KIB, MIB, Recorder, built, connect,
                     die_with_parent, need)

STATES = ('none', 'idle', 'paced')
CHANGES = 20                  # of the disk, between two moments
LARGEST = 64 * KIB
READERS = 4                   # threads
FIO_INTERRUPTED = 128         # its exit status, with all figures given
LIMIT = 600                   # seconds that fio may take to end


class Load:
    """fio, which writes 4 KiB at random, 32 in flight, as fast as it can."""

    def __init__(self, bench, sock, size, seconds):
        self.output = bench.path(f'load{bench.number()}')
        self.log = self.output + '.log'
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(
                [need('fio'), '--name=load', '--ioengine=nbd', '--thread',
                 f'--uri=nbd+unix:///d?socket={sock}', '--rw=randwrite',
                 '--bs=4k', '--iodepth=32', '--norandommap', f'--size={size}',
                 '--time_based', f'--runtime={round(seconds * 1000)}ms',
                 f'--randseed={bench.random.randrange(2**31)}',
                 '--output-format=json', f'--output={self.output}'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=bench.dir, preexec_fn=die_with_parent)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def rate(self):
        """Writes a second, when it has ended."""
        try:
            status = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed(f'fio: not done after {LIMIT} s')
        with open(self.log, encoding='utf-8', errors='replace') as f:
            said = f.read().strip()
        if status not in (0, FIO_INTERRUPTED):
            raise Failed(f'fio: exit status {status}: {said}')
        with open(self.output, encoding='utf-8') as f:
            text = f.read()
        # the nbd engine greets in the same file
        job = json.JSONDecoder().raw_decode(text, text.index('{'))[0]['jobs'][0]
        if job['error'] or not job['write']['total_ios']:
            raise Failed(f'fio: error {job["error"]}, '
                         f'{job["write"]["total_ios"]} writes: {said}')
        return job['write']['total_ios'] / (job['write']['runtime'] / 1000)


class Disk:
    """One that is recorded, and its moments."""

    def __init__(self, bench, count):
        self.bench = bench
        self.size = bench.args.recorded
        disk, self.journal = bench.path('disk'), bench.path('d.ttj')
        original = bench.random.randbytes(self.size)
        with open(disk, 'wb') as f:
            f.write(original)
        run([built('tools/ttjournal'), 'create', self.journal, '--disk', disk])
        node = 'driver=file,cache.direct=on,aio=io_uring,filename='
        self.recorder = Recorder(
            bench, disk, self.journal, disk_node=node + disk,
            journal_node=node + self.journal)
        handles = [self.recorder.connect() for _ in range(2)]
        past = Past(bench.random, handles, original, limit=32)
        for _ in range(count):
            past.change(CHANGES, LARGEST)
            past.moment()
        handles[0].flush()
        for h in handles:
            h.shutdown()
        self.moments = past.moments

    def load(self, seconds):
        return Load(self.bench, self.recorder.sock, self.size, seconds)

    def stop(self):
        self.recorder.stop()


class Server:
    """One that serves all views, with every connection held open by a process
    of its own: so fio, the recorder and the views each have theirs."""

    def __init__(self, bench, disk):
        # a thread of a connection's own is enough, and 1000 times 16 are many
        self.daemon = bench.server(
            '-t', '1', built('nbd-plugin/nbdkit-ttview-plugin.so'),
            f'journal={disk.journal}')
        self.tell, told = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.tell.close()
            child(self.daemon.sock, disk.moments, bench.args.pace, told)
        told.close()
        self.opened = self.answer()

    def answer(self):
        try:
            kind, value = self.tell.recv()
        except EOFError:
            raise Failed('the reader of the views has died')
        if kind == 'failed':
            raise Failed(value)
        return value

    def ask(self, what):
        self.tell.send(what)

    def cpu(self):
        return cpu_seconds(self.daemon.process.pid), cpu_seconds(self.pid)

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.tell.send('end')
        os.waitpid(self.pid, 0)
        self.tell.close()
        self.daemon.stop()


# ---- in the reader's process -------------------------------------------------

def child(sock, moments, pace, told):
    """Opens all views, and does what it is told."""
    try:
        die_with_parent()
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(s, signal.SIG_DFL)
        began = time.monotonic()
        views = open_all(sock, moments)
        told.send(('done', time.monotonic() - began))
        obey(views, pace, told)
    except EOFError:
        pass                      # the bench has ended
    except BaseException as e:
        with contextlib.suppress(OSError):
            told.send(('failed', f'{type(e).__name__}: {e}'))
    finally:
        os._exit(0)


def open_all(sock, moments):
    """By time, and by turns by sequence number.  What the number is says the
    server; what is there then is known from what was written."""
    views = []
    for i, m in enumerate(moments):
        name = f'd@{m.time}'
        if i % 2:
            name = f'd@seq:{sequence_number(sock, name)}'
        views.append(View(connect(sock, name), name, m.sha256))
    return views


def sequence_number(sock, name):
    h = connect(sock, name, full_info=True)
    text = h.get_export_description()
    h.shutdown()
    found = re.search(r'sequence number (\d+)', text)
    if not found:
        raise Failed(f'{name}: no sequence number in "{text}"')
    return int(found.group(1))


def obey(views, pace, told):
    while True:
        what = told.recv()
        if what == 'end':
            return
        if what == 'pace':
            told.send(('done', read_paced(views, pace, told)))
        elif what == 'all':
            before = [v.whole for v in views]
            began = time.monotonic()
            read_whole(views, READERS)
            took = time.monotonic() - began
            if any(v.whole != n + 1 for v, n in zip(views, before)):
                raise Failed('a view was not read')
            told.send(('done', took))


def read_paced(views, pace, told):
    """So many bytes a second, until something is asked; a piece of each view in
    turns.  How many views were whole, and bytes."""
    before = sum(v.whole for v in views)
    read, began = 0, time.monotonic()
    while not told.poll(max(0, began + read / pace - time.monotonic())):
        read += views[0].read()
        views.append(views.pop(0))
    return sum(v.whole for v in views) - before, read


# ---- what is measured --------------------------------------------------------

def measure(disk, server, state, seconds):
    """Writes a second, and what the views took."""
    if state == 'paced':
        server.ask('pace')
    before = server.cpu() if server else (0, 0)
    began = time.monotonic()
    ret = {'rate': disk.load(seconds).rate()}
    took = time.monotonic() - began
    after = server.cpu() if server else (0, 0)
    ret['server_cpu'], ret['reader_cpu'] = (
        (b - a) / took for a, b in zip(before, after))
    if server:
        ret['opened'] = server.opened
    if state == 'paced':
        server.ask('stop')
        ret['whole'], ret['read'] = server.answer()
    return ret


def one_round(bench, disk, results):
    """Each state once, with no server for the first."""
    open_states = bench.random.sample(STATES[1:], 2)

    def without():
        results['none'].append(measure(disk, None, 'none', bench.args.seconds))

    without_first = bench.random.random() < 0.5
    if without_first:
        without()
    server = Server(bench, disk)
    for state in open_states:
        results[state].append(measure(disk, server, state, bench.args.seconds))
    server.stop()
    if not without_first:
        without()


def all_right(bench, disk):
    """Every view, opened, held open and read while the disk is written."""
    load = disk.load(24 * 3600)
    server = Server(bench, disk)
    server.ask('all')
    took = server.answer()
    if load.process.poll() is not None:
        raise Failed('fio has ended before the views were read')
    load.interrupt()
    ret = {'opened': server.opened, 'took': took, 'rate': load.rate()}
    server.stop()
    return ret


def beside(bench, say, rates, hashes):
    count = max(bench.args.views)
    allow_many_files()
    say(f'the recorded disk, and {count} moments of it')
    disk = Disk(bench, count)
    disk.load(bench.args.seconds).rate()     # so that all of it is captured
    ret = {'count': count}
    if rates:
        ret['states'] = results = {state: [] for state in STATES}
        for number in range(bench.args.rounds):
            one_round(bench, disk, results)
            say(f'round {number + 1} of {bench.args.rounds}')
        report_rates(bench, count, results)
    if hashes:
        say(f'all {count} views')
        ret['all'] = all_right(bench, disk)
        report_hashes(bench, count, ret['all'])
    disk.stop()
    return ret


def report_rates(bench, count, results):
    rng = random.Random(bench.args.seed)
    pace = bench.args.pace / MIB
    names = {'none': 'no view, no server', 'idle': f'{count} open, idle',
             'paced': f'{count} open, read at {pace:g} MiB/s'}
    print(f'\n4 KiB random writes, 32 in flight, over NBD; {bench.args.rounds} '
          f'rounds of {bench.args.seconds:g} s')
    for state, runs in results.items():
        rates = [r['rate'] for r in runs]
        line = (f'  {names[state]:32} {statistics.median(rates):8.0f} a second '
                f'[{min(rates):.0f} {max(rates):.0f}]')
        if state != 'none':
            ratios = [r['rate'] / n['rate']
                      for r, n in zip(runs, results['none'])]
            ratio = {'median': statistics.median(ratios),
                     'interval': interval(ratios, rng)}
            line += f'  to none {with_interval(ratio)} (wanted: 0.9)'
        print(line)
    for state in STATES[1:]:
        runs = results[state]
        print(f'  {names[state]}: of a processor, the server '
              f'{percent(runs, "server_cpu")}, its client '
              f'{percent(runs, "reader_cpu")}')
    read = sum(r['read'] for r in results['paced'])
    opened = [r['opened'] for r in results['idle']]
    print(f'  opened in {statistics.median(opened):.2f} s; at that pace '
          f'{read // MIB} MiB were read, {results["paced"][-1]["whole"]} views '
          'to their ends in the last round')
    sys.stdout.flush()


def report_hashes(bench, count, every):
    read = count * bench.args.recorded / MIB
    print(f'\n{count} views beside the recorder at full speed: all opened in '
          f'{every["opened"]:.1f} s, and all read to\n  their ends and right in '
          f'{every["took"]:.1f} s, {read / every["took"]:.0f} MiB/s; '
          f'meanwhile the recorder\n  at {every["rate"]:.0f} writes a second')
    sys.stdout.flush()


def percent(runs, key):
    return f'{100 * statistics.median(r[key] for r in runs):.1f} %'
