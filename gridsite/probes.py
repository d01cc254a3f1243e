"""`/healthz`, `/readyz` and `/metrics`: for machines that look after the deployment.

In front of Django: a probe comes by plain http and by an address that is in no list of hosts, and must be answered
while everything behind is stuck.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from django.conf import settings

from apps.compute.workers import Workers
from gridsite.health import Health, Problem
from gridsite.scrape import CONTENT_TYPE, scrape

FRESH = 1.0
"""Seconds for which an answer of `/readyz` or `/metrics` stands: however many ask, the node looks once."""
JSON = "application/json"
Answer = tuple[int, str, bytes]
Send = Callable[[Any], Awaitable[None]]


class Once:
    """A coroutine function's result, at most `FRESH` seconds old; whoever asks meanwhile waits for the same one."""

    def __init__(self, look: Callable[[], Awaitable[Answer]]) -> None:
        self._look = look
        self._task: asyncio.Task[Answer] | None = None
        self._until = 0.0

    async def __call__(self) -> Answer:
        if self._task is None or (self._task.done() and monotonic() >= self._until):
            self._task = asyncio.create_task(self._fresh())
        # A caller who goes away must not take the answer of the others along.
        return await asyncio.shield(self._task)

    async def _fresh(self) -> Answer:
        try:
            return await self._look()
        finally:
            self._until = monotonic() + FRESH


class Probes:
    """Answers the three paths, and hands everything else on to `application`."""

    def __init__(self, application: Callable[[Any, Any, Send], Awaitable[None]]) -> None:
        self.application = application
        self._health: Health | None = None
        self._workers: Workers | None = None
        self._ready, self._metrics = Once(self._readyz), Once(self._figures)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        path = scope["path"]
        if path not in ("/healthz", "/readyz", "/metrics") or (path == "/metrics" and not settings.GRID_METRICS_TOKEN):
            await self.application(scope, receive, send)
            return
        if self._health is None:
            self._workers = scope["state"]["workers"] if settings.GRID_ROLE == "node" else None
            self._health = Health(self._workers)
        answer = await self._answer(scope, path)
        if scope["method"] == "HEAD":
            answer = (*answer[:2], b"")
        await _respond(send, *answer)

    async def _answer(self, scope: Any, path: str) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, JSON, b'{"error": {"code": "invalid_input", "message": "GET or HEAD.", "details": {}}}'
        if path == "/healthz":
            return 200, JSON, b'{"alive": true}'
        if path == "/readyz":
            return await self._ready()
        if not _may_scrape(scope):
            return 401, JSON, b'{"error": {"code": "authentication", "message": "Send the token.", "details": {}}}'
        return await self._metrics()

    async def _readyz(self) -> Answer:
        assert self._health is not None
        found = await self._health.examine()
        failed = {name for name, outcome in found.items() if isinstance(outcome, Problem)}
        checks = {name: "failed" if name in failed else "ok" for name in found}
        return 503 if failed else 200, JSON, json.dumps({"ready": not failed, "checks": checks}).encode()

    async def _figures(self) -> Answer:
        return 200, CONTENT_TYPE, await scrape(self._workers)


def _may_scrape(scope: Any) -> bool:
    given = dict(scope["headers"]).get(b"authorization", b"")
    return hmac.compare_digest(given, b"Bearer " + settings.GRID_METRICS_TOKEN.encode())


async def _respond(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
    headers += [(b"x-content-type-options", b"nosniff"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
