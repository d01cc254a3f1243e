"""Wake background tasks of every process of the deployment when something they wait for was committed.

In this process at once; in the others through the channel layer, where there is one (GRID_REDIS_URL). A signal may
be lost, with Redis or on its way: whoever listens also looks by itself after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import transaction

logger = logging.getLogger(__name__)
GROUP = "wake"
AGAIN = 2.0
"""Seconds until the next try after the channel layer failed."""

_waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(list)
_hearing: list[asyncio.AbstractEventLoop] = []
"""The loop on which this process hears the others."""


def wake(topic: str) -> None:
    """After the current transaction commits, set every event that listens to `topic`. Callable from any thread."""

    def set_all() -> None:
        _set(topic)
        if settings.GRID_REDIS_URL:
            _tell(topic)

    transaction.on_commit(set_all)


def listen(topic: str) -> asyncio.Event:
    """An event of the running loop that `wake(topic)` sets. The listener clears it. Pair with `forget`."""
    event = asyncio.Event()
    _waiting[topic].append((asyncio.get_running_loop(), event))
    return event


def forget(topic: str, event: asyncio.Event) -> None:
    """Stop listening."""
    _waiting[topic] = [entry for entry in _waiting[topic] if entry[1] is not event]


async def hear() -> None:
    """Hear what other processes wake, until cancelled. Returns at once where there are no others."""
    if not settings.GRID_REDIS_URL:
        return
    _hearing.append(asyncio.get_running_loop())
    said = False
    try:
        while True:
            try:
                await _hear()
            except Exception as error:
                if not said:
                    logger.warning("Other processes cannot be heard (%s); trying again.", type(error).__name__)
                said = True
                await asyncio.sleep(AGAIN)
    finally:
        _hearing.clear()


async def _hear() -> None:
    layer = get_channel_layer()
    try:
        channel = await layer.new_channel()
        await layer.group_add(GROUP, channel)
        for topic in list(_waiting):
            _set(topic)  # what was said meanwhile was not heard
        while True:
            _set((await layer.receive(channel))["topic"])
    finally:
        await layer.flush()


def _set(topic: str) -> None:
    for loop, event in list(_waiting[topic]):
        if not loop.is_closed():
            loop.call_soon_threadsafe(event.set)


def _tell(topic: str) -> None:
    if _hearing:
        asyncio.run_coroutine_threadsafe(_send(topic), _hearing[0])
    else:  # a command of the operator's
        async_to_sync(_send_once)(topic)


async def _send(topic: str) -> None:
    try:
        await get_channel_layer().group_send(GROUP, {"type": "wake", "topic": topic})
    except Exception as error:
        # What was committed is not reported as failed because Redis is away.
        logger.warning("Other processes could not be woken (%s); they look by themselves.", type(error).__name__)


async def _send_once(topic: str) -> None:
    try:
        await _send(topic)
    finally:
        await get_channel_layer().flush()
