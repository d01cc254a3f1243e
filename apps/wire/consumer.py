"""The data websocket: frames in, frames out. It translates, and decides nothing.

A Channels consumer with its own receive loop: the stock one runs a database clean-up in one shared thread for every
message. Asks (get, request, fetch, publish) run beside the loop, so that acknowledgements are read meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

from channels.consumer import AsyncConsumer
from django.conf import settings

from apps.accounts.queries import user_of_live_token
from apps.accounts.scopes import check_scope
from apps.compute.messages import State
from apps.compute.release import Released
from apps.compute.sessions import Session
from apps.core import metrics
from apps.core.clock import now
from apps.core.database import in_database
from apps.core.wake import forget, listen
from apps.wire import asks, hello, log, rooms
from apps.wire.transfers import ACKNOWLEDGE_WITHIN, Outgoing, Uploads, on_disk, sha256_of
from gridclient.wire import messages as m
from gridclient.wire.errors import (
    AuthenticationError,
    GridError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
)
from gridclient.wire.frames import CHUNK, MAX_FRAME, Frame, pack_batch, unpack

logger = logging.getLogger(__name__)
HELLO_WITHIN = 5.0
LOOK_AGAIN = 30.0
MAX_ASKS = 64
MAX_BAD_FRAMES = 32
_INTERNAL = "Something went wrong on the node; its operator finds the cause in the log."
Ask = m.Get | m.Take | m.Request | m.Fetch | m.Publish | m.Plan


class GridConsumer(AsyncConsumer):
    """One connection of one user."""

    channel_layer_alias = None

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self._sent, self._last_batch, self._bad_frames = count(1), 0, 0
        self._transfers, self._tasks = count(1), dict[int, asyncio.Task[None]]()
        self._outgoing: dict[int, Outgoing] = {}
        self.session: Session | None = None
        await receive()  # websocket.connect
        address = (scope.get("client") or ("",))[0]
        # With an Origin it is a page in a browser, and this route is for programs.
        if any(name == b"origin" for name, _ in scope["headers"]) or not rooms.may_greet(address):
            await send({"type": "websocket.close", "code": 4403})
            return
        try:
            with rooms.greeting(address):
                await send({"type": "websocket.accept"})
                greeted = await self._greet()
            if greeted is not None:
                with rooms.session(greeted.caller.user):
                    await self._serve(greeted)
        except _Ended:
            pass
        except GridError as error:
            with suppress(_Ended):
                await self._goodbye(error)
        finally:
            await self._end()

    async def _greet(self) -> hello.Greeted | None:
        """Wait for the hello. None when the client went away instead."""
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                first = await self._frame()
        except TimeoutError:
            raise AuthenticationError("No hello arrived within 5 seconds.") from None
        return None if first is None else await hello.greet(first)

    async def _serve(self, greeted: hello.Greeted) -> None:
        self._caller = greeted.caller
        self._last_batch = 1
        self.session = Session(self.scope["state"]["workers"], caller=self._caller)
        self.uploads = Uploads(self.session.folder, settings.GRID_MAX_UPLOAD)
        with log.session(self.session.id, user=greeted.user, client=greeted.client):
            await self._reply(hello.welcome(greeted, self.session.id))
            self._doubt, self._checking = listen("tokens"), asyncio.Lock()
            self._doubt.set()
            guard = asyncio.create_task(self._guard())
            try:
                while (frame := await self._frame()) is not None:
                    if not await self._take(frame):
                        return
            finally:
                guard.cancel()

    async def _guard(self) -> None:
        """End the connection when its token expires or is revoked, or its account is closed."""
        try:
            while True:
                await self._check_token()
                left = (self._caller.expires - now()).total_seconds()
                try:
                    async with asyncio.timeout(max(0.1, min(LOOK_AGAIN, left))):
                        await self._doubt.wait()
                except TimeoutError:
                    # Another process may have revoked it: nobody wakes us for that.
                    self._doubt.set()
        except GridError as error:
            # The server hands the loop a disconnect once the socket is closed.
            await self._goodbye(error)
        except Exception:
            # Whoever cannot be looked up is nobody.
            logger.exception("A session's token could not be looked at.")
            await self._goodbye(InternalError(_INTERNAL))
        finally:
            forget("tokens", self._doubt)

    async def _check_token(self) -> None:
        """Raise AuthenticationError when the token counts no longer. Asks the database only where there is doubt."""
        async with self._checking:
            if self._doubt.is_set():
                self._doubt.clear()
                try:
                    await in_database(user_of_live_token, self._caller.token)
                except BaseException:
                    self._doubt.set()
                    raise

    async def _frame(self) -> bytes | None:
        """The next binary message; None when the client has gone."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return None
            data = message.get("bytes")
            if data is not None and len(data) <= MAX_FRAME:
                return bytes(data)
            await self._bad(InvalidInputError(f"Send binary messages of at most {MAX_FRAME} bytes."))

    async def _bad(self, error: GridError) -> None:
        self._bad_frames += 1
        await self._reply(m.Error(error.code, error.message, error.details))
        if self._bad_frames >= MAX_BAD_FRAMES:
            await self._goodbye(LimitExceededError(f"{MAX_BAD_FRAMES} frames were wrong.", limit=MAX_BAD_FRAMES))
            raise _Ended

    async def _take(self, data: bytes) -> bool:
        """Handle one frame. False when the client said goodbye."""
        try:
            frame = unpack(data)
            if frame.kind == CHUNK:
                await self._chunk(frame)
                return True
            batch = m.decode_client(frame.body)
            if batch.id <= self._last_batch:
                raise InvalidInputError(f"Batch ids only grow; the last was {self._last_batch}.")
        except GridError as error:
            await self._bad(error)
            return True
        self._last_batch = batch.id
        for command in batch.commands:
            if isinstance(command, m.Bye):
                return False
            try:
                await self._command(command)
            except GridError as error:
                await self._reply(m.Error(error.code, error.message, error.details, getattr(command, "transfer", 0)))
            except _Ended:
                raise
            except Exception:
                logger.exception("A %s command failed.", type(command).__name__)
                await self._reply(_internal())
        return True

    async def _command(self, command: m.ClientCommand) -> None:
        session = self._session
        if not isinstance(command, Ask):  # those are refused as the answer to them
            check_scope(self._caller.scopes, asks.scope_of(command))
        match command:
            case m.Run():
                await session.append(command.nodes)
            case m.Constant():
                await session.inline_constant(command)
            case m.Drop():
                session.forget(command.values)
            case m.Get() | m.Take() | m.Request() | m.Fetch() | m.Publish() | m.Plan():
                await self._begin(command)
            case m.Upload():
                await asks.check_upload(command, self._caller)
                await session.worker()
                self.uploads.begin(command)
                await self._reply(m.Ack(command.transfer, 0))
            case m.Ack():
                if (outgoing := self._outgoing.get(command.transfer)) is not None:
                    outgoing.acknowledge(command.offset)
            case _:
                raise InvalidInputError("This command has no place here.")

    @property
    def _session(self) -> Session:
        if self.session is None:
            raise AuthenticationError("Say hello first.")
        return self.session

    async def _chunk(self, frame: Frame) -> None:
        try:
            offset, done = await self.uploads.chunk(frame)
            if done is not None and done.command.purpose == "constant" and done.command.header is not None:
                path = self.uploads.take(frame.transfer)
                await self._session.constant(done.command.name, done.command.header, None, path)
        except GridError as error:
            await self._reply(m.Error(error.code, error.message, error.details, frame.transfer))
            return
        await self._reply(m.Ack(frame.transfer, offset))

    async def _begin(self, command: Ask) -> None:
        if command.ask in self._tasks:
            raise InvalidInputError(f"Ask {command.ask} is still open.")
        if len(self._tasks) >= MAX_ASKS:
            # An answer to this ask, not an error beside it: somebody waits for it by its number.
            limit = LimitExceededError(f"At most {MAX_ASKS} questions at a time.", limit=MAX_ASKS)
            await self._reply(m.Refused(command.ask, limit.code, limit.message, limit.details))
            return
        task = asyncio.create_task(self._answer(command))
        self._tasks[command.ask] = task
        task.add_done_callback(lambda _: self._tasks.pop(command.ask, None))

    @metrics.asked
    async def _answer(self, command: Ask) -> None:
        try:
            # Whoever closed an account or revoked a token and got the answer may rely on it: no value leaves after.
            await self._check_token()
            check_scope(self._caller.scopes, asks.scope_of(command))
            match command:
                case m.Get():
                    await self._deliver(command.ask, await self._session.get(command.value))
                case m.Take(names=names, values=values):
                    state = State(command.module, names, values)
                    await self._deliver(command.ask, await self._session.get(state))
                case m.Fetch():
                    await self._deliver(command.ask, await asks.fetch(command, self._caller))
                case m.Request():
                    request = await asks.submit(command, self._session)
                    await self._reply(m.Submitted(command.ask, request))
                case m.Publish():
                    dataset = await asks.publish(command, self._session, self.uploads)
                    await self._reply(m.Published(command.ask, dataset))
                case m.Plan():
                    plan = await asks.keep_plan(command, self._caller, self.uploads)
                    await self._reply(m.Planned(command.ask, plan))
        except GridError as error:
            details = dict(error.details)
            line = str(details.pop("line", ""))
            await self._reply(m.Refused(command.ask, error.code, error.message, details, line))
        except _Ended:
            return
        except Exception:
            logger.exception("A %s failed.", type(command).__name__)
            await self._reply(m.Refused(command.ask, InternalError.code, _INTERNAL))

    async def _deliver(self, ask: int, released: Released) -> None:
        """Send a released value: the only place that puts a value on the wire."""
        answer = released.answer
        if answer.path is None:
            await self._reply(m.Answer(ask, answer.kind, answer.header, answer.data))
            return
        transfer, nbytes = next(self._transfers), answer.header.nbytes
        outgoing = self._outgoing[transfer] = Outgoing(transfer, answer.path, nbytes)
        try:
            digest = await on_disk(sha256_of, answer.path)
            await self._reply(m.Answer(ask, answer.kind, answer.header, None, transfer, digest))
            async for chunk in outgoing.chunks():
                await self._put({"type": "websocket.send", "bytes": chunk})
        except TimeoutError:
            limit = LimitExceededError(f"An answer was not acknowledged for {ACKNOWLEDGE_WITHIN:g} seconds; ask again.")
            await self._reply(m.Error(limit.code, limit.message, {}, transfer))
        finally:
            del self._outgoing[transfer]
            if answer.path.is_relative_to(self._session.folder):
                answer.path.unlink(missing_ok=True)

    async def _reply(self, command: m.NodeCommand) -> None:
        metrics.said(command)
        body = m.encode(m.NodeBatch(next(self._sent), [command]))
        await self._put({"type": "websocket.send", "bytes": pack_batch(body)})

    async def _put(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:
            # The server says so when the client has gone; an OSError of ours (a full disk) is another matter.
            raise _Ended from None

    async def _goodbye(self, error: GridError) -> None:
        await self._reply(m.Goodbye(error.code, error.message))
        await self._put({"type": "websocket.close", "code": error.close or 4400})

    async def _end(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        if self.session is not None:
            self.uploads.close()
            await self.session.close()


def _internal() -> m.Error:
    return m.Error(InternalError.code, _INTERNAL)


class _Ended(Exception):
    """This connection has said its goodbye."""
