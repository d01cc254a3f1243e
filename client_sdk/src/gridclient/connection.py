"""One session on a node: what the user's threads queue, in batches over the websocket, and the answers to them.

Nothing is sent before something must be: the connection opens at the first question or upload, so that looking at
search results needs no session. One ordered queue holds everything that is said; constants that travel as chunks
stand in it as barriers, so that no node of the program overtakes its constant.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from gridclient import settings
from gridclient.failures import again, cut_off, end, refusal, silent, too_long, with_line
from gridclient.loop import background
from gridclient.program.graph import Node, Ref
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.progress import Progress, waited
from gridclient.transfers import Buffer, Incoming, Outgoing
from gridclient.websocket import Socket, nobody, open_socket
from gridclient.wire import messages as m
from gridclient.wire.errors import (
    ConnectionLostError,
    GridError,
    InvalidInputError,
    LimitExceededError,
    VersionMismatchError,
    from_code,
)
from gridclient.wire.frames import CHUNK, MAX_BATCH, pack_batch, unpack
from gridclient.wire.tensors import check_header

CLIENT = "gridclient 0.1.0"
FLUSH_AT = 48
"""Nodes that wait before they are sent: few enough that the node works while the user's code still records."""
MOST_AT_A_TIME = 256
FLUSH_AFTER = 0.003
UPLOADS_AT_A_TIME = 8
WELCOME_WITHIN = 15.0


