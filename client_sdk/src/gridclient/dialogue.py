"""What is said and heard over the sockets of one connection, one after the other. On the loop only, but for `asks`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from gridclient import settings
from gridclient.batches import Batches
from gridclient.failures import RestartedError, again, cannot_be_replayed, cut_off, end, refusal, too_long, with_line
from gridclient.lineage import Known
from gridclient.outbox import Outbox
from gridclient.transfers import Incoming, Outgoing
from gridclient.websocket import Socket
from gridclient.wire import messages as m
from gridclient.wire.errors import ConnectionLostError, GridError, LimitExceededError, from_code
from gridclient.wire.frames import CHUNK, unpack
from gridclient.wire.tensors import check_header

logger = logging.getLogger("gridclient")
UPLOADS_AT_A_TIME = 8
_REMEMBERED = 256
"""Transfers whose offsets are acknowledged again over the next socket."""


class Ask:
    """A question that somebody waits for. `era`: of the transfers that it depends on; None: it depends on none."""

    def __init__(self, command: Any, era: int | None) -> None:
        self.command, self.era = command, era
        self.reply: Future[m.NodeCommand] = Future()
        self.incoming: Incoming | None = None
        """What brings the answer, where it is too long for a batch."""
        self.said = False


class Dialogue:
    """One session after another. `reopen` is called when a socket is lost that should be replaced."""

    def __init__(self, new_transfer: Callable[[], int], reopen: Callable[[GridError], None]) -> None:
        self.socket: Socket | None = None
        self.welcome: m.Welcome | None = None
        self.failure: GridError | None = None
        """Why this is over."""
        self.error: GridError | None = None
        """What went wrong outside of any ask."""
        self.era = 0
        """How often all that was said had to be said again. Transfers of an earlier era are gone."""
        self.asks: dict[int, Ask] = {}
        self.batches = Batches()
        self.outbox = Outbox(arrived=self._arrived, open=self._is_open, too_long=self._too_long)
        self.url = ""
        self._new_transfer, self._reopen = new_transfer, reopen
        self._unstarted: deque[Outgoing] = deque()
        self._outgoing: dict[int, Outgoing] = {}
        self._constants: dict[str, bool] = {}  # uploads of this session, by digest; whether they have ended
        self._incoming: dict[int, Incoming] = {}
        self._acknowledged: dict[int, int] = {}
        self._sockets = 0

    # --- sockets ------------------------------------------------------------------------------------------------

    def attach(self, socket: Socket, welcome: m.Welcome, seen: int) -> None:
        """Go on over this socket: with the same session after batch `seen`, or with a new one."""
        before, self.welcome = self.welcome, welcome
        self.socket = socket
        self._sockets += 1
        socket.on_frame, socket.on_lost = self._on_frame, partial(self._on_lost, socket)
        if before is not None and before.session == welcome.session:
            self.batches.seen(seen)
            for frame in self.batches.unseen():
                socket.write(frame)
            self._say([m.Ack(transfer, offset) for transfer, offset in self._acknowledged.items()])
            logger.info("The session on %s goes on.", self.url)
        else:
            self.batches.forget()
            if before is not None:
                self._say_again()
        self._start_uploads()
        self.flush()

    def _on_lost(self, socket: Socket, code: int | None, reason: str) -> None:
        if socket is not self.socket:
            return
        self.socket = None
        for outgoing in self._outgoing.values():
            outgoing.cut()
        error = cut_off(code, reason)
        if self.failure is None and settings.reconnect_for > 0 and isinstance(error, ConnectionLostError):
            self._reopen(error)
        else:
            self.fail(error)

    def fail(self, error: GridError) -> None:
        """This is over: everybody who waits is told. The first reason is the one that counts."""
        if self.failure is None:
            self.failure = error
        transfers: list[Outgoing | Incoming] = [*self._outgoing.values(), *self._unstarted, *self._incoming.values()]
        for transfer in transfers:
            transfer.fail(again(self.failure))
        for ask in [*self.asks.values()]:
            end(ask.reply, again(self.failure))

    def _break(self, error: GridError) -> None:
        self.fail(error)
        if self.socket is not None:
            self.socket.abort()

    async def close(self, error: GridError) -> None:
        """Say goodbye; `error` is what is raised from now on."""
        self.flush()
        socket, self.socket = self.socket, None
        # First: the node ends the connection as soon as it reads the goodbye, and that is no loss.
        self.fail(error)
        if socket is not None:
            for frame in self.batches.pack([m.Bye()], self._too_long):
                socket.write(frame)
            await socket.close()

    # --- what is said -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is queued, up to the first constant that is still on its way."""
        while self.socket is not None and self.failure is None and self.outbox.ready:
            self._say(self.outbox.drain())

    def _say(self, commands: list[Any], *, empty: bool = False) -> None:
        if self.socket is None or not (commands or empty):
            return
        for command in commands:
            if (ask := self.asks.get(getattr(command, "ask", 0))) is not None:
                ask.said = True
        for frame in self.batches.pack(commands, self._too_long):
            self.socket.write(frame)

    def _too_long(self, command: Any, nbytes: int) -> None:
        self.error = too_long(nbytes)
        if (ask := self.asks.get(getattr(command, "ask", 0))) is not None:
            end(ask.reply, again(self.error))

    def _is_open(self, number: int) -> bool:
        ask = self.asks.get(number)
        return ask is not None and not ask.reply.done()

    def _say_again(self) -> None:
        """The node has nothing of what was said: say what live values are made from, and ask again what is open."""
        if self.outbox.lineage.too_long:
            self._break(cannot_be_replayed(self.url))
            return
        self.era += 1
        transfers: list[Outgoing | Incoming] = [*self._outgoing.values(), *self._unstarted, *self._incoming.values()]
        for transfer in transfers:  # nobody waits for those of constants, and they begin anew
            transfer.fail(RestartedError())
        for forgotten in (self._outgoing, self._unstarted, self._incoming, self._constants, self._acknowledged):
            forgotten.clear()
        asks = []
        for ask in [*self.asks.values()]:
            if ask.era is not None:
                end(ask.reply, RestartedError())
            elif ask.said and not ask.reply.done():
                asks.append(ask.command)
        nodes, constants = self.outbox.say_again(asks)
        for constant in constants:
            self.begin(constant)
        logger.info("The session on %s was lost there: %d operations are said again.", self.url, nodes)

    # --- uploads ------------------------------------------------------------------------------------------------

    def begin(self, constant: Known) -> None:
        """Begin to upload a long constant, unless this session has it."""
        if constant.digest in self._constants or self.outbox.knows(constant):
            return
        self._constants[constant.digest] = False
        self.start(
            Outgoing(
                self._new_transfer(),
                [constant.data],
                "constant",
                name=constant.digest,
                header=constant.header,
            )
        )

    def start(self, outgoing: Outgoing) -> None:
        """Begin an upload, as soon as there are not too many."""
        if self.failure is not None:
            outgoing.fail(again(self.failure))
            return
        self._unstarted.append(outgoing)
        self._start_uploads()

    def _start_uploads(self) -> None:
        while self.socket is not None and self._unstarted and len(self._outgoing) < UPLOADS_AT_A_TIME:
            outgoing = self._unstarted.popleft()
            self._outgoing[outgoing.command.transfer] = outgoing
            self._say([outgoing.command])

    def _arrived(self, constant: Known) -> bool:
        if constant.digest not in self._constants:
            self.begin(constant)
        return self._constants[constant.digest]

    def _ended(self, outgoing: Outgoing) -> None:
        self._outgoing.pop(outgoing.command.transfer, None)
        if outgoing.command.purpose == "constant":
            self._constants[outgoing.command.name] = True
        self._start_uploads()
        self.flush()

    # --- what is heard ------------------------------------------------------------------------------------------

    def _on_frame(self, data: bytes) -> None:
        try:
            frame = unpack(data)
            if frame.kind == CHUNK:
                incoming = self._incoming.get(frame.transfer)
                # Nobody waits for this one any more: it is acknowledged and thrown away, so that the node gets done.
                received = frame.offset + len(frame.body) if incoming is None else incoming.accept(frame)
                if incoming is not None and received == len(incoming.buffer):
                    del self._incoming[frame.transfer]
                self._acknowledge(frame.transfer, received)
                return
            batch = m.decode_node(frame.body)
            if self.batches.take(batch):
                for command in batch.commands:
                    self._on_command(command)
            if self.batches.owes:
                self._say([], empty=True)
        except GridError as error:
            self._break(ConnectionLostError(f"The node does not keep to the protocol: {error.message} Connect again."))

    def _on_command(self, command: m.NodeCommand) -> None:
        match command:
            case m.Answer():
                if command.data is None:
                    self._expect(command)
                self._reply(command.ask, command)
            case m.Submitted() | m.Estimated() | m.Published() | m.Planned():
                self._reply(command.ask, command)
            case m.Refused():
                if (ask := self.asks.get(command.ask)) is not None:
                    end(ask.reply, refusal(command))
            case m.Ack():
                outgoing = self._outgoing.get(command.transfer)
                if outgoing is not None and self.socket is not None:
                    for chunk in outgoing.acknowledge(command.offset):
                        self.socket.write(chunk)
                    if outgoing.done.done():
                        self._ended(outgoing)
            case m.Error():
                self._on_error(command)
            case m.Lost():
                self._say([m.Begin()])
                self._say_again()
                self.flush()
            case m.Goodbye():
                self.fail(from_code(command.code, command.message, {}))

    def _expect(self, answer: m.Answer) -> None:
        """Make room for an answer that comes in chunks, if what is announced is sane."""
        if answer.kind == "tensor":
            check_header(answer.header, settings.largest_answer)
        elif not 0 <= answer.header.nbytes <= settings.largest_answer:
            raise LimitExceededError(f"An answer of {answer.header.nbytes} bytes was announced.")
        if (ask := self.asks.get(answer.ask)) is not None:
            ask.incoming = self._incoming[answer.transfer] = Incoming(answer.header.nbytes, answer.sha256)
        # Perhaps announced over an earlier socket already: then its chunks wait for where to go on.
        self._acknowledge(answer.transfer, 0, aloud=self._sockets > 1)

    def _acknowledge(self, transfer: int, offset: int, *, aloud: bool = True) -> None:
        self._acknowledged[transfer] = offset
        if len(self._acknowledged) > _REMEMBERED:
            del self._acknowledged[next(iter(self._acknowledged))]
        if aloud:
            self._say([m.Ack(transfer, offset)])

    def _on_error(self, command: m.Error) -> None:
        error = from_code(command.code, with_line(command.message, command.details.get("line")), command.details)
        outgoing = self._outgoing.get(command.transfer)
        incoming = self._incoming.get(command.transfer)
        if outgoing is not None:
            if outgoing.command.purpose == "constant":
                self.error = error
            outgoing.fail(error)
            self._ended(outgoing)
        elif incoming is not None:
            incoming.fail(error)
        elif not command.transfer:  # else of a transfer that has ended, perhaps with an earlier session
            self.error = error

    def _reply(self, number: int, reply: m.NodeCommand) -> None:
        if (ask := self.asks.get(number)) is not None and not ask.reply.done():
            ask.reply.set_result(reply)
