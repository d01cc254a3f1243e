"""Locks between the processes of one deployment, as files in the storage folder that they share.

The kernel lets go of them when a process ends, however it ends: no lock is ever stale, and none hangs on a
connection that may break.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from django.conf import settings

LOOK_AGAIN = 1.0
"""Seconds after which a process looks whether the one that holds a turn has ended."""


def _open(name: str) -> int:
    path = Path(settings.GRID_STORAGE_DIR) / "locks" / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _locked(descriptor: int) -> bool:
    """Lock without waiting; whether that worked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process is in here, and keep them out."""
    descriptor = _open(name)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def turn(name: str) -> AsyncIterator[None]:
    """Be the one process of the deployment that does `name`: the others wait in here until it ends."""
    descriptor = _open(name)
    try:
        # The kernel tells nobody when a lock is free, short of a thread that waits for it.
        while True:
            if _locked(descriptor):
                break
            await asyncio.sleep(LOOK_AGAIN)
        yield
    finally:
        os.close(descriptor)


_mine: set[str] = set()
"""Places that this process holds: to look at them again would cost calls of the kernel for nothing."""


@contextmanager
def place(name: str, places: int) -> Iterator[bool]:
    """Take one of so many places that the deployment has under `name`. False where all are taken."""
    for own in (f"{name}-{number}" for number in range(places)):
        if own in _mine:
            continue
        descriptor = _open(own)
        if _locked(descriptor):
            break
        os.close(descriptor)
    else:
        yield False
        return
    _mine.add(own)
    try:
        yield True
    finally:
        _mine.discard(own)
        os.close(descriptor)


class OwnFolder:
    """A folder that belongs to this process: `remove_left` of any process leaves it alone while this one lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        while True:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # Between the two calls, a clean-up may have taken it for somebody's who had ended.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), path.stat()):
                    return
            os.close(self._descriptor)

    def remove(self) -> None:
        """Remove it with all that is in it, or what is left of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def remove_left(folder: Path) -> None:
    """Remove a folder whose process has ended."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _locked(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
