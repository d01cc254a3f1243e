"""What one user and the node say to each other. It outlives its socket: another one may go on with it.

Frames in, frames out; it translates, and decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

from django.conf import settings

from apps.accounts.scopes import check_scope
from apps.compute import live
from apps.compute.sessions import AGAIN_AFTER, Session
from apps.compute.workers import Workers
from apps.core import logs, metrics
from apps.core.clock import now
from apps.wire import asks, log, parked, rooms
from apps.wire.answers import INTERNAL, Answers, Ask
from apps.wire.guard import Guard
from apps.wire.hello import Greeted, welcome
from apps.wire.outbox import FIRST, Inbox, Outbox
from apps.wire.transfers import Uploads
from gridclient.wire import messages as m
from gridclient.wire.errors import ConflictError, GridError, InternalError, InvalidInputError, LimitExceededError
from gridclient.wire.frames import CHUNK, Frame, pack_batch, unpack

logger = logging.getLogger(__name__)
MAX_BAD_FRAMES = 32
SAY_SEEN_AFTER = 64
"""Batches without a reply, after which the client is told what has arrived: it keeps them until then."""
GOODBYE_WITHIN = 1.0
"""Seconds for which a client that does not read is waited for."""
REFUSALS = (m.Error, m.Refused)


class Socket(Protocol):
    """What carries frames for a while."""

    async def put(self, frame: bytes) -> bool:
        """Send a frame; False when nobody is there any more."""

    def replace(self) -> None:
        """Another one has come in its place."""

    async def close(self, code: int) -> None: ...


class Conversation:
    """One session of one user, from `begin` to `end`. All methods belong to the event loop that made it."""

    def __init__(self, greeted: Greeted, workers: Workers) -> None:
        self.id = uuid4().hex
        self.caller = greeted.caller
        self.guard = Guard(greeted.caller)
        self.resume_tokens: list[str] = []
        self.parked_at: float | None = None
        self.ended = False
        self._greeted = greeted
        self._workers = workers
        self._around = ExitStack()
        self._background: set[asyncio.Task[None]] = set()
        self._newest: Socket | None = None
        """The last socket that came; until it was welcomed, frames go to none."""
        self._socket: Socket | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._putting: asyncio.Timeout | None = None
        # Held while a frame is taken, and while a socket is changed: no frame of an old one comes in between.
        self._turn = asyncio.Lock()
        # Held while a batch is numbered and sent, so that batches leave in the order of their ids.
        self._sending = asyncio.Lock()
        self._inbox, self._outbox = Inbox(), Outbox()
        self._unanswered = self._bad_frames = 0
        self._lost = False
        self._opened = now()
        self._last_error: tuple[str, datetime] | None = None
        self._answers = Answers(self)
        self._sessions: set[Session] = set()
        """The one of the program, and those of earlier ones until their last answer has arrived."""
        self._begin_anew()

    async def begin(self) -> None:
        """Take a place on the node. Raises LimitExceededError where there is none."""
        user = self.caller.user
        try:
            self._around.enter_context(rooms.session(user))
        except LimitExceededError as error:
            # Others' sessions wait for their clients too: an account goes at its own cost first.
            room = await parked.make_room(user)
            if not room and isinstance(error, rooms.NodeIsFullError):
                room = await parked.make_room(None)
            if not room:
                raise
            self._around.enter_context(rooms.session(user))
        with self.in_log():
            self._around.callback(log.opened(self.id, user=self._greeted.user, client=self._greeted.client))
        self._around.enter_context(live.session(self))
        self._around.enter_context(self.guard.listening())
        with self.in_log():
            self._spawn(self._end_with_token())

    async def check_token(self) -> None:
        """Raise AuthenticationError when the token counts no longer."""
        await self.guard.check()

    async def _end_with_token(self) -> None:
        await self.goodbye(await self.guard.ended())

    def in_log(self) -> AbstractContextManager[None]:
        """Lines of the log that are written within, or by tasks that begin within, say whose session it is."""
        return logs.about(session=self.id[:8], user=self._greeted.user)

    async def end(self) -> None:
        """Nothing goes on: the worker, the values and the files of this session are gone."""
        if self.ended:
            return
        self.ended = True
        parked.forget(self)
        if self._expiry is not None:
            self._expiry.cancel()
        self._answers.cancel()
        for task in self._background - {asyncio.current_task()}:
            task.cancel()
        with self._around, self.in_log():  # the place is given up whatever comes
            self.uploads.close()
            for session in self._sessions:
                session.close()

    async def stop(self, error: GridError) -> None:
        """Somebody ends it: its client is told so, now or when it comes back."""
        parked.turn_away(self, error)
        await self.goodbye(error)

    def look(self) -> live.Look:
        """How it stands, for those who look after the node."""
        waits = None
        if self.parked_at is not None:
            waits = now() - timedelta(seconds=asyncio.get_running_loop().time() - self.parked_at)
        client, asks = log.shown(self._greeted.client), self._answers.number
        return live.Look(self.caller.user, client, self._opened, waits, asks, self._last_error, self.session.running)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- sockets ---

    async def attach(self, socket: Socket, greeted: Greeted) -> bool:
        """Go on over this socket, unless all has ended or yet another one comes. False: it has ended.

        The client has every batch up to `greeted.seen`; what is later is said again. Raises AuthenticationError when
        the token counts no longer.
        """
        if self._newest is not None:
            self._newest.replace()
        self._newest, self._socket, self.parked_at = socket, None, None
        if self._expiry is not None:
            self._expiry.cancel()
        putting, self._putting = self._putting, None
        if putting is not None:  # the older socket may never take what it is given
            putting.reschedule(0)
        try:
            async with self._turn, self._sending:
                await self.check_token()  # what was kept for the client leaves now
                if self.ended:
                    return False
                if socket is self._newest:
                    await self._welcome(socket, greeted)
                return True
        except BaseException:
            self.detach(socket, left=False)
            raise

    async def _welcome(self, socket: Socket, greeted: Greeted) -> None:
        self._greeted, self._socket = greeted, socket
        self._outbox.seen(greeted.seen)
        self._answers.interrupt()
        answer = welcome(greeted, self.id, parked.next_token(self, greeted.resume))
        await self._put(pack_batch(m.encode(m.NodeBatch(FIRST, [answer], self._inbox.last))))
        for frame in self._outbox.unseen():
            await self._put(frame)
        for upload in self.uploads.received():
            await self._put(self._outbox.pack(m.Ack(*upload), seen=self._inbox.last)[1])
        self._answers.resume(greeted.seen)
        live.changed()

    def detach(self, socket: Socket, *, left: bool) -> None:
        """The socket is gone. `left`: its client closed it on purpose, and will not come back."""
        if socket is not self._newest or self.ended:
            return
        self._newest = self._socket = None
        self._answers.interrupt()
        loop = asyncio.get_running_loop()
        self.parked_at = loop.time()
        if left:
            self._spawn(self.end())
        else:
            self._expiry = loop.call_later(m.OUTLIVES, lambda: self._spawn(self.end()))
            live.changed()

    # --- frames of the client ---

    async def take(self, data: bytes | None, socket: Socket) -> None:
        """Handle one message; None stands for one that is no frame. Those of an older socket are passed over."""
        async with self._turn:
            if socket is not self._newest or self.ended:
                return
            try:
                frame = unpack(b"" if data is None else data)
                if frame.kind == CHUNK:
                    await self._chunk(frame)
                    return
                batch = m.decode_client(frame.body)
                if not self._inbox.is_new(batch.id, frame.body):
                    return
            except ConflictError as error:
                await self.goodbye(error)
                return
            except GridError as error:
                await self._bad(error)
                return
            self._outbox.seen(batch.seen)
            for command in batch.commands:
                if isinstance(command, m.Bye):
                    await self.end()
                    return
                await self._command_or_error(command)
            self._unanswered += 1
            if self._unanswered >= SAY_SEEN_AFTER:
                await self.reply(None)

    async def _bad(self, error: GridError) -> None:
        self._bad_frames += 1
        await self.reply(m.Error(error.code, error.message, error.details))
        if self._bad_frames >= MAX_BAD_FRAMES:
            await self.goodbye(LimitExceededError(f"{MAX_BAD_FRAMES} frames were wrong.", limit=MAX_BAD_FRAMES))

    async def _command_or_error(self, command: m.ClientCommand) -> None:
        if self.ended:  # by the guard, while an earlier one was handled
            return
        try:
            await self._command(command)
        except GridError as error:
            if not self._lost:  # it is said again anyway
                await self.reply(m.Error(error.code, error.message, error.details, getattr(command, "transfer", 0)))
        except Exception:
            logger.exception("A %s command failed.", type(command).__name__)
            if isinstance(command, m.Run | m.Constant | m.Drop):
                # What follows would be refused without it.
                self.session.stop()
                self._lost = True
                self._spawn(self._say_lost(AGAIN_AFTER))
            else:
                await self.reply(m.Error(InternalError.code, INTERNAL, {}, getattr(command, "transfer", 0)))

    async def _command(self, command: m.ClientCommand) -> None:
        if self._lost and not isinstance(command, m.Begin | m.Ack):
            return
        if not isinstance(command, Ask):  # those are refused as the answer to them
            check_scope(self.caller.scopes, asks.scope_of(command))
        match command:
            case m.Run():
                await self.session.append(command.nodes)
            case m.Constant():
                await self.session.inline_constant(command)
            case m.Drop():
                await self.session.forget(command.values)
            case m.Get() | m.Estimate() | m.Take() | m.Request() | m.Fetch() | m.Publish() | m.Plan():
                await self._answers.begin(command, self.session, self.uploads)
            case m.Upload():
                await asks.check_upload(command, self.caller)
                await self.session.worker()
                self.uploads.begin(command)
                await self.reply(m.Ack(command.transfer, 0))
            case m.Ack():
                self._answers.acknowledge(command.transfer, command.offset)
            case m.Begin():
                self._retire()
                self._begin_anew()
            case _:
                raise InvalidInputError("This command has no place here.")

    async def _chunk(self, frame: Frame) -> None:
        if self._lost:
            return
        try:
            offset, done = await self.uploads.chunk(frame)
            if done is not None and done.command.purpose == "constant" and done.command.header is not None:
                path = self.uploads.take(frame.transfer)
                await self.session.constant(done.command.name, done.command.header, None, path)
        except GridError as error:
            if not self._lost:
                await self.reply(m.Error(error.code, error.message, error.details, frame.transfer))
            return
        await self.reply(m.Ack(frame.transfer, offset))

    # --- a program ends, another begins ---

    def _begin_anew(self) -> None:
        session = Session(self._workers, caller=self.caller, on_lost=lambda: self._worker_ended(session))
        self.session = session
        self._lost = False
        self._sessions.add(session)
        self.uploads = Uploads(session.folder, settings.GRID_MAX_UPLOAD)

    def _worker_ended(self, session: Session) -> None:
        if session is self.session and not self.ended:
            self._lost = True
            # A task made now runs after those that waited for the worker: whoever asked is told first.
            self._spawn(self._say_lost())

    async def _say_lost(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        await self.reply(m.Lost())

    def _retire(self) -> None:
        """End what the program leaves; its files stay until its answers that are on their way have arrived."""
        self.uploads.close()
        self.session.stop()
        self._spawn(self._close_later(self.session))

    async def _close_later(self, session: Session) -> None:
        if open_asks := self._answers.of(session):
            await asyncio.wait(open_asks)
        session.close()
        self._sessions.discard(session)

    # --- frames of the node ---

    async def reply(self, command: m.NodeCommand | None) -> int:
        """Say something, or with None only what has arrived; returns the number of the batch."""
        metrics.said(command)
        if isinstance(command, REFUSALS):
            self._last_error = command.code, now()
        async with self._sending:
            self._unanswered = 0
            number, frame = self._outbox.pack(command, seen=self._inbox.last)
            if self._outbox.is_full:
                self._spawn(self.goodbye(self._outbox.too_much()))
            await self._put(frame)
            return number

    async def chunk(self, frame: bytes) -> None:
        """Send a chunk, unless its socket is gone: over the next one, the receiver says first where to go on."""
        socket = self._socket
        async with self._sending:
            if socket is self._socket:
                await self._put(frame)

    async def _put(self, frame: bytes) -> None:
        socket = self._socket
        if socket is None or self.ended:
            return
        try:
            async with asyncio.timeout(None) as self._putting:
                there = await socket.put(frame)
        except TimeoutError:
            there = False
        finally:
            self._putting = None
        if not there and socket is self._socket:
            # It takes nothing more, but the last that its client said may still be read: that it leaves, perhaps.
            self._socket = None
            self._answers.interrupt()

    async def goodbye(self, error: GridError) -> None:
        """Say why it ends, and end it, whether or not the client reads."""
        if self.ended:
            return
        try:
            async with asyncio.timeout(GOODBYE_WITHIN):
                await self.reply(m.Goodbye(error.code, error.message))
        except TimeoutError:
            pass
        finally:
            socket = self._newest
            await self.end()
        if socket is not None:
            await socket.close(error.close or 4400)


async def carried_on(socket: Socket, greeted: Greeted, workers: Workers) -> Conversation:
    """The conversation that the hello goes on with, over this socket; or a new one.

    Raises LimitExceededError where there is no place, AuthenticationError when the token counts no longer.
    """
    found = parked.find(greeted.resume, greeted.caller)
    if isinstance(found, Conversation) and await found.attach(socket, greeted):
        return found
    made = Conversation(greeted, workers)
    await made.begin()
    await made.attach(socket, greeted)
    return made
