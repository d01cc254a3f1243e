"""A disk that forgets, at a power cut, whatever nobody asked it to keep: contents without fsync, names without the
fsync of their folder. It is a model of the strictest file system that POSIX allows, beside the real one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any


class Disk:
    """What is kept of a folder, for the process that makes it; what is there at first is kept.

    SQLite synchronises by itself, unseen from here: `committed` says when it has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[Path, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        for place, _, files in os.walk(folder):
            self._keep_names(Path(place))
            for name in files:
                self._keep(Path(place) / name)
        self._fsync = os.fsync
        os.fsync = self._synchronised

    def _synchronised(self, file: Any) -> None:
        self._fsync(file)
        descriptor = file if isinstance(file, int) else file.fileno()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._keep_names(path)
        else:
            self._keep(path)

    def committed(self, database: Path) -> None:
        """SQLite has put a transaction on the disk: its file and its log, with their names."""
        for path in (database, database.with_name(f"{database.name}-wal")):
            if path.exists():
                self._keep(path)
                self._names[path.parent][path.name] = path.stat().st_ino

    def _keep_names(self, folder: Path) -> None:
        self._names[folder] = {entry.name: entry.inode() for entry in os.scandir(folder)}

    def _keep(self, path: Path) -> None:
        # Never closed: to close any descriptor of a file lets go of the locks that SQLite holds on it.
        descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(descriptor)
        self._contents[found.st_ino] = os.pread(descriptor, found.st_size, 0)

    def cut(self, target: Path) -> None:
        """Write what is left of the folder after a power cut to another one."""
        self._write(self.folder, target)

    def _write(self, folder: Path, target: Path) -> None:
        target.mkdir()
        for name, inode in self._names[folder].items():
            if folder / name in self._names:
                self._write(folder / name, target / name)
            elif not name.endswith("-shm"):  # memory of processes, that is no more
                (target / name).write_bytes(self._contents.get(inode, b""))