class Connection:
    """Methods without underscore may be called from any thread; they raise GridError."""

    def __init__(self, sign_in: Callable[[], tuple[str, str]]) -> None:
        """`sign_in` gives (url, token) and is called once, at the first need."""
        self._sign_in = sign_in
        self._loop = background()
        self._socket: Socket | None = None
        self._welcome: Future[m.Welcome] = Future()
        self._failure: GridError | None = None
        self._opening = threading.Lock()
        self._is_open = False

        # Guards the order of batch ids. Never taken by `drop`: a finaliser may run while this thread holds it.
        self._sending = threading.Lock()
        self._batches, self._asks, self._transfers = itertools.count(1), itertools.count(1), itertools.count(1)
        self._received = 0
        self._queue: deque[Node | m.ClientCommand | Outgoing] = deque()
        self._drops: deque[Ref] = deque()
        self._armed = False

        self._waiting: dict[int, Future[m.NodeCommand]] = {}
        self._error: GridError | None = None
        self._unstarted: deque[Outgoing] = deque()
        self._outgoing: dict[int, Outgoing] = {}
        self._incoming: dict[int, Incoming] = {}
        self._arriving: dict[int, Incoming] = {}

    # --- said by the user's threads -----------------------------------------------------------------------------

    def append(self, item: Node | m.Constant) -> None:
        """Queue a node, or a small constant that later nodes name."""
        self._queue.append(item)
        if self._is_open:
            if len(self._queue) >= FLUSH_AT:
                self._flush()
            elif not self._armed:
                self._armed = True
                self._loop.call_soon_threadsafe(self._loop.call_later, FLUSH_AFTER, self._tick)

    def append_upload(self, data: Buffer, digest: str, header: m.TensorHeader) -> None:
        """Begin to upload a constant. Nodes appended later wait for it; this call does not."""
        outgoing = Outgoing(next(self._transfers), [data], "constant", name=digest, header=header)
        self._queue.append(outgoing)
        self._start(outgoing)

    def drop(self, ref: Ref) -> None:
        """The value is held no longer. Travels with the next batch."""
        self._drops.append(ref)

    def upload(self, parts: Sequence[Buffer], purpose: str, label: str) -> int:
        """Upload the bytes of all parts and wait for their arrival; returns the transfer's number."""
        self.open()
        outgoing = Outgoing(next(self._transfers), parts, purpose)
        self._start(outgoing)
        self._check()
        bar = Progress(label, outgoing.nbytes)
        try:
            outgoing.wait(settings.timeout, bar.show)
            return outgoing.command.transfer
        finally:
            bar.end()

    def ask(self, make: Callable[[int], m.ClientCommand]) -> m.NodeCommand:
        """Ask a question, `make(number)`, after everything queued so far, and wait for the reply to it."""
        return self._ask(make)[1]

    def value(self, make: Callable[[int], m.ClientCommand]) -> tuple[m.Answer, bytearray]:
        """Ask for a value: the answer and its bytes, writable."""
        number, answer = self._ask(make)
        if not isinstance(answer, m.Answer):
            raise ConnectionLostError("The node answered something else than a value.")
        if answer.data is not None:
            return answer, bytearray(answer.data)
        incoming = self._arriving.pop(number)
        bar = Progress("receiving", len(incoming.buffer))
        try:
            return answer, incoming.wait(settings.timeout, bar.show)
        finally:
            self._incoming.pop(answer.transfer, None)
            bar.end()

    def open(self) -> m.Welcome:
        """Be connected and welcomed. Raises AuthenticationError, VersionMismatchError, ConnectionLostError."""
        if not self._is_open:
            with self._opening:
                if not self._is_open and self._failure is None:
                    url, token = self._sign_in()
                    opening = asyncio.run_coroutine_threadsafe(self._open(url, token), self._loop)
                    try:
                        opening.result()
                    finally:
                        opening.cancel()  # nothing, unless the wait was interrupted
        self._check()
        return self._welcome.result()

    def close(self) -> None:
        """Say goodbye and end the session. Closing twice is closing once."""
        closed = ConnectionLostError("This connection was closed; connect again.")
        with self._opening:
            if self._is_open and self._failure is None:
                self._flush()
                # First: the node ends the connection as soon as it reads the goodbye, and that is no loss.
                self._fail(closed)
                self._post([m.Bye()])
                with contextlib.suppress(TimeoutError):
                    asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(3)
            self._fail(closed)

    @property
    def lost(self) -> bool:
        """Whether the session has ended."""
        return self._failure is not None

    def _ask(self, make: Callable[[int], m.ClientCommand]) -> tuple[int, m.NodeCommand]:
        self.open()
        number = next(self._asks)
        reply: Future[m.NodeCommand] = Future()
        self._waiting[number] = reply
        try:
            self._queue.append(make(number))
            self._flush()
            # After it was entered into `_waiting`: a connection that ends now or earlier is noticed either way.
            self._check()
            answer = waited(reply, settings.timeout)
        except TimeoutError:
            raise silent() from None
        except GridError:
            self._raise_earlier()
            raise
        finally:
            self._waiting.pop(number, None)
        self._raise_earlier()
        return number, answer

    def _raise_earlier(self) -> None:
        """Raise what went wrong outside of any question since the last one."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _check(self) -> None:
        if self._failure is not None:
            raise again(self._failure)

    # --- batches ------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what is queued, up to the first constant that is still on its way."""
        while True:
            with self._sending:
                commands = self._drain()
                if commands:
                    self._hand_over(commands)
            if len(self._queue) == 0 or not commands:
                return

    def _drain(self) -> list[m.ClientCommand]:
        # Taken before the nodes: whoever dropped a value had appended its node earlier, so the node is not overtaken.
        dropped = [self._drops.popleft() for _ in range(len(self._drops))]
        commands: list[m.ClientCommand] = []
        nodes: list[Node] = []
        for _ in range(MOST_AT_A_TIME):
            if not self._queue or (isinstance(self._queue[0], Outgoing) and not self._queue[0].done.done()):
                break
            item = self._queue.popleft()
            if isinstance(item, Node):
                nodes.append(item)
            elif not isinstance(item, Outgoing):
                if nodes:
                    commands.append(m.Run(nodes))
                    nodes = []
                commands.append(item)
        if nodes:
            commands.append(m.Run(nodes))
        if dropped and commands and not self._queue:
            commands += [m.Drop(dropped[i : i + m.MAX_NODES]) for i in range(0, len(dropped), m.MAX_NODES)]
        else:
            self._drops.extend(dropped)
        return commands

    def _post(self, commands: list[m.ClientCommand]) -> None:
        """Send at once, past the queue."""
        with self._sending:
            self._hand_over(commands)

    def _hand_over(self, commands: list[m.ClientCommand]) -> None:
        body = m.encode(m.ClientBatch(next(self._batches), commands))
        if len(body) > MAX_BATCH and len(commands) > 1:
            self._hand_over(commands[: len(commands) // 2])
            self._hand_over(commands[len(commands) // 2 :])
            return
        if len(body) > MAX_BATCH:
            self._error = too_long(len(body))
            for command in commands:
                waiting = self._waiting.get(getattr(command, "ask", 0))
                if waiting is not None:
                    end(waiting, again(self._error))
            return
        self._loop.call_soon_threadsafe(self._write, pack_batch(body))

    def _write(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.write(data)

    def _tick(self) -> None:
        self._armed = False
        self._flush()

    # --- uploads ------------------------------------------------------------------------------------------------

    def _start(self, outgoing: Outgoing) -> None:
        self._unstarted.append(outgoing)
        self._loop.call_soon_threadsafe(self._start_uploads)

    def _start_uploads(self) -> None:
        while self._is_open and self._unstarted and len(self._outgoing) < UPLOADS_AT_A_TIME:
            outgoing = self._unstarted.popleft()
            if self._failure is not None:
                outgoing.fail(again(self._failure))
                continue
            self._outgoing[outgoing.command.transfer] = outgoing
            self._post([outgoing.command])

    def _ended(self, outgoing: Outgoing) -> None:
        self._outgoing.pop(outgoing.command.transfer, None)
        self._start_uploads()
        self._flush()

    # --- on the loop: what the node says ------------------------------------------------------------------------

    async def _open(self, url: str, token: str) -> None:
        socket = await open_socket(url, CLIENT)
        socket.on_frame, socket.on_lost = self._on_frame, self._on_lost
        self._socket = socket
        self._post([m.Hello(token, m.PROTOCOL_VERSION, OPERATIONS_VERSION, CLIENT)])
        try:
            welcome = await asyncio.wait_for(asyncio.wrap_future(self._welcome), WELCOME_WITHIN)
        except TimeoutError:
            self._break(nobody(url))
            raise nobody(url) from None
        except asyncio.CancelledError:
            self._break(ConnectionLostError("Connecting was interrupted; connect again."))
            raise
        if welcome.protocol != m.PROTOCOL_VERSION:
            error = VersionMismatchError(
                f"The node speaks protocol {welcome.protocol}, this gridclient {m.PROTOCOL_VERSION}: "
                "upgrade the older one."
            )
            self._break(error)
            raise error
        self._is_open = True
        self._start_uploads()

    async def _close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    def _on_frame(self, data: bytes) -> None:
        try:
            frame = unpack(data)
            if frame.kind == CHUNK:
                incoming = self._incoming.get(frame.transfer)
                # Nobody waits for this one any more: it is acknowledged and thrown away, so that the node gets done.
                received = frame.offset + len(frame.body) if incoming is None else incoming.accept(frame)
                self._post([m.Ack(frame.transfer, received)])
                return
            batch = m.decode_node(frame.body)
            if batch.id <= self._received:
                raise InvalidInputError("Batch ids only grow.")
            self._received = batch.id
            for command in batch.commands:
                self._on_command(command)
        except GridError as error:
            self._break(ConnectionLostError(f"The node does not keep to the protocol: {error.message} Connect again."))

    def _on_command(self, command: m.NodeCommand) -> None:
        match command:
            case m.Answer():
                if command.data is None:
                    self._expect(command)
                self._reply(command.ask, command)
            case m.Submitted() | m.Published() | m.Planned():
                self._reply(command.ask, command)
            case m.Refused():
                self._refuse(command.ask, refusal(command))
            case m.Ack():
                outgoing = self._outgoing.get(command.transfer)
                if outgoing is not None and self._socket is not None:
                    for chunk in outgoing.acknowledge(command.offset):
                        self._socket.write(chunk)
                    if outgoing.done.done():
                        self._ended(outgoing)
            case m.Error():
                self._on_error(command)
            case m.Welcome():
                if not self._welcome.done():
                    self._welcome.set_result(command)
            case m.Goodbye():
                self._fail(from_code(command.code, command.message, {}))

    def _expect(self, answer: m.Answer) -> None:
        """Make room for an answer that comes in chunks, if what is announced is sane."""
        if answer.kind == "tensor":
            check_header(answer.header, settings.largest_answer)
        elif not 0 <= answer.header.nbytes <= settings.largest_answer:
            raise LimitExceededError(f"An answer of {answer.header.nbytes} bytes was announced.")
        if answer.ask in self._waiting:
            incoming = Incoming(answer.header.nbytes, answer.sha256)
            self._incoming[answer.transfer] = self._arriving[answer.ask] = incoming

    def _on_error(self, command: m.Error) -> None:
        error = from_code(command.code, with_line(command.message, command.details.get("line")), command.details)
        outgoing = self._outgoing.get(command.transfer)
        incoming = self._incoming.get(command.transfer)
        if outgoing is not None:
            if outgoing.command.purpose == "constant":
                self._error = error
            outgoing.fail(error)
            self._ended(outgoing)
        elif incoming is not None:
            incoming.fail(error)
        else:
            self._error = error

    def _reply(self, ask: int, reply: m.NodeCommand) -> None:
        if (waiting := self._waiting.get(ask)) is not None and not waiting.done():
            waiting.set_result(reply)

    def _refuse(self, ask: int, error: GridError) -> None:
        if (waiting := self._waiting.get(ask)) is not None:
            end(waiting, error)

    def _on_lost(self, code: int | None, reason: str) -> None:
        self._fail(cut_off(code, reason))

    def _break(self, error: GridError) -> None:
        self._fail(error)
        if self._socket is not None:
            self._socket.abort()

    def _fail(self, error: GridError) -> None:
        """The session is over: everybody who waits is told. The first reason is the one that counts."""
        if self._failure is None:
            self._failure = error
        transfers: list[Outgoing | Incoming] = [*self._outgoing.values(), *self._unstarted, *self._incoming.values()]
        for transfer in transfers:
            transfer.fail(again(self._failure))
        everybody: list[Future[Any]] = [*self._waiting.values(), self._welcome]
        for waiting in everybody:
            end(waiting, again(self._failure))
