"""One database thread per process, with a connection that stays open: the ORM never runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from django.db import close_old_connections, connection

T = TypeVar("T")
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")


def _call(function: Callable[[], T]) -> T:
    # Costs a comparison while the connection is good; brings a broken one back.
    if connection.errors_occurred:
        close_old_connections()
    return function()


async def in_database(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a function that uses the ORM in the database thread. Who is cancelled waits for what has begun."""
    called = _thread.submit(_call, partial(function, *args, **kwargs))
    try:
        return await asyncio.wrap_future(called)
    except asyncio.CancelledError:
        # It may be about to commit, with files that whoever was cancelled removes now.
        if not called.cancelled():
            with suppress(Exception):  # nobody is there to be told
                await asyncio.wrap_future(called)
        raise
