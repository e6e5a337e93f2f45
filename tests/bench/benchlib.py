# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks share, on top of the integration tests' module."""
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '../integration'))
from ttjtest import Failed, KIB, MIB, connect, die_with_parent, nbd

RUN_LIMIT = 300  # seconds that a program may take
RESAMPLES = 2000
ZEROES = bytes(MIB)


def run(args, limit=RUN_LIMIT, **kwargs):
    """Runs a program, which must succeed; its stdout."""
    try:
        p = subprocess.run(args, text=True, capture_output=True,
                           stdin=subprocess.DEVNULL, timeout=limit,
                           preexec_fn=die_with_parent, **kwargs)
    except subprocess.TimeoutExpired:
        raise Failed(f'{" ".join(args)}: not done after {limit} s')
    if p.returncode:
        raise Failed(f'{" ".join(args)}: exit status {p.returncode}: '
                     f'{(p.stderr or p.stdout).strip()}')
    return p.stdout


def cpu_seconds(pid):
    """That a process has used so far."""
    with open(f'/proc/{pid}/stat', encoding='utf-8') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def serves(sock, export):
    """Can a client have it?"""
    try:
        connect(sock, export).shutdown()
    except nbd.Error:
        return False
    return True


def file_end(path):
    """Where the last frame ends: room that was made ahead reads as zeroes."""
    with open(path, 'rb') as f:
        end = f.seek(0, os.SEEK_END)
        while end > 0:
            at = (end - 1) // MIB * MIB
            f.seek(at)
            data = f.read(end - at)
            if data != ZEROES[:len(data)]:
                used = len(data.rstrip(b'\0'))
                end = at + -(-used // (4 * KIB)) * 4 * KIB
                break
            end = at
        # Room that is only allocated counts as written to SEEK_DATA for as long
        # as the page cache has it, and the driver would write no zeroes there.
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return end


def write_zeroes(path, length):
    """Makes a file longer by blocks that are written, not only allocated."""
    with open(path, 'ab', buffering=0) as f:
        for at in range(0, length, MIB):
            f.write(ZEROES[:min(MIB, length - at)])
        os.fsync(f.fileno())


def interval(values, rng):
    """95 % interval of the median, by bootstrap."""
    n = len(values)
    if n < 2:
        return None
    medians = sorted(statistics.median(rng.choices(values, k=n))
                     for _ in range(RESAMPLES))
    return (medians[int(0.025 * RESAMPLES)],
            medians[int(0.975 * RESAMPLES) - 1])


def with_interval(ratio):
    if not ratio:
        return '-'
    text = f'{ratio["median"]:.2f}'
    if ratio['interval']:
        low, high = ratio['interval']
        text += f' [{low:.2f} {high:.2f}]'
    return text
