"""One database thread per process, with a connection that stays open: the ORM never runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from django.db import close_old_connections, connection
from django.db.models import QuerySet

from apps.core import metrics

T = TypeVar("T")
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
metrics.DATABASE_QUEUE.set_function(_thread._work_queue.qsize)


def _call(function: Callable[[], T], called: float) -> T:
    metrics.DATABASE_WAIT.observe(perf_counter() - called)
    # Costs a comparison while the connection is good; brings a broken one back.
    if connection.errors_occurred:
        close_old_connections()
    return function()


def delete_unlocked(rows: QuerySet[Any]) -> None:
    """Delete rows that are out of date, but for those that somebody else is just deleting: two cannot deadlock."""
    rows.filter(pk__in=rows.select_for_update(skip_locked=True).values("pk")).delete()


async def in_database(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a function that uses the ORM in the database thread. Who is cancelled waits for what has begun."""
    called = _thread.submit(_call, partial(function, *args, **kwargs), perf_counter())
    try:
        return await asyncio.wrap_future(called)
    except asyncio.CancelledError:
        # It may be about to commit, with files that whoever was cancelled removes now.
        if not called.cancelled():
            with suppress(Exception):  # nobody is there to be told
                await asyncio.wrap_future(called)
        raise
