"""Both real ends of a session, in one process and without a network: frames wait on a line until a test moves them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from apps.compute.messages import Append, Evaluate, Forget, Proposal, Propose, Value
from apps.compute.release import Caller
from apps.compute.workers import CRASHED
from apps.wire.conversation import Conversation, carried_on
from apps.wire.hello import Greeted
from gridclient.batches import hello
from gridclient.dialogue import Ask, Dialogue
from gridclient.outbox import Appended
from gridclient.program.graph import Node, Ref
from gridclient.reconnect import CLIENT
from gridclient.wire import messages as m
from gridclient.wire.errors import InternalError, NotFoundError, from_code
from gridclient.wire.frames import CHUNK_SIZE, unpack

LONG = 2 * CHUNK_SIZE + 8
"""Bytes of a long answer: three chunks."""


def caller(now: datetime) -> Caller:
    return Caller(uuid4(), 1, now + timedelta(days=300))


def content(node: int, nbytes: int) -> bytes:
    """What the value of a node is."""
    return (node.to_bytes(8, "little") * (nbytes // 8 + 1))[:nbytes]


class Worker:
    """Answers when it is told to. A node's only argument is how long its value is."""

    def __init__(self) -> None:
        self.alive = True
        self.on_end: Callable[[], None] | None = None
        self._program: dict[int, int] = {}
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()

    def send(self, message: Any) -> None:
        if not self.alive:
            raise InternalError(CRASHED)
        match message:
            case Append(nodes=nodes):
                assert not self._program.keys() & {node.id for node in nodes}, "said twice"
                self._program |= {node.id: node.args[0] for node in nodes}
            case Forget(values=values):
                for ref in values:
                    del self._program[ref.node]

    async def drain(self) -> None: ...

    async def ask(self, message: Any) -> Any:
        if not self.alive:
            raise InternalError(CRASHED)
        self._waiting.append((message, future := asyncio.get_running_loop().create_future()))
        return await future

    def answer(self) -> None:
        """Answer the question that has waited longest."""
        while self._waiting:
            message, future = self._waiting.popleft()
            if not future.done():
                try:
                    future.set_result(self._reply(message))
                except NotFoundError as error:
                    future.set_exception(error)
                return

    def _reply(self, message: Any) -> Any:
        node = message.value.node
        if node not in self._program:
            raise NotFoundError(f"There is no node {node}.")
        nbytes = self._program[node]
        data = content(node, nbytes)
        match message:
            case Propose():
                short = data if nbytes < LONG else None
                return Proposal(
                    message.ask, "", "public", [], None, "tensor", "uint8", [nbytes], 0, nbytes, 0, [], short
                )
            case Evaluate(path=path):
                Path(path).write_bytes(data)
                return Value(message.ask, m.TensorHeader("uint8", [nbytes], nbytes), None, "tensor")

    def die(self) -> None:
        if self.alive:
            self.alive = False
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(InternalError(CRASHED))
            if self.on_end is not None:
                self.on_end()

    kill = die


class Workers:
    def __init__(self) -> None:
        self.all: list[Worker] = []

    async def open(self, session: str, limits: Any, folder: Path, on_end: Callable[[], None]) -> Worker:
        self.all.append(Worker())
        self.all[-1].on_end = on_end
        return self.all[-1]

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.all if worker.alive]


class Line:
    """One socket, seen from both ends: what is written waits in `up` and `down`."""

    def __init__(self) -> None:
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.open, self.puts = True, 0
        self.on_frame: Callable[[bytes], None] | None = None
        self.on_lost: Callable[[int | None, str], None] | None = None

    def write(self, frame: bytes) -> bool:
        if self.open:
            self.up.append(frame)
        return self.open

    def abort(self) -> None:
        self.open = False

    async def put(self, frame: bytes) -> bool:
        if self.open:
            self.down.append(frame)
            self.puts += 1
        return self.open

    def replace(self) -> None:
        self.open = False

    async def close(self, code: int = 1000) -> None: ...


class Client:
    """The SDK's dialogue, with asks and values by number."""

    def __init__(self) -> None:
        self.transfers, self.asks, self.nodes = count(1), count(1), count(1)
        self.dialogue = Dialogue(lambda: next(self.transfers), lambda _: None)
        self.lengths: dict[int, int] = {}
        self.asked: dict[int, tuple[int, Ask]] = {}

    def run(self, nbytes: int) -> None:
        number = next(self.nodes)
        self.lengths[number] = nbytes
        self.dialogue.outbox.queue.append(Appended(Node(number, "aten::ones", [nbytes])))
        self.dialogue.flush()

    def get(self, node: int) -> None:
        number = next(self.asks)
        ask = self.dialogue.asks[number] = Ask(m.Get(number, Ref(node)), None)
        self.asked[number] = node, ask
        self.dialogue.outbox.queue.append(ask.command)
        self.dialogue.flush()

    def drop(self, node: int) -> None:
        self.dialogue.outbox.drops.append(Ref(node))

    def hello(self) -> bytes:
        resume = "" if self.dialogue.welcome is None else self.dialogue.welcome.resume
        return hello(m.Hello("token", m.PROTOCOL_VERSION, 1, CLIENT, resume), self.dialogue.batches.received)

    def hear(self, line: Line, frame: bytes) -> None:
        """A frame has arrived: the welcome first, as `gridclient.reconnect.greet` takes it."""
        if line.on_frame is not None:
            line.on_frame(frame)
            return
        batch = m.decode_node(unpack(frame).body)
        match batch.commands:
            case [m.Welcome() as welcome]:
                self.dialogue.attach(line, welcome, batch.seen)  # type: ignore[arg-type]
            case [m.Goodbye(code=code, message=message)]:
                self.dialogue.fail(from_code(code, message, {}))


async def greet(who: Caller, first: bytes, workers: Workers, line: Line) -> Conversation:
    """What the consumer does with a hello that was checked."""
    batch = m.decode_client(unpack(first).body)
    (said,) = batch.commands
    assert isinstance(said, m.Hello)
    greeted = Greeted("ward", "ada", [], said.client, who, said.resume, batch.seen)
    return await carried_on(line, greeted, workers)  # type: ignore[arg-type]


def numbers(frames: list[bytes]) -> list[int]:
    """Ids of the batches among frames of the node, but those of welcomes."""
    bodies = [unpack(frame) for frame in frames]
    found = [m.decode_node(each.body) for each in bodies if each.kind == 0]
    return [batch.id for batch in found if batch.id > 1]
