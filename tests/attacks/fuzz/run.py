"""The process that takes the inputs. `__main__` starts and watches it."""

from __future__ import annotations

from tests import conftest  # isort: skip  (the environment of all tests, before anything reads a setting)

import mmap
import resource
import struct
import sys
import time
import traceback
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import django

from gridclient.wire.errors import GridError
from tests.attacks.fuzz.limits import MORE_MEMORY, MOST_BYTES, MOST_SECONDS, SAMPLE
from tests.attacks.fuzz.mutate import Mutator


@dataclass
class Summary:
    """What happened, by target."""

    inputs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    longest: dict[str, tuple[float, int]] = field(default_factory=dict)
    most_memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    findings: dict[str, list[int]] = field(default_factory=dict)

    def found(self, what: str, number: int) -> None:
        if what not in self.findings:
            print(f"input {number}: {what}", flush=True)
        self.findings.setdefault(what, []).append(number)

    def print(self) -> None:
        print(f"{'':16}{'inputs':>9}{'refused':>9}{'cpu s':>8}{'longest ms':>12}{'most KiB':>10}")
        for name, count in self.inputs.items():
            memory = self.most_memory.get(name, (0, 0))[0] // 1024
            print(
                f"{name:16}{count:9}{self.refused[name]:9}{self.seconds[name]:8.1f}"
                f"{1e3 * self.longest[name][0]:12.1f}{memory:10}"
            )
        print(f"{self.inputs.total()} inputs, {len(self.findings)} findings")
        for what, numbers in self.findings.items():
            print(f"  {len(numbers)} times, first at input {numbers[0]}: {what}")


def run(place: mmap.mmap, seed: int, first: int, last: int, *, show: bool) -> Summary:
    from tests.attacks.fuzz.served import Served
    from tests.attacks.fuzz.targets import TARGETS

    summary = Summary()
    with Served(summary.found) as served:
        targets = [*TARGETS, *served.targets]
        chances = [target for target in targets for _ in range(target.share)]
        _limit_memory()
        for number in range(first, last):
            place[:8] = struct.pack("<q", number)
            mutator = Mutator(seed << 40 | number)
            target = mutator.one_of(chances)
            given = target.make(mutator)
            if show:
                print(target.name, repr(given)[:20_000])
            served.number = number
            measured = number % SAMPLE == 0
            if measured:
                tracemalloc.start()
            begin = time.process_time()
            try:
                target.take(given)
            except GridError:
                summary.refused[target.name] += 1
            except Exception as error:
                summary.found(f"{target.name}: {_where(error)}", number)
                if show:
                    traceback.print_exc()
            spent = time.process_time() - begin
            if measured:
                memory = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                summary.most_memory[target.name] = max(summary.most_memory.get(target.name, (0, 0)), (memory, number))
                if memory > MOST_BYTES:
                    summary.found(f"{target.name}: more than {MOST_BYTES} bytes", number)
            elif spent > MOST_SECONDS:
                summary.found(f"{target.name}: longer than {MOST_SECONDS} s", number)
            else:
                summary.longest[target.name] = max(summary.longest.get(target.name, (0.0, 0)), (spent, number))
            summary.inputs[target.name] += 1
            summary.seconds[target.name] += spent
    return summary


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(file: str, seed: str, first: str, last: str, show: str = "") -> int:
    assert conftest.pytest_plugins
    django.setup()
    with open(file, "r+b") as shared, mmap.mmap(shared.fileno(), 8) as place:
        summary = run(place, int(seed), int(first), int(last), show=bool(show))
    summary.print()
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
