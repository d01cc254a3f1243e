"""How many may be here at a time: strangers that have not said hello, sessions in all, and sessions of one account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.conf import settings

from apps.core import metrics
from apps.core.locks import place
from gridclient.wire.errors import LimitExceededError

MAX_STRANGERS = 512
MAX_STRANGERS_OF_ADDRESS = 32

_strangers: Counter[str] = Counter()


def may_greet(address: str) -> bool:
    """Whether one more socket from this address may wait for its hello: strangers never take the users' places."""
    return _strangers.total() < MAX_STRANGERS and _strangers[address] < MAX_STRANGERS_OF_ADDRESS


@contextmanager
def greeting(address: str) -> Iterator[None]:
    """Count a socket until it has said hello."""
    _strangers[address] += 1
    try:
        yield
    finally:
        _strangers[address] -= 1
        if not _strangers[address]:
            del _strangers[address]


class NodeIsFullError(LimitExceededError):
    """There are as many sessions here as there may be, whosever they are."""


@contextmanager
def session(user: UUID) -> Iterator[None]:
    """Count a session. Raises LimitExceededError when the account has as many as it may, NodeIsFullError for the node.

    In all processes of the node together, unlike strangers, who cost only the process that they came to.
    """
    own, most = settings.GRID_MAX_SESSIONS_OF_ACCOUNT, settings.GRID_MAX_SESSIONS
    with place(f"account-{user}", own) as free:
        if not free:
            raise LimitExceededError(f"This account has {own} sessions here; close one first.", limit=own)
        with place("session", most) as free:
            if not free:
                raise NodeIsFullError("This node is full; try again later.", limit=most)
            with metrics.SESSIONS.track_inprogress():
                yield
