"""The processes of live deployments, by what the kernel says of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""


def server(folder: Path) -> int:
    """The web process of the deployment in `folder`."""
    wanted = f"GRID_DIR={folder}\0".encode()
    (found,) = [pid for pid in _all() if b"\0run" in _read(pid, "cmdline") and wanted in _read(pid, "environ")]
    return found


def group(leader: int) -> set[int]:
    """A web process and all that computes for it: forkserver and workers, as long as they run."""
    found = set()
    for pid in _all():
        try:
            mine = os.getsid(pid) == leader
        except ProcessLookupError:
            continue
        if mine and running(pid):
            found.add(pid)
    return found


def running(pid: int) -> bool:
    """Whether it still runs: a process that ended and waits to be collected has no command line."""
    return bool(_read(pid, "cmdline"))


def children(pid: int) -> set[int]:
    """The processes that `pid` started and that run."""
    return {child for child in _all() if _parent(child) == pid and running(child)}


def descendants(pid: int) -> set[int]:
    """Everything that `pid` started, and that they started, as long as it runs."""
    found = set[int]()
    todo = {pid}
    while todo:
        todo = {child for child in _all() if _parent(child) in todo and running(child)} - found
        found |= todo
    return found


def naming(text: str) -> set[int]:
    """Those whose command line holds the text."""
    return {pid for pid in _all() if text.encode() in command(pid)}


def command(pid: int) -> bytes:
    """Its command line, or what it calls itself."""
    return _read(pid, "cmdline")


def forkserver(leader: int) -> int:
    """The process that the workers of a web process are forked from."""
    (found,) = [pid for pid in group(leader) if _parent(pid) == leader]
    return found


def workers(leader: int) -> set[int]:
    """The workers of a web process."""
    root = forkserver(leader)
    return {pid for pid in group(leader) if _parent(pid) == root}


def memory(leader: int) -> int:
    """Bytes of a web process and all that computes for it; pages that they share count once."""
    return sum(_proportional(pid) for pid in group(leader))


def _proportional(pid: int) -> int:
    """Bytes of a process, each page divided by how many share it; 0 when it has gone."""
    lines = _read(pid, "smaps_rollup").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), 0)


def _parent(pid: int) -> int:
    # The name, in brackets, may hold anything.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def wait_until(fact: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that another process does. Fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"Not within {seconds} s: {what}"
        time.sleep(0.02)
