"""The asks of one conversation: each is answered by a task of its own, also while no socket is there."""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from typing import Protocol

from django.conf import settings

from apps.accounts.scopes import check_scope
from apps.compute.messages import State
from apps.compute.release import Caller, Released
from apps.compute.sessions import Session
from apps.compute.spending import Wanted
from apps.core import metrics
from apps.wire import asks
from apps.wire.transfers import ACKNOWLEDGE_WITHIN, Outgoing, Uploads, on_disk, sha256_of
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, InternalError, InvalidInputError, LimitExceededError

logger = logging.getLogger(__name__)
MAX_ASKS = 64
INTERNAL = "Something went wrong on the node; its operator finds the cause in the log."
Ask = m.Get | m.Estimate | m.Take | m.Request | m.Fetch | m.Publish | m.Plan


class Line(Protocol):
    """What the answers go out by."""

    caller: Caller

    async def check_token(self) -> None:
        """Raise AuthenticationError when the token counts no longer."""

    async def reply(self, command: m.NodeCommand) -> int:
        """Say something; returns the number of its batch."""

    async def chunk(self, frame: bytes) -> None:
        """Send a chunk, unless no socket is there."""


class Answers:
    """Which asks are open, and which long answers are on their way."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._transfers = count(1)
        self._tasks: dict[int, tuple[Session, asyncio.Task[None]]] = {}
        self._outgoing: dict[int, Outgoing] = {}

    async def begin(self, command: Ask, session: Session, uploads: Uploads) -> None:
        """Answer it, in a task. Raises InvalidInputError for a number that is still in use."""
        if command.ask in self._tasks:
            if self._tasks[command.ask][0] is not session:
                return  # asked again after the program began anew: the answer is on its way
            raise InvalidInputError(f"Ask {command.ask} is still open.")
        if len(self._tasks) >= MAX_ASKS:
            # An answer to this ask, not an error beside it: somebody waits for it by its number.
            limit = LimitExceededError(f"At most {MAX_ASKS} questions at a time.", limit=MAX_ASKS)
            await self._line.reply(m.Refused(command.ask, limit.code, limit.message, limit.details))
            return
        task = asyncio.create_task(self._answer(command, session, uploads))
        self._tasks[command.ask] = session, task
        task.add_done_callback(lambda _: self._tasks.pop(command.ask, None))

    @property
    def number(self) -> int:
        """How many asks are open."""
        return len(self._tasks)

    def of(self, session: Session) -> list[asyncio.Task[None]]:
        """The open asks about values of this session."""
        return [task for mine, task in self._tasks.values() if mine is session]

    def acknowledge(self, transfer: int, offset: int) -> None:
        """The client has so much of a long answer."""
        if (outgoing := self._outgoing.get(transfer)) is not None:
            outgoing.acknowledge(offset)

    def interrupt(self) -> None:
        """The socket was lost: long answers wait until the client says what it has."""
        for outgoing in self._outgoing.values():
            if outgoing.announced:
                outgoing.interrupt()

    def resume(self, seen: int) -> None:
        """There is a socket again, and the client has every batch up to `seen`: of answers announced later, nothing."""
        for outgoing in self._outgoing.values():
            if outgoing.announced > seen:
                outgoing.acknowledge(0)

    def cancel(self) -> None:
        """Answer nothing more."""
        for _, task in list(self._tasks.values()):
            task.cancel()

    @metrics.asked
    async def _answer(self, command: Ask, session: Session, uploads: Uploads) -> None:
        caller, reply = self._line.caller, self._line.reply
        try:
            # Whoever closed an account or revoked a token and got the answer may rely on it: no value leaves after.
            await self._line.check_token()
            check_scope(caller.scopes, asks.scope_of(command))
            match command:
                case m.Get(epsilon=None, within=None):
                    await self._deliver(command.ask, await session.get(command.value), session)
                case m.Get():
                    wanted = Wanted(command.epsilon, command.within)
                    released = await session.private(command.value, wanted, key=command.key)
                    await self._deliver(command.ask, released, session)
                case m.Estimate():
                    wanted = Wanted(command.epsilon, command.within)
                    await reply(m.Estimated(command.ask, await session.estimate(command.value, wanted)))
                case m.Take(names=names, values=values):
                    state = State(command.module, names, values)
                    await self._deliver(command.ask, await session.get(state), session)
                case m.Fetch():
                    await self._deliver(command.ask, await asks.fetch(command, caller), session)
                case m.Request():
                    await reply(m.Submitted(command.ask, await asks.submit(command, session)))
                case m.Publish():
                    await reply(m.Published(command.ask, await asks.publish(command, session, uploads)))
                case m.Plan():
                    await reply(m.Planned(command.ask, await asks.keep_plan(command, caller, uploads)))
        except GridError as error:
            details = dict(error.details)
            line = str(details.pop("line", ""))
            await reply(m.Refused(command.ask, error.code, error.message, details, line))
        except Exception:
            logger.exception("A %s failed.", type(command).__name__)
            await reply(m.Refused(command.ask, InternalError.code, INTERNAL))

    async def _deliver(self, ask: int, released: Released, session: Session) -> None:
        """Send a released value: the only place that puts a value on the wire."""
        answer = released.answer
        if answer.path is None:
            await self._line.reply(m.Answer(ask, answer.kind, answer.header, answer.data, receipt=released.receipt))
            return
        transfer, nbytes = next(self._transfers), answer.header.nbytes
        waiting = sum(each.nbytes for each in self._outgoing.values())
        outgoing = self._outgoing[transfer] = Outgoing(transfer, answer.path, nbytes)
        try:
            if waiting and waiting + nbytes > settings.GRID_MAX_UPLOAD:
                raise LimitExceededError(
                    f"Long answers of {waiting} bytes are on their way; take them before you ask for more.",
                    limit=settings.GRID_MAX_UPLOAD,
                )
            digest = await on_disk(sha256_of, answer.path)
            announced = m.Answer(ask, answer.kind, answer.header, None, transfer, digest, released.receipt)
            outgoing.announced = await self._line.reply(announced)
            async for chunk in outgoing.chunks():
                await self._line.chunk(chunk)
        except TimeoutError:
            limit = LimitExceededError(f"An answer was not acknowledged for {ACKNOWLEDGE_WITHIN:g} seconds; ask again.")
            await self._line.reply(m.Error(limit.code, limit.message, {}, transfer))
        finally:
            del self._outgoing[transfer]
            if answer.path.is_relative_to(session.folder):
                answer.path.unlink(missing_ok=True)
