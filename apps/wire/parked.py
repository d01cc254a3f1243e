"""Which conversation a resume token stands for. In memory: a conversation lives in one process, and no longer than it.

A token has 256 bits and is kept as its sha256. Each welcome brings the next one; the one before stays good until the
client has presented its successor, because the welcome itself may be lost with a socket.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Protocol
from uuid import UUID

from apps.compute.release import Caller
from gridclient.wire.errors import GridError
from gridclient.wire.messages import OUTLIVES


class Resumable(Protocol):
    """What may be gone on with."""

    caller: Caller
    resume_tokens: list[str]
    """Digests of the tokens that stand for it, the oldest first."""

    parked_at: float | None
    """Since when it has no socket; None while it has one."""

    async def end(self) -> None: ...


_by_digest: dict[str, Resumable] = {}
_stopped: dict[str, tuple[Caller, GridError]] = {}
"""Digests of tokens of sessions that somebody stopped, and why: for as long as their clients would come back."""


def next_token(conversation: Resumable, presented: str = "") -> str:
    """A new token for the conversation. `presented`: the one that came with the hello, which stays good for now."""
    token = secrets.token_hex(32)
    kept = [digest for digest in conversation.resume_tokens if digest == _digest(presented)]
    _withdraw(conversation)
    conversation.resume_tokens = [*kept, _digest(token)]
    _by_digest.update(dict.fromkeys(conversation.resume_tokens, conversation))
    return token


def find(token: str, caller: Caller) -> Resumable | None:
    """The conversation to go on with: this user's, on the same access token. None alike for every reason against.

    Raises why it was stopped, if somebody stopped it.
    """
    digest = _digest(token) if token else ""
    stopped = _stopped.get(digest)
    if stopped is not None and _same(stopped[0], caller):
        raise type(stopped[1])(stopped[1].message)  # a new one: the same would keep the traceback of each time
    found = _by_digest.get(digest)
    return found if found is not None and _same(found.caller, caller) else None


def _same(one: Caller, other: Caller) -> bool:
    return (one.user, one.token) == (other.user, other.token)


def forget(conversation: Resumable) -> None:
    """The conversation has ended."""
    _withdraw(conversation)
    conversation.resume_tokens = []


def turn_away(conversation: Resumable, why: GridError) -> None:
    """Somebody stops the conversation: its client, if it comes back, is told so instead of getting another one."""
    for digest in conversation.resume_tokens:
        _stopped[digest] = conversation.caller, why
        asyncio.get_running_loop().call_later(OUTLIVES, _stopped.pop, digest, None)


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
