"""The head outside the database: `audit.head` in the keys folder.

Someone who holds the database's password can cut the log's tail and set the head row back; they cannot set this file
back. It only moves forward, and only along the chain that it already lies on.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from apps.core.canonical import canonical


class Head(NamedTuple):
    """An event's number, hash and signature: the file alone proves that the event was in the log."""

    seq: int
    hash: str
    signature: str


def _path() -> Path:
    return Path(settings.GRID_KEYS_DIR) / "audit.head"


def read() -> Head | None:
    """The outside head; None when there is none, or a power cut left nothing readable."""
    try:
        fields = json.loads(_path().read_bytes())
        return Head(int(fields["seq"]), str(fields["hash"]), str(fields["signature"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path.with_name("audit.head.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def advance(head: Head) -> None:
    """Move the outside head forward to `head`; do nothing when another process is further already."""
    path = _path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        present = read()
        if present is not None and present.seq >= head.seq:
            return
        # Replaced in one step and without fsync: a lost write leaves an older head, which is still on the chain.
        aside = path.with_name("audit.head.next")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(canonical(head._asdict()))
        os.replace(aside, path)
