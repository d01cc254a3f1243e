"""What one process of a deployment holds, the others leave alone, until it ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from apps.core import locks

# The other process: it takes something, says so, and holds it until it is killed.
OTHER = """
import asyncio, sys, time
from pathlib import Path
from django.conf import settings
storage = Path(sys.argv[1])
settings.configure(GRID_STORAGE_DIR=storage)
from apps.core import locks
async def main():
    with locks.place("seat", 1), locks.alone("door"):
        own = locks.OwnFolder(storage / "theirs")
        (own.path / "file").touch()
        async with locks.turn("work"):
            print("ready", flush=True)
            time.sleep(60)
asyncio.run(main())
"""


@contextmanager
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    storage = Path(settings.GRID_STORAGE_DIR)
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(storage)], stdout=subprocess.PIPE, cwd=settings.BASE_DIR, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"ready\n"
            yield process
    finally:
        process.kill()
        process.wait()


def test_what_a_living_process_holds_is_free_when_it_is_killed() -> None:
    theirs = Path(settings.GRID_STORAGE_DIR) / "theirs"

    async def work(patience: float) -> bool:
        try:
            async with asyncio.timeout(patience), locks.turn("work"):
                return True
        except TimeoutError:
            return False

    with other_process() as process:
        locks.remove_left(theirs)
        with locks.place("seat", 1) as free:
            assert not free
        with locks.place("seat", 2) as free:
            assert free
        assert not asyncio.run(work(0.2)) and (theirs / "file").exists()
        process.kill()
        process.wait()
    with locks.alone("door"), locks.place("seat", 1) as free:
        assert free
    assert asyncio.run(work(5))
    locks.remove_left(theirs)
    locks.remove_left(theirs)
    assert not theirs.exists()


def test_places_of_one_process_are_counted_and_come_back() -> None:
    with ExitStack() as held:
        assert [held.enter_context(locks.place("seat", 2)) for _ in range(3)] == [True, True, False]
    with locks.place("seat", 1) as free:
        assert free


def test_own_folder_is_there_although_a_clean_up_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(settings.GRID_STORAGE_DIR) / "sessions" / "mine"
    flock, times = locks.fcntl.flock, [0]

    def late(descriptor: int, operation: int) -> None:
        times[0] += 1
        if times[0] == 1:
            path.rmdir()  # it was not locked yet
        flock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    own = locks.OwnFolder(path)
    (path / "file").touch()
    locks.remove_left(path)
    assert (path / "file").exists()
    own.remove()
    assert not path.exists()
