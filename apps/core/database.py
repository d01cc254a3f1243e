"""One database thread per process, with a connection that stays open: the ORM never runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


def waiting() -> int:
    """How many calls wait for the thread. Its own queue is asked: a counter of ours would cost something every time."""
    return _thread._work_queue.qsize()


async def in_database(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a function that uses the ORM in the database thread."""
    return await asyncio.get_running_loop().run_in_executor(_thread, _call, partial(function, *args, **kwargs))
