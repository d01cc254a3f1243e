"""Runs the inputs in a process of its own, watches it, and says what was found.

A finding is: an exception that is no GridError; an answer "internal"; more than `MOST_SECONDS` of processor time or
`MOST_BYTES` of memory for one input; a process that died, or that does not come to the next input.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.attacks.fuzz.limits import HANGS

ROOT = Path(__file__).parents[3]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="repeat this input alone, and print it")
    given = parser.parse_args()
    first, last = (0, given.inputs) if given.only is None else (given.only, given.only + 1)
    shown = [] if given.only is None else ["show"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        with mmap.mmap(file.fileno(), 8) as place:
            arguments = [file.name, str(given.seed), str(first), str(last), *shown]
            child = subprocess.Popen([sys.executable, "-m", "tests.attacks.fuzz.run", *arguments], cwd=ROOT)
            return _watch(child, place)


def _watch(child: subprocess.Popen[bytes], place: mmap.mmap) -> int:
    """Until it ends. Returns 0 where nothing was found."""
    at, since = -1, 0.0
    while child.poll() is None:
        time.sleep(0.1)
        now, spent = struct.unpack("<q", place[:8])[0], _processor_time(child.pid)
        if now != at:
            at, since = now, spent
        elif spent - since > HANGS:
            child.send_signal(signal.SIGKILL)
            print(f"Input {at} does not end: {spent - since:.0f} s of processor time.")
    if child.returncode < 0:
        print(f"The process died of signal {-child.returncode} at input {struct.unpack('<q', place[:8])[0]}.")
    return 0 if child.returncode == 0 else 1


def _processor_time(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
