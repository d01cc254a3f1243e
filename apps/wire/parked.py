"""Which conversation a resume token stands for. In memory: a conversation lives in one process, and no longer than it.

A token has 256 bits and is kept as its sha256. Each welcome brings the next one; the one before stays good until the
client has presented its successor, because the welcome itself may be lost with a socket.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol
from uuid import UUID

from apps.compute.release import Caller


class Resumable(Protocol):
    """What may be gone on with."""

    caller: Caller
    resume_tokens: list[str]
    """Digests of the tokens that stand for it, the oldest first."""

    parked_at: float | None
    """Since when it has no socket; None while it has one."""

    async def end(self) -> None: ...


_by_digest: dict[str, Resumable] = {}


def next_token(conversation: Resumable, presented: str = "") -> str:
    """A new token for the conversation. `presented`: the one that came with the hello, which stays good for now."""
    token = secrets.token_hex(32)
    kept = [digest for digest in conversation.resume_tokens if digest == _digest(presented)]
    _withdraw(conversation)
    conversation.resume_tokens = [*kept, _digest(token)]
    _by_digest.update(dict.fromkeys(conversation.resume_tokens, conversation))
    return token


def find(token: str, caller: Caller) -> Resumable | None:
    """The conversation to go on with: this user's, on the same access token. None alike for every reason against."""
    found = _by_digest.get(_digest(token)) if token else None
    return (
        found if found is not None and (found.caller.user, found.caller.token) == (caller.user, caller.token) else None
    )


def forget(conversation: Resumable) -> None:
    """The conversation has ended."""
    _withdraw(conversation)
    conversation.resume_tokens = []


async def make_room(user: UUID | None) -> bool:
    """End the conversation that has waited longest for its client (of this account, or of any): one who is here goes
    before one who may never come back. False where there is none."""
    waiting = [each for each in set(_by_digest.values()) if each.parked_at is not None]
    if user is not None:
        waiting = [each for each in waiting if each.caller.user == user]
    if not waiting:
        return False
    await min(waiting, key=lambda each: each.parked_at or 0.0).end()
    return True


async def end_all() -> None:
    """End every conversation: the process stops."""
    for conversation in set(_by_digest.values()):
        await conversation.end()


def _withdraw(conversation: Resumable) -> None:
    for digest in conversation.resume_tokens:
        _by_digest.pop(digest, None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
