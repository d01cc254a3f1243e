"""One database for one set of keys: a copy that is started beside the original charges nothing.

Every process that charges holds a shared lock on a file beside the keys, and one on a file in the storage, as long as
it lives; the files name the database. Whoever finds another name there, and a process that holds it, is the copy. The
kernel lets go of the locks when a process ends, however it ends: the next start takes them at once.

A copy with copies of keys and storage isn't seen here. One with copied keys on another machine can't be seen by any
file; the head that a network counter-signs is for that.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from django.conf import settings
from django.db import connection

from gridclient.wire.errors import ConflictError

_LONGEST = 4096
_TRIES = 3
_held: dict[tuple[Path, Path, str], list[int]] = {}


def hold() -> None:
    """Hold the lease for this process's database, for good. Raises ConflictError where another database has it."""
    keys, storage, name = Path(settings.GRID_KEYS_DIR), Path(settings.GRID_STORAGE_DIR), _name()
    if (keys, storage, name) in _held:
        return
    let_go()
    descriptors: list[int] = []
    try:
        for path in (keys / "ledger.lease", storage / "locks" / "ledger.lease"):
            descriptors.append(_take(path, name.encode()))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    _held[keys, storage, name] = descriptors


def let_go() -> None:
    """Let go of whatever this process holds."""
    for descriptors in _held.values():
        for descriptor in descriptors:
            os.close(descriptor)
    _held.clear()


def _name() -> str:
    """What tells this database from a copy of it: two servers can't be at one address, two files not be one inode."""
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        found = os.stat(given["NAME"])
        return f"sqlite {found.st_dev} {found.st_ino}"
    return f"{connection.vendor} {given['HOST']} {given['PORT']} {given['NAME']}"


def _take(path: Path, name: bytes) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:  # nobody lives here
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, name, 0)
            # From exclusive to shared, the kernel lets others in between: so the name is read under the shared lock.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.pread(descriptor, _LONGEST, 0) == name:
                return descriptor
        raise ConflictError(
            "Another database is at work with this deployment's keys or storage: this one is a copy, or the other is. "
            "Stop one of them; together they would spend the privacy budget twice."
        )
    except BaseException:
        os.close(descriptor)
        raise
