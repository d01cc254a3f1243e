"""HTTP requests run in a few threads that stay, each with a connection to the database that stays open.

Django would start a thread for each request, and with it a connection: on PostgreSQL that costs more than most requests
do, and a hundred requests at once would take every connection that the database has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext

MOST = 8
"""Requests that run at a time in a process; the others wait."""


class FewThreads:
    """Gives each request the thread with the fewest others, all the way: Django's transactions belong to a thread."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"http-{number}") for number in range(MOST)]
        self._requests = dict.fromkeys(self._threads, 0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        thread = min(self._threads, key=self._requests.__getitem__)
        self._requests[thread] += 1
        try:
            async with ThreadSensitiveContext(executor=thread):
                await self.application(scope, receive, send)
        finally:
            self._requests[thread] -= 1
