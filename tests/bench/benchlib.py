# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks share, on top of the integration tests' module."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '../integration'))
from ttjtest import Failed, KIB, MIB, die_with_parent

RUN_LIMIT = 300  # seconds that a program may take


def run(args, **kwargs):
    """Runs a program, which must succeed; its stdout."""
    try:
        p = subprocess.run(args, text=True, capture_output=True,
                           stdin=subprocess.DEVNULL, timeout=RUN_LIMIT,
                           preexec_fn=die_with_parent, **kwargs)
    except subprocess.TimeoutExpired:
        raise Failed(f'{" ".join(args)}: not done after {RUN_LIMIT} s')
    if p.returncode:
        raise Failed(f'{" ".join(args)}: exit status {p.returncode}: '
                     f'{(p.stderr or p.stdout).strip()}')
    return p.stdout


def file_end(path):
    """Where the last frame ends: room that was made ahead reads as zeroes."""
    with open(path, 'rb') as f:
        end = f.seek(0, os.SEEK_END)
        while end > 0:
            at = (end - 1) // MIB * MIB
            f.seek(at)
            used = len(f.read(end - at).rstrip(b'\0'))
            if used:
                return at + -(-used // (4 * KIB)) * 4 * KIB
            end = at
    return 0
