"""Storms: people work with a node while its processes are killed and its sockets cut; then the books are checked.

    python -m tests.faults.storm --runs 500 [--first SEED] [--place postgres]

A run is one seed: an owner and a scientist, each in a thread and each with the SDK, do what they drew from it, while
another thread does harm. What the node acknowledged must be there exactly once, what it refused must not be there, and
of what a lost connection left open (`ConnectionLostError`) all or nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from gridclient import settings
from tests.faults.books import PATIENCE, Books, check
from tests.faults.ground import Ground
from tests.faults.neighbours import PLACES, Place
from tests.faults.people import Owner, Scientist


class Harm:
    """What happens to the node meanwhile. `kinds`: how often each is drawn."""

    def __init__(self, ground: Ground, random: Random, more: dict[str, Callable[[], Any]]) -> None:
        self.ground, self.random = ground, random
        self.done: Counter[str] = Counter()
        self._all: dict[str, Callable[[], Any]] = {
            "cut": lambda: ground.line.cut_after(0),
            "cut after bytes": lambda: ground.line.cut_after(int(10 ** random.uniform(1, 6.3))),
            "workers": ground.kill_workers,
            "forkserver": ground.kill_forkserver,
            "web": ground.kill,
            **more,
        }
        rare = ["web", *more]
        # One hard thing a run at most: a start takes as long as everything else together.
        self._hard = random.choice(rare) if random.random() < (0.8 if more else 0.35) else ""

    def run(self, over: threading.Event) -> None:
        hard_at, blows = self.random.randrange(3), self.random.randrange(3, 9)
        for number in range(blows):
            if over.wait(self.random.expovariate(8)):
                return
            kind = self.random.choice(["cut", "cut after bytes", "cut after bytes", "workers", "forkserver"])
            if self._hard and number == hard_at:
                kind = self._hard
            elif kind == "forkserver" and self.random.random() < 0.7:
                continue
            self._all[kind]()
            self.done[kind] += 1
            if kind != self._hard and self.random.random() < 0.4:
                over.wait(0.5)


def run(place: Place, seed: int) -> Counter[str]:
    """One run, and the checks after it. Returns what was done and what harm there was."""
    random, ground = Random(seed), place.ground
    books = Books(seed)
    harm = Harm(ground, Random(random.random()), place.harm)
    people = [kind(ground, books, Random(random.random())) for kind in (Owner, Scientist)]
    over = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    for person in people:
        person.enter()
    workers = [threading.Thread(target=guarded, args=(person.work,)) for person in people]
    storm = threading.Thread(target=guarded, args=(lambda: harm.run(over),))
    for thread in (*workers, storm):
        thread.start()
    for thread in workers:
        thread.join(PATIENCE)
    if any(thread.is_alive() for thread in workers):
        errors.append(AssertionError(f"Somebody waits for ever:\n{_stacks(workers)}"))
        settings.timeout = 1.0
    over.set()
    storm.join()
    ground.line.mend()
    for person in people:
        guarded(person.leave)
    if errors:
        raise ExceptionGroup(f"seed {seed}: {dict(harm.done)}", errors)
    check(ground, books)
    place.check(books)
    return harm.done + Counter(f"{kind} {outcome}" for (kind, _), outcome in books.told.items())


def _stacks(threads: list[threading.Thread]) -> str:
    frames = sys._current_frames()
    return "\n".join("".join(traceback.format_stack(frames[each.ident])) for each in threads if each.ident in frames)


def calm() -> None:
    """What a storm does to the client's log and progress bars is expected."""
    logging.getLogger("gridclient").setLevel(logging.ERROR)
    settings.progress = False


def main() -> None:
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--place", choices=PLACES, default="alone", help="what is killed beside the node")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    options = parser.parse_args()
    calm()
    total: Counter[str] = Counter()
    began, failed, runs = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory(prefix="gridsite-storm-") as folder, PLACES[options.place](Path(folder)) as place:
        for seed in range(options.first, options.first + options.runs):
            if time.monotonic() - began > options.minutes * 60:
                break
            runs += 1
            try:
                total += run(place, seed)
            except Exception as error:
                failed.append(seed)
                for each in getattr(error, "exceptions", [error]):
                    print("".join(traceback.format_exception(each)[-8:]), file=sys.stderr)
                print(error, file=sys.stderr)
            print(f"\rrun {runs}, failed: {failed}", end="", file=sys.stderr, flush=True)
    print(f"\n{runs} runs in {time.monotonic() - began:.0f} s; failed: {failed or 'none'}")
    for name, number in sorted(total.items()):
        print(f"{number:7} {name}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
