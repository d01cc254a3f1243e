"""What processes and folders take of the machine. Everything here reads files of the kernel: not on the event loop."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process: bytes in whole mebibytes, and milliseconds of processors in hundreds. Exact ones would tell of
    private values."""

    rss: int | None
    pss: int | None
    """Its share: a page that several processes map counts by parts. None where the kernel does not tell."""
    cpu: int | None


ELSEWHERE = Usage(None, None, None)
"""Of a process on another machine nothing is known here."""


def usage_of(pid: int) -> Usage | None:
    """None when the process has ended."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            cpu = round((times.user + times.system) * 10) * 100
            try:
                memory = process.memory_full_info()
            except psutil.AccessDenied:
                return Usage(_coarse(process.memory_info().rss), None, cpu)
            # Only Linux tells the share.
            return Usage(_coarse(memory.rss), _coarse(memory.pss) if hasattr(memory, "pss") else None, cpu)
    except psutil.Error:
        return None


def _coarse(nbytes: int) -> int:
    return -(-nbytes // MIB) * MIB


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes in all, and bytes that are free."""

    total: int
    free: int


def memory() -> Room:
    """Of the machine; free is what could be had without swapping."""
    found = psutil.virtual_memory()
    return Room(found.total, found.available)


def disk(folder: Path) -> Room:
    """Of the file system that holds the folder, or will."""
    while not folder.exists():
        folder = folder.parent
    found = shutil.disk_usage(folder)
    return Room(found.total, found.free)


def size_of(folder: Path) -> int:
    """Bytes of the files in it. What vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total
