"""Sessions and sockets of the node of the SDK's tests. It asserts that the client keeps to the protocol.

Moments at which a test may do something (`FakeNode.happens`): "take", before a batch; "taken", after each command of
it; "reply", before commands are sent; "chunk", before one of an upload is taken; "send chunk", before one of an answer.
"""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import safetensors.torch
import torch

from gridclient.program.graph import ASSET, CONSTANT, Dtype, Node, Ref, refs, tensor_digest
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError, GridError, InvalidInputError
from gridclient.wire.frames import CHUNK, CHUNK_SIZE, CHUNKS_IN_FLIGHT, pack_batch, pack_chunk, unpack
from tests.sdk.fake_values import as_bytes, as_tensor

if TYPE_CHECKING:
    from tests.sdk.fake_node import FakeNode

ANSWER_AFTER = 64


class FakeSession:
    """What outlives a socket."""

    def __init__(self, number: int) -> None:
        self.id = f"session-{number}"
        self.last = 1
        """The last batch of the client."""
        self.batches: dict[int, bytes] = {}
        self.numbers = count(2)
        self.last_sent = 0
        self.kept: dict[int, bytes] = {}
        """Batches that the client has not seen, as frames."""
        self.unanswered = 0
        self.lost = False
        """Whether its worker has ended, and nothing began anew since."""
        self.transfers = count(1)
        self.begin()

    def seen(self, last: int) -> None:
        """The client has what was sent up to this batch."""
        self.kept = {number: frame for number, frame in self.kept.items() if number > last}

    def begin(self) -> None:
        """Nothing was said yet."""
        self.downloads: dict[int, Download] = {}
        self.values: dict[tuple[int, int], Any] = {}
        self.failed: dict[int, tuple[GridError, str]] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.uploading: dict[int, tuple[m.Upload, bytearray]] = {}
        self.uploads: dict[int, bytes] = {}
        self.last_node = -1


