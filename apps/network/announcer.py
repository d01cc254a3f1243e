"""A node's background task: join, then heartbeats and announcements, for as long as the process lives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
from django.conf import settings
from django.utils.text import slugify

from apps.core import clock, keys, wake
from apps.core.countersigned import Log
from apps.core.database import in_database
from apps.network import heads, messages, outbound
from apps.network import membership as own
from apps.network.identity import ask_identity
from apps.network.listing import next_push
from apps.network.models import Membership, State
from apps.network.signing import sign_request
from gridclient.wire.errors import ConnectionLostError, GridError, from_code

logger = logging.getLogger(__name__)
T = TypeVar("T")
_spread = random.SystemRandom()

HEARTBEAT = 10.0
PATIENCE = 60.0
"""Seconds between two questions when only a person can change the answer."""
LONGEST_BACK_OFF = 30.0


class _Problem(msgspec.Struct):
    code: str
    message: str


class _Error(msgspec.Struct):
    error: _Problem


async def _post(membership: Membership, path: str, message: msgspec.Struct, answer: type[T]) -> T:
    """Send a signed message to the pinned network. Raises the error that it answered with, or ConnectionLostError."""
    body = msgspec.json.encode(message)
    headers = sign_request("POST", path, body, audience=membership.public_key, now=clock.now())
    headers["Content-Type"] = "application/json"
    reply = await outbound.call("POST", membership.url + path, body=body, headers=headers)
    try:
        if reply.status == 200:
            return messages.decode(reply.body, answer)
        problem = messages.decode(reply.body, _Error).error
    except GridError:
        raise ConnectionLostError(f"The network answered with status {reply.status} and no known message.") from None
    raise from_code(problem.code, messages.clean(problem.message)[:300], {})


class Announcer:
    """Where the conversation with the network stands in this process. All that must last is in `Membership`.

    The network is a witness for `logs`: it's shown how far they go, and they are held to what it has seen.
    """

    def __init__(self, logs: Sequence[Log] = ()) -> None:
        self.logs = logs
        self.greeted = False  # the network's key was checked and our id asked for
        self.in_step = False
        self.asked = 0

    async def step(self) -> float:
        """One round of the conversation; seconds until the next. Raises GridError."""
        membership = await in_database(own.current)
        if not self.greeted or membership is None or membership.url != settings.GRID_NETWORK_URL:
            self.greeted = False
            identity = await ask_identity(settings.GRID_NETWORK_URL, role="network")
            membership = await in_database(
                own.contact, url=settings.GRID_NETWORK_URL, public_key=identity.public_key, now=clock.now()
            )
        if membership.frozen:
            self.greeted = False
            return PATIENCE
        if not self.greeted or membership.state != State.APPROVED:
            state = await self._join(membership)
            if state != State.APPROVED:
                self.asked += 1
                return min(HEARTBEAT, 0.1 * 2.0 ** min(self.asked, 7)) if state == State.PENDING else PATIENCE
            self.greeted, self.asked = True, 0
        await self._announce(membership)
        return HEARTBEAT

    async def _join(self, membership: Membership) -> State:
        wanted = messages.Join(
            id=slugify(settings.GRID_NAME)[:40].strip("-") or "node",
            name=settings.GRID_NAME[:80],
            url=settings.GRID_URL,
            public_key=keys.public_key(),
        )
        joined = await _post(membership, "/api/nodes/", wanted, messages.Joined)
        return await in_database(own.decided, joined)

    async def _announce(self, membership: Membership) -> None:
        """Tell what changed, or that nothing did."""
        after: int | None = membership.acked_revision if self.in_step else None
        more = True
        while more:
            push, more = await in_database(next_push, after)
            push.heads = await in_database(heads.shown, self.logs)
            receipt = await _post(membership, "/api/announcements/", push, messages.Receipt)
            await in_database(own.acknowledged, receipt)
            await in_database(heads.heed, self.logs, receipt.heads, network=membership.public_key)
            for dataset, problem in receipt.refused:
                logger.warning("The network left out dataset %s: %s", messages.clean(dataset), messages.clean(problem))
            if receipt.state != State.APPROVED or not receipt.in_step or receipt.revision != push.revision:
                # Begins anew in the next round: it lost our announcements, or we lost its acknowledgement.
                self.in_step = False
                return
            self.in_step, after = True, receipt.revision


async def run(logs: Sequence[Log] = ()) -> None:
    """Keep the network informed until cancelled. Returns at once where there is no network to inform."""
    if settings.GRID_ROLE != "node" or not settings.GRID_NETWORK_URL:
        return
    announcer, changed, failures = Announcer(logs), wake.listen("datasets"), 0
    try:
        while True:
            changed.clear()
            try:
                pause = await announcer.step()
                failures = 0
            except Exception as error:
                failures += 1
                announcer.greeted = False
                pause = min(LONGEST_BACK_OFF, 2.0 ** min(failures, 8)) * _spread.uniform(0.5, 1.0)
                await _note(error, first=failures == 1)
            if failures:
                # A change does not shorten the pause: the network is in trouble already.
                await asyncio.sleep(pause)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), pause)
    finally:
        wake.forget("datasets", changed)


async def _note(error: Exception, *, first: bool) -> None:
    if not isinstance(error, GridError):
        logger.error("The announcer failed (%s); it tries again.", type(error).__name__, exc_info=error)
        return
    if first:
        logger.warning("The network could not be informed: %s", error.message)
    with suppress(Exception):
        await in_database(own.failed, error.message)
