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
        self._in = metrics.FRAMES.labels("in"), metrics.FRAME_BYTES.labels("in")
        self._out = metrics.FRAMES.labels("out"), metrics.FRAME_BYTES.labels("out")

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        async def counted_receive() -> Any:
            message = await receive()
            if data := message.get("bytes"):
                self._in[0].inc()
                self._in[1].inc(len(data))
            return message

        async def counted_send(message: Any) -> None:
            if data := message.get("bytes"):
                self._out[0].inc()
                self._out[1].inc(len(data))
            await send(message)

        await self.application(scope, counted_receive, counted_send)
