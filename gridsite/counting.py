"""Counts the messages of websockets and their bytes, around whatever serves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from apps.core import metrics

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class CountFrames:
    def __init__(self, application: Callable[[Any, Receive, Send], Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        async def counted_receive() -> Any:
            message = await receive()
            if data := message.get("bytes"):
                metrics.RECEIVED.frames += 1
                metrics.RECEIVED.nbytes += len(data)
            return message

        async def counted_send(message: Any) -> None:
            if data := message.get("bytes"):
                metrics.SENT.frames += 1
                metrics.SENT.nbytes += len(data)
            await send(message)

        await self.application(scope, counted_receive, counted_send)
