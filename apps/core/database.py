"""One database thread per process, with a connection that stays open: the ORM never runs on the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

from django.db import close_old_connections, connection
from django.db.models import QuerySet

from apps.core import metrics

A = TypeVar("A")
T = TypeVar("T")
MOST_TOGETHER = 64
"""Calls."""
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
metrics.DATABASE_QUEUE.set_function(_thread._work_queue.qsize)


def _call(function: Callable[[], T], called: float) -> T:
    metrics.DATABASE_WAIT.observe(perf_counter() - called)
    # Costs a comparison while the connection is good; brings a broken one back.
    if connection.errors_occurred:
        close_old_connections()
    return function()


def waiting() -> int:
    """How many calls wait for the thread. Its own queue is asked: a counter of ours would cost something every time."""
    return _thread._work_queue.qsize()


def delete_unlocked(rows: QuerySet[Any]) -> None:
    """Delete rows that are out of date, but for those that somebody else is just deleting: two cannot deadlock."""
    rows.filter(pk__in=rows.select_for_update(skip_locked=True).values("pk")).delete()


async def in_database(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a function that uses the ORM in the database thread. Who is cancelled waits for what has begun."""
    return await _outcome(_thread.submit(_call, partial(function, *args, **kwargs), perf_counter()))


async def _outcome(called: Future[T]) -> T:
    try:
        return await asyncio.wrap_future(called)
    except asyncio.CancelledError:
        # It may be about to commit, with files that whoever was cancelled removes now.
        if not called.cancelled():
            with suppress(Exception):  # nobody is there to be told
                await asyncio.wrap_future(called)
        raise


class Together(Generic[A, T]):
    """Calls that wait for the database thread at the same time are made as one, with all that they were given.

    `function` gives for each its result, or the error that it is refused with. Where it raises, whatever it did for all
    of them is undone (it is one transaction), and each is tried by itself.
    """

    def __init__(self, function: Callable[[list[A]], Sequence[T | Exception]]) -> None:
        self._function = function
        self._waiting: deque[tuple[A, Future[T]]] = deque()

    async def __call__(self, given: A) -> T:
        """As `in_database`."""
        called: Future[T] = Future()
        self._waiting.append((given, called))
        # One for each call: that which comes too late finds nobody waiting.
        _thread.submit(_call, self._take, perf_counter())
        return await _outcome(called)

    def _take(self) -> None:
        taken: list[tuple[A, Future[T]]] = []
        while self._waiting and len(taken) < MOST_TOGETHER:
            given, called = self._waiting.popleft()
            if called.set_running_or_notify_cancel():
                taken.append((given, called))
        if taken and not self._made(taken):
            for each in taken:
                # Each a call of its own: where they wait for a lock one by one, others don't wait for all of them.
                _thread.submit(_call, partial(self._made, [each]), perf_counter())

    def _made(self, taken: list[tuple[A, Future[T]]]) -> bool:
        """False where several must be tried one by one."""
        found: Sequence[T | BaseException]
        try:
            found = self._function([given for given, _ in taken])
        except BaseException as error:  # whatever it is, nobody waits for ever
            if len(taken) > 1:
                return False
            found = [error]
        for (_, called), result in zip(taken, found, strict=True):
            if isinstance(result, BaseException):
                called.set_exception(result)
            else:
                called.set_result(result)
        return True