class Download:
    """An answer on its way. `sent` None: since the cut, nobody has said where to go on."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent: int | None = 0


class Talk:
    """One socket."""

    def __init__(self, node: FakeNode, receive: Any, send: Any) -> None:
        self.node, self._receive, self._send = node, receive, send
        self.session = FakeSession(0)
        self._cut = False

    async def serve(self) -> None:
        try:
            await self._serve()
        except (AssertionError, LookupError) as error:
            self.node.wrong.append(f"{error!r} {traceback.format_exc(limit=-2)}")
            await self._put(pack_batch(m.encode(m.NodeBatch(2**40, [m.Goodbye("internal", "The test has failed.")]))))
            raise

    async def _serve(self) -> None:
        await self._receive()
        await self._send({"type": "websocket.accept"})
        if await self._greet():
            while not self._cut and (data := await self._frame()) is not None:
                if not await self._take(data):
                    return
        for download in self.session.downloads.values():
            download.sent = None
        if self._cut:
            await self._send({"type": "websocket.close", "code": 1012})

    async def _frame(self) -> bytes | None:
        message = await self._receive()
        return message["bytes"] if message["type"] == "websocket.receive" else None

    async def _moment(self, moment: str, what: Any) -> None:
        verdict = None if self._cut else self.node.happens(moment, what)
        if verdict == "lose":
            if not self.session.lost:
                self.session.begin()
                self.session.lost = True
                await self.reply(m.Lost())
            return
        self._cut = self._cut or verdict is not None
        if verdict == "forget":
            self.node.kept.clear()

    async def _greet(self) -> bool:
        data = await self._frame()
        if data is None:
            return False
        node, batch = self.node, m.decode_client(unpack(data).body)
        (hello,) = batch.commands
        assert batch.id == 1
        assert isinstance(hello, m.Hello)
        node.commands.append(hello)
        user = node.tokens.get(hello.token)
        away = m.Goodbye("authentication", "This token is not known.") if user is None else None
        if away is None and node.turned_away:
            away = node.turned_away.pop(0)
        if user is None or away is not None:
            assert away is not None
            await self._put(pack_batch(m.encode(m.NodeBatch(1, [away]))))
            await self._send({"type": "websocket.close", "code": 4400})
            return False
        node.greetings += 1
        found = node.kept.pop(hello.resume, None) if hello.resume else None
        if found is None:
            node.sessions += 1
            found = FakeSession(node.sessions)
        else:
            assert batch.seen <= found.last_sent
        self.session = session = found
        resume = os.urandom(8).hex()
        node.kept[resume] = session
        welcome = m.Welcome(
            session.id, node.protocol, OPERATIONS_VERSION, node.id, node.id, user, ["compute.use"], {}, resume
        )
        await self._put(pack_batch(m.encode(m.NodeBatch(1, [welcome], session.last if session.last > 1 else 0))))
        session.seen(batch.seen)
        for frame in session.kept.values():
            await self._put(frame)
        # Those that have ended too: their last acknowledgement may be what was lost.
        arrived = {transfer: data for transfer, (_, data) in session.uploading.items()} | session.uploads
        for transfer, data in arrived.items():
            await self.reply(m.Ack(transfer, len(data)))
        return True

    async def _take(self, data: bytes) -> bool:
        session = self.session
        frame = unpack(data)
        if frame.kind == CHUNK:
            await self._chunk(frame.transfer, frame.offset, frame.body)
            return True
        batch = m.decode_client(frame.body)
        session.seen(batch.seen)
        if batch.id <= session.last:
            assert session.batches[batch.id] == data, "a batch that is sent again is the same"
            return True
        # A batch is taken as a whole, or not at all.
        await self._moment("take", batch)
        if self._cut:
            return True
        session.batches[batch.id], session.last = data, batch.id
        session.unanswered += 1
        for command in batch.commands:
            self.node.commands.append(command)
            if isinstance(command, m.Bye):
                return False
            await self._command(command)
            await self._moment("taken", command)
        if session.unanswered >= ANSWER_AFTER:
            await self.reply()
        return True

    async def reply(self, *commands: Any) -> None:
        """Send a batch, and keep it until the client has seen it."""
        session = self.session
        session.last_sent = next(session.numbers)
        session.unanswered = 0
        frame = pack_batch(m.encode(m.NodeBatch(session.last_sent, list(commands), session.last)))
        if not all(isinstance(command, m.Ack) for command in commands):
            session.kept[session.last_sent] = frame
        await self._moment("reply", commands)
        await self._put(frame)

    async def _put(self, frame: bytes) -> None:
        if not self._cut:
            await self._send({"type": "websocket.send", "bytes": frame})

    async def _command(self, command: Any) -> None:
        if isinstance(command, m.Begin):
            assert self.session.lost, "nothing begins anew before it was lost"
            self.session.lost = False
        if self.session.lost:
            return
        if self.node.on_command is not None and (replies := self.node.on_command(command)) is not None:
            if replies:
                await self.reply(*replies)
            return
        try:
            await self._do(command)
        except GridError as error:
            await self.reply(m.Refused(getattr(command, "ask", 0), error.code, error.message, error.details))

    async def _do(self, command: Any) -> None:
        node, session = self.node, self.session
        match command:
            case m.Upload():
                session.uploading[command.transfer] = command, bytearray()
                await self.reply(m.Ack(command.transfer, 0))
            case m.Constant():
                assert command.digest not in session.constants, "a constant is said once a session"
                session.constants[command.digest] = as_tensor(command.header, command.data)
            case m.Run():
                for program_node in command.nodes:
                    self._run(program_node)
            case m.Drop():
                for ref in command.values:
                    assert ref.node <= session.last_node, "a value is dropped after its operation"
                    session.values.pop((ref.node, ref.output), None)
            case m.Get():
                await self._get(command)
            case m.Take():
                found = [session.values[value.node, value.output] for value in command.values]
                data = safetensors.torch.save(dict(zip(command.names, found, strict=True)))
                await self._deliver(command.ask, "state", m.TensorHeader("", [len(found)], len(data)), data)
            case m.Request():
                value = session.values[command.value.node, command.value.output]
                await self.reply(m.Submitted(command.ask, self._once(command, lambda: node.ask_for(command, value))))
            case m.Fetch():
                await self._deliver(command.ask, *as_bytes(node.values[command.request]))
            case m.Publish():
                dataset = self._once(command, lambda: node.publish(command, session.uploads))
                await self.reply(m.Published(command.ask, dataset))
            case m.Plan():
                plan = self._once(command, lambda: node.keep(session.uploads[command.transfer]))
                await self.reply(m.Planned(command.ask, plan))
            case m.Ack():
                await self._pump(command.transfer, command.offset)

    def _once(self, command: Any, do: Callable[[], Any]) -> Any:
        assert command.key
        if command.key not in self.node.done:
            self.node.done[command.key] = do()
        return self.node.done[command.key]

    def _run(self, node: Node) -> None:
        session = self.session
        assert node.id > session.last_node, "ids only grow"
        session.last_node = node.id
        assert all((ref.node, ref.output) in session.values or ref.node in session.failed for ref in refs(node))
        try:
            if node.op == ASSET:
                result = self.node.values[node.args[0]]
                if node.args[2] == "mock":
                    result = result.slice(0, 1) if isinstance(result, pa.Table) else result[:1] * 0
            elif node.op == CONSTANT:
                result = session.constants[node.args[0]]
            elif node.op == "grid::column":
                result = torch.tensor(self._arg(node.args[0]).column(node.args[1]).to_numpy().copy())
            elif node.op == "grid::columns":
                table = self._arg(node.args[0])
                result = torch.stack([torch.tensor(table.column(name).to_numpy().copy()) for name in node.args[1]], 1)
            elif node.op == "grid::count":
                found = self._arg(node.args[0])
                result = torch.tensor(found.num_rows if isinstance(found, pa.Table) else found.shape[0])
            else:
                packet, _, overload = node.op.removeprefix("aten::").partition(".")
                call = getattr(getattr(torch.ops.aten, packet), overload or "default")
                result = call(*map(self._arg, node.args), **{k: self._arg(v) for k, v in node.kwargs.items()})
        except Exception as error:
            # A value or constant that the client has not said, unless the test had the node refuse it.
            if isinstance(error, KeyError) and self.node.on_command is None:
                raise
            session.failed[node.id] = InvalidInputError(f"{node.op} failed: {type(error).__name__}."), node.line
            return
        values = dict(enumerate(result)) if isinstance(result, tuple) else {0: result}
        session.values.update({(node.id, output): value for output, value in values.items()})

    def _arg(self, arg: Any) -> Any:
        if isinstance(arg, Ref):
            return self.session.values[arg.node, arg.output]
        if isinstance(arg, Dtype):
            return getattr(torch, arg.name)
        if isinstance(arg, list):
            return [self._arg(item) for item in arg]
        return arg

    async def _get(self, command: m.Get) -> None:
        if command.value.node in self.session.failed:
            error, line = self.session.failed[command.value.node]
            await self.reply(m.Refused(command.ask, error.code, error.message, {}, line))
            return
        if not self.node.permitted:
            raise GetNotPermittedError("Ask for it with .request(reason=...).", possible=["request"])
        await self._deliver(command.ask, *as_bytes(self.session.values[command.value.node, command.value.output]))

    async def _deliver(self, ask: int, kind: str, header: m.TensorHeader, data: bytes) -> None:
        if len(data) <= m.INLINE_LIMIT:
            await self.reply(m.Answer(ask, kind, header, data))
            return
        transfer = next(self.session.transfers)
        self.session.downloads[transfer] = Download(data)
        await self.reply(m.Answer(ask, kind, header, None, transfer, hashlib.sha256(data).hexdigest()))
        if not self._cut:
            await self._pump(transfer, 0)

    async def _pump(self, transfer: int, acknowledged: int) -> None:
        download = self.session.downloads.get(transfer)
        if download is None:
            return
        if download.sent is None:  # over this socket, this is where to go on
            download.sent = acknowledged
        if acknowledged == len(download.data):
            del self.session.downloads[transfer]
        while download.sent < len(download.data) and download.sent - acknowledged < CHUNKS_IN_FLIGHT * CHUNK_SIZE:
            body = download.data[download.sent : download.sent + CHUNK_SIZE]
            await self._moment("send chunk", (transfer, download.sent))
            if self._cut:
                return
            await self._put(pack_chunk(transfer, download.sent, body))
            download.sent += len(body)

    async def _chunk(self, transfer: int, offset: int, body: memoryview) -> None:
        session = self.session
        await self._moment("chunk", (transfer, offset))
        if self._cut or transfer not in session.uploading:  # of a session that was lost
            return
        command, data = session.uploading[transfer]
        assert offset == len(data), "an upload goes on where it was acknowledged"
        data += body
        if len(data) == command.nbytes:
            if command.purpose != "constant":
                assert hashlib.sha256(data).hexdigest() == command.sha256
            del session.uploading[transfer]
            session.uploads[transfer] = bytes(data)
            if command.purpose == "constant":
                assert command.header is not None
                assert command.name not in session.constants, "a constant is said once a session"
                assert tensor_digest(command.header.dtype, command.header.shape, data) == command.name
                session.constants[command.name] = as_tensor(command.header, bytes(data))
        await self.reply(m.Ack(transfer, len(data)))
