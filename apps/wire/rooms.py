"""How many may be here at a time: strangers that have not said hello, sessions in all, and sessions of one account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from django.conf import settings

from apps.core import metrics
from gridclient.wire.errors import LimitExceededError

MAX_STRANGERS = 512
MAX_STRANGERS_OF_ADDRESS = 32

Key = TypeVar("Key")
_strangers: Counter[str] = Counter()
_sessions: Counter[UUID] = Counter()
metrics.SESSIONS.set_function(_sessions.total)


def may_greet(address: str) -> bool:
    """Whether one more socket from this address may wait for its hello: strangers never take the users' places."""
    return _strangers.total() < MAX_STRANGERS and _strangers[address] < MAX_STRANGERS_OF_ADDRESS


@contextmanager
def greeting(address: str) -> Iterator[None]:
    """Count a socket until it has said hello."""
    with _counted(_strangers, address):
        yield


def account_is_full(user: UUID) -> bool:
    """Whether the account has as many sessions as it may."""
    return _sessions[user] >= settings.GRID_MAX_SESSIONS_OF_ACCOUNT


def node_is_full() -> bool:
    """Whether there are as many sessions here as there may be."""
    return _sessions.total() >= settings.GRID_MAX_SESSIONS


@contextmanager
def session(user: UUID) -> Iterator[None]:
    """Count a session. Raises LimitExceededError when the account, or the node, has as many as it may."""
    if account_is_full(user):
        own = settings.GRID_MAX_SESSIONS_OF_ACCOUNT
        raise LimitExceededError(f"This account has {own} sessions here; close one first.", limit=own)
    if node_is_full():
        raise LimitExceededError("This node is full; try again later.", limit=settings.GRID_MAX_SESSIONS)
    with _counted(_sessions, user):
        yield


@contextmanager
def _counted(counter: Counter[Key], key: Key) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
