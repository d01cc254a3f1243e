"""Wake background tasks of this process when something they wait for was committed."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from django.db import transaction

_waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(list)


def wake(topic: str) -> None:
    """After the current transaction commits, set every event that listens to `topic`. Callable from any thread."""

    def set_all() -> None:
        for loop, event in list(_waiting[topic]):
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    transaction.on_commit(set_all)


def listen(topic: str) -> asyncio.Event:
    """An event of the running loop that `wake(topic)` sets. The listener clears it. Pair with `forget`."""
    event = asyncio.Event()
    _waiting[topic].append((asyncio.get_running_loop(), event))
    return event


def forget(topic: str, event: asyncio.Event) -> None:
    """Stop listening."""
    _waiting[topic] = [entry for entry in _waiting[topic] if entry[1] is not event]
