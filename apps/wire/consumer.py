"""The data websocket: a socket that carries a conversation for as long as it holds. It translates, and decides nothing.

A Channels consumer with its own receive loop: the stock one runs a database clean-up in one shared thread for every
message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import AsyncConsumer

from apps.core import metrics
from apps.wire import hello, pace, rooms
from apps.wire.conversation import Conversation, carried_on
from apps.wire.outbox import FIRST
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, GridError
from gridclient.wire.frames import CHUNK, MAX_FRAME, pack_batch

HELLO_WITHIN = 5.0
CHUNK_KIND = bytes([CHUNK])
LEFT = 1000
"""Close code of a client that leaves on purpose."""
REPLACED = 4409
"""Close code of a socket in whose place another one has come."""


class GridConsumer(AsyncConsumer):
    """One socket of one user."""

    channel_layer_alias = None

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self._receive, self._send = receive, send
        self._closed: int | None = None
        """The code that the client closed it with."""
        await receive()  # websocket.connect
        address = (scope.get("client") or ("",))[0]
        # With an Origin it is a page in a browser, and this route is for programs.
        if any(name == b"origin" for name, _ in scope["headers"]) or not rooms.may_greet(address):
            await self.close(4403)
            return
        try:
            with rooms.greeting(address):
                await send({"type": "websocket.accept"})
                greeted = await self._greet()
            if greeted is None:
                return
            conversation = await carried_on(self, greeted, scope["state"]["workers"])
        except GridError as error:
            await self._turn_away(error)
            return
        try:
            with conversation.in_log():
                await self._carry(conversation)
        finally:
            conversation.detach(self, left=self._closed == LEFT)

    async def _greet(self) -> hello.Greeted | None:
        """Wait for the hello. None when the client went away instead."""
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                first = await self._frame()
        except TimeoutError:
            raise AuthenticationError("No hello arrived within 5 seconds.") from None
        return None if self._closed is not None else await hello.greet(first or b"")

    async def _carry(self, conversation: Conversation) -> None:
        while not conversation.ended:
            frame = await self._frame()
            if self._closed is not None:
                return
            is_batch = frame is not None and frame[:1] != CHUNK_KIND  # a chunk is only passed on
            await pace.keep(conversation.caller.user, len(frame or b"") if is_batch else 0)
            await conversation.take(frame, self)

    async def _frame(self) -> bytes | None:
        """The next binary message; None for one that is no frame, and when the client has gone."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = message.get("code") or 0
            return None
        data = message.get("bytes")
        return bytes(data) if data is not None and len(data) <= MAX_FRAME else None

    async def _turn_away(self, error: GridError) -> None:
        goodbye = m.NodeBatch(FIRST, [m.Goodbye(error.code, error.message)])
        metrics.said(goodbye.commands[0])
        if await self.put(pack_batch(m.encode(goodbye))):
            await self.close(error.close or 4400)

    async def put(self, frame: bytes) -> bool:
        """Send a frame; False when the client has gone."""
        try:
            await self._send({"type": "websocket.send", "bytes": frame})
        except OSError:  # the server says so
            return False
        return True

    def replace(self) -> None:
        """Another socket has come in the place of this one. Its client may not read: nobody waits for the closing."""
        self._closing = asyncio.create_task(self.close(REPLACED))

    async def close(self, code: int) -> None:
        """Close the socket, if it is open. The server hands the loop a disconnect then."""
        try:
            await self._send({"type": "websocket.close", "code": code})
        except (OSError, RuntimeError):  # it is closed already
            return
