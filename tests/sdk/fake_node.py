"""A deployment that speaks the wire and the REST interface, without rules: what the SDK's own tests talk to.

It runs under uvicorn with the protocol of the real server, keeps everything in memory, and notes all that it hears.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa
import safetensors.torch
import torch
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gridclient.program.graph import ASSET, CONSTANT, Dtype, Node, Ref
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError, GridError, InvalidInputError
from gridclient.wire.frames import CHUNK, CHUNK_SIZE, CHUNKS_IN_FLIGHT, pack_batch, pack_chunk, unpack
from tests.sdk.fake_values import as_bytes, as_tensor

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class FakeNode:
    """State and behaviour that a test may change while it runs."""

    def __init__(self, role: str = "node", id: str = "hospital") -> None:
        self.role, self.id = role, id
        self.protocol = m.PROTOCOL_VERSION
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw().hex()
        self.passwords = {"bob": "correct horse"}
        self.tokens: dict[str, str] = {"grd_12345678_bob": "bob"}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}
        self.permitted = False
        self.requests: dict[str, dict[str, Any]] = {}
        self.results: list[dict[str, Any]] = []  # of a network's search
        self.published: list[m.Publish] = []
        self.uploads: dict[int, bytes] = {}
        self.commands: list[Any] = []
        self.calls: list[tuple[str, str, Any, str]] = []
        self.sessions = 0
        self.unknown_route: tuple[int, Any] = (
            404,
            {"error": {"code": "not_found", "message": "There is no such thing."}},
        )
        self.on_command: Callable[[Any], list[Any] | None] | None = None
        self.url = ""

    def add(
        self, slug: str, values: torch.Tensor | pa.Table, columns: list[dict[str, Any]], **more: Any
    ) -> dict[str, Any]:
        """A dataset whose values are served."""
        tensor = isinstance(values, torch.Tensor)
        shape = list(values.shape) if isinstance(values, torch.Tensor) else [values.num_rows, values.num_columns]
        metadata = {
            "id": f"id-{slug}", "slug": slug, "name": slug.title(), "description": "Of the ward.", "tags": ["#Births"],
            "visibility": "listed", "version": 1, "kind": "tensor" if tensor else "table", "shape": shape,
            "dtype": str(values.dtype).removeprefix("torch.") if isinstance(values, torch.Tensor) else "",
            "rows_public": True, "columns": columns, "max_rows_per_entity": 1, "entities": "rows", "missing": "refuse",
            "created": "2026-02-01T00:00:00Z", "sequence": "s", "rights": ["discover", "compute"], **more,
        }  # fmt: skip
        self.datasets[slug], self.values[metadata["id"]] = metadata, values
        return metadata

    # --- REST ---------------------------------------------------------------------------------------------------

    def rest(self, method: str, path: str, query: dict[str, list[str]], body: Any, token: str) -> tuple[int, Any]:
        self.calls.append((method, path, body, token))
        user = self.tokens.get(token)
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["identity"]:
                challenge = bytes.fromhex(query.get("challenge", [""])[0])
                return 200, {
                    "role": self.role, "name": self.id.title(), "id": self.id, "protocol": self.protocol,
                    "operations": OPERATIONS_VERSION, "public_key": self.public_key,
                    "signature": self.key.sign(b"gridsite/identity/1\n" + challenge + self.url.encode()).hex(),
                }  # fmt: skip
            case "POST", ["sign-in"]:
                if self.passwords.get(body["username"]) != body["password"]:
                    return _error(401, "authentication", "Wrong username or password.")
                return 200, self._signed_in(body["username"])
            case "POST", ["challenge"]:
                return 200, {"challenge": "ab" * 88}
            case "POST", ["sign-in", "assertion"]:
                return self._assertion(body)
            case "GET", ["search"]:
                return 200, {"results": self.results, "next": None}
        if user is None:
            return _error(401, "authentication", "Say who you are.")
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["me"]:
                return 200, {**_me(user), "node": {"id": self.id, "name": self.id.title()}}
            case "POST", ["sign-out"]:
                del self.tokens[token]
                return 204, None
            case "POST", ["assertions"]:
                assertion = {"username": user, "session_key": body["session_key"], "node": body["node"], "name": "Zoë"}
                signature = self.key.sign(b"gridsite/assertion/1\n" + _canonical(assertion)).hex()
                return 200, {"assertion": assertion, "signature": signature}
            case "GET", ["datasets"]:
                terms = query.get("q", [])
                found = [d for d in self.datasets.values() if set(terms) <= set(d["tags"])]
                start, size = int(query.get("after", ["0"])[0]), int(query["limit"][0])
                more = start + size < len(found)
                return 200, {"results": found[start : start + size], "next": str(start + size) if more else None}
            case "GET", ["datasets", slug] if slug in self.datasets:
                return 200, self.datasets[slug]
            case "GET", ["requests"]:
                wanted = query.get("state")
                found = [r for r in self.requests.values() if not wanted or r["state"] in wanted]
                return 200, {"results": found, "next": None}
            case "GET", ["requests", id] if id in self.requests:
                return 200, self.requests[id]
            case "POST", ["requests", id, verb]:
                states = {"approve": "approved", "deny": "denied", "withdraw": "withdrawn"}
                self.requests[id] |= {"state": states[verb], "decision_reason": (body or {}).get("reason", "")}
                return 200, self.requests[id]
            case "GET", ["audit", "verify"]:
                return 200, {"ok": False, "events": 7, "first_bad": 3, "problem": "Event 3 was changed."}
            case "POST", ["users"]:
                return 201, {"id": "1", "username": body["username"], "roles": body["roles"], "active": True}
            case "POST", ["tokens"]:
                made = {"prefix": "abcdefgh", "token": "grd_abcdefgh_secret"}
                return 201, {**made, **{key: body[key] for key in ("name", "user", "expires")}}
            case "POST", ["datasets", slug, "grants"]:
                return 201, {"id": 5, "dataset": slug, **body}
            case "PATCH", ["datasets", slug]:
                return 200, self.datasets[slug] | body
            case ("PATCH", _) | ("DELETE", _):
                return 200, {**(body or {}), "slug": path.split("/")[3]}
        return self.unknown_route

    def _signed_in(self, user: str) -> dict[str, Any]:
        token = f"grd_{os.urandom(4).hex()}_session"
        self.tokens[token] = user
        return {"token": token, "expires": "2030-01-01T00:00:00Z", "user": _me(user)}

    def _assertion(self, body: dict[str, Any]) -> tuple[int, Any]:
        session = Ed25519PublicKey.from_public_bytes(bytes.fromhex(body["assertion"]["session_key"]))
        stated = hashlib.sha256(_canonical(body["assertion"])).digest()
        # Raises, and so answers 500, unless the proof is good.
        session.verify(bytes.fromhex(body["proof"]), b"gridsite/proof/1\n" + bytes.fromhex(body["challenge"]) + stated)
        return 200, self._signed_in(f"{body['assertion']['username']}@net")

    # --- ASGI ---------------------------------------------------------------------------------------------------

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await Talk(self, receive, send).serve()
            return
        assert scope["type"] == "http"
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        query = parse_qs(scope["query_string"].decode())
        status, answer = self.rest(scope["method"], scope["path"], query, json.loads(raw) if raw else None, token)
        text = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        headers = [(b"location", b"http://127.0.0.1:9/")] if 300 <= status < 400 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class Talk:
    """One websocket session."""

    def __init__(self, node: FakeNode, receive: Receive, send: Send) -> None:
        self.node, self._receive, self._send = node, receive, send
        self._ids, self._transfers = count(1), count(1)
        self._values: dict[tuple[int, int], Any] = {}
        self._failed: dict[int, tuple[GridError, str]] = {}
        self._constants: dict[str, torch.Tensor] = {}
        self._open: dict[int, tuple[m.Upload, bytearray]] = {}
        self._sending: dict[int, bytes] = {}
        self._last = 0

    async def serve(self) -> None:
        await self._receive()
        await self._send({"type": "websocket.accept"})
        while (message := await self._receive())["type"] == "websocket.receive":
            frame = unpack(message["bytes"])
            if frame.kind == CHUNK:
                await self._chunk(frame.transfer, frame.offset, frame.body)
                continue
            batch = m.decode_client(frame.body)
            assert batch.id > self._last
            self._last = batch.id
            for command in batch.commands:
                self.node.commands.append(command)
                if self.node.on_command is not None and (replies := self.node.on_command(command)) is not None:
                    await self.reply(*replies)
                    continue
                if isinstance(command, m.Bye):
                    return
                try:
                    await self._command(command)
                except GridError as error:
                    await self.reply(m.Refused(getattr(command, "ask", 0), error.code, error.message, error.details))

    async def reply(self, *commands: Any) -> None:
        if commands:
            body = pack_batch(m.encode(m.NodeBatch(next(self._ids), list(commands))))
            await self._send({"type": "websocket.send", "bytes": body})

    async def _command(self, command: Any) -> None:
        node = self.node
        match command:
            case m.Hello():
                user = node.tokens.get(command.token)
                if user is None:
                    await self.reply(m.Goodbye("authentication", "This token is not known."))
                    await self._send({"type": "websocket.close", "code": 4401})
                    return
                node.sessions += 1
                await self.reply(
                    m.Welcome("s", node.protocol, OPERATIONS_VERSION, node.id, node.id, user, ["compute.use"], {})
                )
            case m.Upload():
                self._open[command.transfer] = command, bytearray()
                await self.reply(m.Ack(command.transfer, 0))
            case m.Constant():
                self._constants[command.digest] = as_tensor(command.header, command.data)
            case m.Run():
                for program_node in command.nodes:
                    self._run(program_node)
            case m.Get():
                await self._get(command)
            case m.Request():
                id = f"request-{len(node.requests) + 1}"
                node.requests[id] = {
                    "id": id, "state": "submitted", "reason": command.reason, "requester": "bob", "words": "the sum",
                    "decision_reason": "", "updated": "2026-02-01T00:00:00Z", "answered_at": None, "failure": "",
                    "value": self._values[command.value.node, command.value.output],
                }  # fmt: skip
                value = node.requests[id].pop("value")
                node.values[id] = value
                await self.reply(m.Submitted(command.ask, id))
            case m.Fetch():
                await self._deliver(command.ask, node.values[command.request])
            case m.Publish():
                node.published.append(command)
                await self.reply(m.Published(command.ask, self._published(command)))
            case m.Ack():
                await self._pump(command.transfer, command.offset)

    def _published(self, command: m.Publish) -> dict[str, Any]:
        raw, spec = self.node.uploads[command.values], command.spec
        values = safetensors.torch.load(raw)["values"] if spec.kind == "tensor" else pa.ipc.open_stream(raw).read_all()
        columns = [
            {"name": c.name, "kind": c.kind, "low": c.low, "high": c.high, "categories": c.categories}
            for c in spec.columns
        ]
        return self.node.add(spec.name or "unnamed", values, columns, description=spec.description, tags=spec.tags)

    def _run(self, node: Node) -> None:
        values: dict[int, Any]
        try:
            if node.op == ASSET:
                result = self.node.values[node.args[0]]
                if node.args[2] == "mock":
                    result = result.slice(0, 1) if isinstance(result, pa.Table) else result[:1] * 0
            elif node.op == CONSTANT:
                result = self._constants[node.args[0]]
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
            self._failed[node.id] = InvalidInputError(f"{node.op} failed: {type(error).__name__}."), node.line
            return
        values = dict(enumerate(result)) if isinstance(result, tuple) else {0: result}
        self._values.update({(node.id, output): value for output, value in values.items()})

    def _arg(self, arg: Any) -> Any:
        if isinstance(arg, Ref):
            return self._values[arg.node, arg.output]
        if isinstance(arg, Dtype):
            return getattr(torch, arg.name)
        if isinstance(arg, list):
            return [self._arg(item) for item in arg]
        return arg

    async def _get(self, command: m.Get) -> None:
        if command.value.node in self._failed:
            error, line = self._failed[command.value.node]
            await self.reply(m.Refused(command.ask, error.code, error.message, {}, line))
            return
        if not self.node.permitted:
            raise GetNotPermittedError("Ask for it with .request(reason=...).", possible=["request"])
        await self._deliver(command.ask, self._values[command.value.node, command.value.output])

    async def _deliver(self, ask: int, value: Any) -> None:
        kind, header, data = as_bytes(value)
        if len(data) <= m.INLINE_LIMIT:
            await self.reply(m.Answer(ask, kind, header, data))
            return
        transfer = next(self._transfers)
        self._sending[transfer] = data
        self._sent = 0
        await self.reply(m.Answer(ask, kind, header, None, transfer, hashlib.sha256(data).hexdigest()))
        await self._pump(transfer, 0)

    async def _pump(self, transfer: int, acknowledged: int) -> None:
        data = self._sending.get(transfer, b"")
        while self._sent < len(data) and self._sent - acknowledged < CHUNKS_IN_FLIGHT * CHUNK_SIZE:
            body = data[self._sent : self._sent + CHUNK_SIZE]
            await self._send({"type": "websocket.send", "bytes": pack_chunk(transfer, self._sent, body)})
            self._sent += len(body)

    async def _chunk(self, transfer: int, offset: int, body: memoryview) -> None:
        command, data = self._open[transfer]
        assert offset == len(data)
        data += body
        if len(data) == command.nbytes:
            assert hashlib.sha256(data).hexdigest() == command.sha256
            self.node.uploads[transfer] = bytes(data)
            if command.purpose == "constant":
                assert command.header is not None
                self._constants[command.name] = as_tensor(command.header, bytes(data))
        await self.reply(m.Ack(transfer, len(data)))


@contextmanager
def running(node: FakeNode) -> Iterator[FakeNode]:
    """Serve the node on a free port of this machine."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        node, ws="websockets-sansio", ws_max_size=8 * 2**20, ws_per_message_deflate=False, lifespan="off",
        log_level="critical", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    node.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    while not server.started:
        time.sleep(0.005)
    try:
        yield node
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def _me(user: str) -> dict[str, Any]:
    return {"id": "1", "username": user, "roles": ["scientist"], "rights": ["compute.use"]}


def _error(status: int, code: str, message: str) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": message, "details": {}}}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
