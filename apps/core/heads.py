"""The head of a chain outside the database: a file in the keys folder.

Someone who holds the database's password can cut a chain's tail and set its head row back; they cannot set this file
back. It only moves forward, and only along the chain that it already lies on; the one exception is `anchor`, for a
chain that is accepted although it lacks the head.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from apps.core.canonical import canonical
from apps.core.durable import sync


class Head(NamedTuple):
    """A link's number, hash and signature: the file alone proves that it was in the chain."""

    seq: int
    hash: str
    signature: str


SLOT = 512
"""Bytes of each of the file's two slots. A write goes to the older one: torn, it leaves the newer one whole."""


@lru_cache(8)
def _in(folder: Path, name: str) -> Path:
    return folder / name


@lru_cache(8)
def _slot(content: bytes) -> Head | None:
    try:
        fields = json.loads(content)
        return Head(int(fields["seq"]), str(fields["hash"]), str(fields["signature"]))
    except (ValueError, KeyError, TypeError):
        return None


def _slots(content: bytes) -> tuple[Head | None, ...]:
    return _slot(content[:SLOT]), _slot(content[SLOT:])


def _newest(slots: tuple[Head | None, ...]) -> Head | None:
    return max((head for head in slots if head is not None), default=None)


class HeadFile:
    """The outside head of one chain."""

    def __init__(self, name: str) -> None:
        self.name = name

    def path(self) -> Path:
        """Where it is."""
        return _in(settings.GRID_KEYS_DIR, self.name)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT
        try:
            return os.open(self.path(), flags, 0o600)
        except FileNotFoundError:
            self.path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.path(), flags, 0o600)

    def read(self) -> Head | None:
        """The outside head; None when there is none, or nothing readable."""
        try:
            with open(self.path(), "rb", buffering=0) as file:
                return _newest(_slots(file.read(2 * SLOT)))
        except OSError:
            return None

    def anchor(self, head: Head) -> None:
        """Replace the outside head, whatever it was. Only for who has written down what is lost."""
        aside = self.path().with_name(f"{self.name}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(canonical(head._asdict()).ljust(SLOT))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.path())
        sync(self.path().parent)

    def advance(self, head: Head, *, contains: Callable[[Head], bool], durably: bool = False) -> Head | None:
        """Move the outside head forward to `head`; do nothing when another process is further already.

        `contains` says whether the chain that ends in `head`, or goes on from it, holds a link. Where it does not hold
        the outside head, that one stays, as the evidence, and is returned. `durably`: the file is on the disk when
        this returns, whoever wrote it; without, a lost write leaves an older head, which is still on the chain.
        """
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            slots = _slots(os.pread(descriptor, 2 * SLOT, 0))
            present = _newest(slots)
            if present is not None and not contains(present):
                return present
            if present is None or present.seq < head.seq:
                older = 1 if present is not None and slots[0] == present else 0
                os.pwrite(descriptor, canonical(head._asdict()).ljust(SLOT), older * SLOT)
            if durably:
                os.fsync(descriptor)
                if present is None:
                    sync(self.path().parent)
            return None
        finally:
            os.close(descriptor)
