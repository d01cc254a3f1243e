"""A release that charges people each by itself: what it costs everyone, the record, and the draw by whom it names.

In one process, rows and codes at hand; there are as many records to add up as there are on average, and somebody may
have nothing left. The time is of this process's own; the disk's is printed beside it. The most memory is
of a process that does it once, its rows included.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from apps.compute import kernel, vector
from apps.compute.costs import costs, factor
from apps.compute.mechanism import Mechanism, mechanism
from apps.compute.messages import Account
from apps.compute.vector import Contribution, Identifiers

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {1_000_000: 1.0, 10_000_000: 3.0}
"""Seconds, by people."""
MEMORY = 2**30
RECORDS = vector.EVERY // 2
LIMIT, WORST, ORDER = 2**39, 2**36, 12_595
ADDITIONS = 10_000_000
USUAL = 0.5
"""Seconds that so many additions of a bare loop take on a usual machine: one that is slower may take longer."""


def run() -> bool:
    """Print the lines; whether every target was met."""
    begin = time.process_time()
    for _ in range(ADDITIONS):
        pass
    slower = max(1.0, (time.process_time() - begin) / USUAL)
    met = True
    for people, seconds in TARGETS.items():
        command = [sys.executable, "-m", "tests.bench.individual", str(people)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        taken, disk, memory = (float(figure) for figure in done.stdout.split())
        good = taken <= seconds * slower and memory <= MEMORY
        met &= good
        print(
            f"  {f'a release that charges {people:,} people each by itself':<58}{taken:8.3f} s  "
            f"{memory / 2**20:,.0f} MiB at most; disk {disk:.3f} s; a loop here is {slower:.1f} x slower than usual"
            f"{'' if good else '   missed'}",
            flush=True,
        )
    return met


def main(people: int) -> None:
    """Release once; print the seconds of this process, those that it waited for the disk, and the most memory."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "records").mkdir()
        chance = np.random.default_rng(2)
        rows = chance.uniform(-1, 1, size=(people, 1))
        codes = chance.integers(0, people, size=people)
        how = mechanism(clip=1.0, sigma=4.22, size=1, entities=people)
        log = _filled(folder, people)
        # The most memory from here on: to number people whom the pot doesn't know takes more, once.
        Path("/proc/self/clear_refs").write_text("5")
        begin, wall = time.process_time(), time.perf_counter()
        _release(folder, log, rows, codes, how)
        taken, waited = time.process_time() - begin, time.perf_counter() - wall
    # Not what getrusage says: that remembers the process before it was this program.
    (most,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(taken, max(0.0, waited - taken), int(most.split()[1]) * 1024)


def _filled(folder: Path, people: int) -> list[str]:
    """A pot that all of them are known to."""
    amount = np.full(people, 2**34, dtype=np.uint64)
    log: list[str] = []
    for _ in range(RECORDS):
        part = Contribution("births", 1, amount, lambda: _identifiers(people))
        digest, _ = vector.seal(folder / "sealed", _account(folder, log, tested=False), [part])
        (folder / "sealed").rename(folder / "records" / digest)
        log.append(digest)
    return log


def _identifiers(people: int) -> Identifiers:
    """Made up, in ascending order."""
    numbers = np.zeros((people, 4), dtype=">u8")
    numbers[:, 0] = np.arange(1, people + 1, dtype=np.uint64) << np.uint64(32)
    numbers[:, 3] = int.from_bytes(hashlib.sha256(b"births").digest()[:7], "big") + 1
    return numbers.view("S32").reshape(-1)


def _account(folder: Path, log: list[str], *, tested: bool) -> Account:
    return Account(str(folder), list(log), 0, LIMIT, WORST, ORDER, tested)


def _release(folder: Path, log: list[str], rows: np.ndarray, codes: np.ndarray, how: Mechanism) -> None:
    q = kernel.quantised(rows, codes, None, how)
    cost = costs(kernel.squared_norms(q), factor(ORDER, how.scale), WORST)
    del q
    part = Contribution("births", 1, cost, lambda: _identifiers(len(rows)))
    path = folder / "sealed"
    digest, _ = vector.seal(path, _account(folder, log, tested=True), [part])
    named = folder / "records" / digest
    del cost, part
    path.rename(named)
    with named.open("rb") as file:
        os.fsync(file.fileno())
    active = vector.opened(named).active("births", 1, how.entities)
    kernel.release(rows, codes, None, how, active)


if __name__ == "__main__":
    main(int(sys.argv[1]))
