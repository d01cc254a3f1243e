"""HTTP of clients that say nothing: a request arrives within a time, or its connection is closed.

uvicorn waits for ever for the first byte and for the last. A few hundred connections that never speak would take every
file descriptor of a node, and nobody could come in.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_WITHIN = 10.0
"""Seconds from the connection, or the first byte of a later request, to the end of its headers."""
BODY_WITHIN = 60.0
"""Seconds from there to the end of its body."""
MOST_WAITING = 256
"""Connections whose request is not all here. Beyond, the one that has waited longest is closed."""


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with these deadlines. Websockets leave it with their handshake; a hello has its own."""

    _waiting: ClassVar[dict[ImpatientProtocol, asyncio.TimerHandle]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect(HEAD_WITHIN)

    def data_received(self, data: bytes) -> None:
        if self not in self._waiting and (self.cycle is None or self.cycle.response_complete):
            self._expect(HEAD_WITHIN)  # the first byte of another request over the same connection
        super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._expect(BODY_WITHIN)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._arrived()

    def handle_websocket_upgrade(self) -> None:
        self._arrived()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _expect(self, seconds: float) -> None:
        self._arrived()
        self._waiting[self] = self.loop.call_later(seconds, self._give_up)
        if len(self._waiting) > MOST_WAITING:
            next(iter(self._waiting))._give_up()

    def _arrived(self) -> None:
        if (timer := self._waiting.pop(self, None)) is not None:
            timer.cancel()

    def _give_up(self) -> None:
        self._arrived()
        transport: Any = self.transport
        transport.abort()
