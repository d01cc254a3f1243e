"""A client without the SDK's checks: it says on the wire whatever a test wants said."""

from __future__ import annotations

import hashlib
import json
import socket
import urllib.error
import urllib.request
from itertools import count
from typing import Any

import numpy as np
from safetensors.numpy import load, save
from websockets.sync.client import connect

from gridclient.program.graph import ASSET, CONSTANT, Node, Ref, tensor_digest
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import from_code
from gridclient.wire.frames import CHUNK, CHUNK_SIZE, MAX_FRAME, pack_batch, pack_chunk, unpack


def rest(
    method: str,
    url: str,
    body: Any = None,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
) -> tuple[int, Any]:
    """One REST call: status and decoded JSON (None when there is no body). Never raises for a status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text) if text[:1] in b"{[" and text else None


def sign_in(url: str, username: str, password: str) -> str:
    """A session token for an account."""
    status, body = rest("POST", f"{url}/api/sign-in/", {"username": username, "password": password})
    assert status == 200, (status, body)
    return str(body["token"])


def listed_sessions(url: str, token: str) -> dict[str, dict[str, Any]]:
    """The sessions that the token's account may see, by id."""
    status, body = rest("GET", f"{url}/api/sessions/", token=token)
    assert status == 200, (status, body)
    return {row["id"]: row for row in body["results"]}


class RawClient:
    """A websocket session that sends commands as given. Values come back as numpy arrays, errors are raised."""

    def __init__(self, url: str, token: str, **headers: str) -> None:
        self.url, self.token, self._headers = url, token, headers
        self._batches, self._asks, self._ids, self._transfers = count(2), count(1), count(1), count(1)
        self.errors: list[m.Error] = []
        self.seen = 0
        self._open("")

    def _open(self, resume: str) -> None:
        address = self.url.replace("http", "ws", 1) + "/ws/grid/"
        self._opened = connect(address, compression=None, max_size=MAX_FRAME, additional_headers=self._headers)
        self.socket = self._opened.__enter__()
        hello = m.Hello(self.token, m.PROTOCOL_VERSION, OPERATIONS_VERSION, "raw", resume)
        self.socket.send(pack_batch(m.encode(m.ClientBatch(1, [hello], self.seen))))
        batch = m.decode_node(unpack(self.socket.recv(timeout=60, decode=False)).body)
        (self.welcome,) = batch.commands
        if isinstance(self.welcome, m.Goodbye):
            raise from_code(self.welcome.code, self.welcome.message, {})
        self.taken = batch.seen
        """The last of our batches that the node had, when it welcomed us."""

    def lose(self) -> None:
        """The socket is cut, without a goodbye."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)
        self._opened.__exit__(None, None, None)

    def come_back(self, resume: str | None = None) -> None:
        """Over a new socket, with the token of the last welcome or another one."""
        self._open(self.welcome.resume if resume is None else resume)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__(None, None, None)

    def send(self, *commands: Any) -> None:
        self.socket.send(pack_batch(m.encode(m.ClientBatch(next(self._batches), list(commands), self.seen))))

    def receive(self) -> Any:
        """The next command of the node. A chunk is returned as its frame; a goodbye is raised."""
        frame = unpack(self.socket.recv(timeout=60, decode=False))
        if frame.kind == CHUNK:
            return frame
        batch = m.decode_node(frame.body)
        self.seen = max(self.seen, batch.id)
        if not batch.commands:  # says only what has arrived
            return self.receive()
        (command,) = batch.commands
        if isinstance(command, m.Goodbye):
            raise from_code(command.code, command.message, {})
        return command

    def node(self, op: str, *args: Any, outputs: int = 1, **kwargs: Any) -> Ref:
        """Append one node and return its first output."""
        number = next(self._ids)
        self.send(m.Run([Node(number, op, list(args), kwargs, outputs)]))
        return Ref(number)

    def asset(self, dataset: dict[str, Any], part: str = "values") -> Ref:
        return self.node(ASSET, dataset["id"], dataset["version"], part)

    def constant(self, values: Any) -> Ref:
        array = np.ascontiguousarray(values)
        data, dtype = array.tobytes(), str(array.dtype)
        digest = tensor_digest(dtype, array.shape, data)
        header = m.TensorHeader(dtype, list(array.shape), len(data))
        if len(data) > m.INLINE_CONSTANT_LIMIT:
            self.upload(data, "constant", digest, header)
        else:
            self.send(m.Constant(digest, header, data))
        return self.node(CONSTANT, digest)

    def upload(self, data: bytes, purpose: str, name: str = "", header: m.TensorHeader | None = None) -> int:
        """Upload bytes, one chunk at a time; returns the transfer's number."""
        transfer = next(self._transfers)
        sha256 = "" if purpose == "constant" else hashlib.sha256(data).hexdigest()
        self.send(m.Upload(transfer, len(data), sha256, purpose, name, header))
        self._acknowledged(transfer)
        for offset in range(0, len(data), CHUNK_SIZE):
            self.socket.send(pack_chunk(transfer, offset, data[offset : offset + CHUNK_SIZE]))
            self._acknowledged(transfer)
        return transfer

    def _acknowledged(self, transfer: int) -> None:
        while True:
            reply = self.receive()
            if isinstance(reply, m.Error):
                raise from_code(reply.code, reply.message, reply.details)
            if isinstance(reply, m.Ack) and reply.transfer == transfer:
                return

    def ask(self, command: Any) -> Any:
        """Send a question and wait for its answer. A refusal is raised; errors outside asks are kept in `errors`."""
        self.send(command)
        while True:
            reply = self.receive()
            if isinstance(reply, m.Error):
                self.errors.append(reply)
                if not hasattr(command, "ask") or self.errors[-1].transfer == 0:
                    raise from_code(reply.code, reply.message, reply.details)
            elif getattr(reply, "ask", None) == command.ask:
                if isinstance(reply, m.Refused):
                    raise from_code(reply.code, reply.message, reply.details)
                return reply

    def get(self, value: Ref) -> np.ndarray:
        """The value as an array."""
        return self._value(self.ask(m.Get(next(self._asks), value)))

    def take(self, module: str, values: dict[str, Ref]) -> dict[str, np.ndarray]:
        """The state of a module, by name."""
        asked = m.Take(next(self._asks), module, list(values), list(values.values()))
        return dict(load(self._value(self.ask(asked)).tobytes()))

    def request_state(self, module: str, values: dict[str, Ref], reason: str = "A study.") -> str:
        names, refs = list(values), list(values.values())
        return str(self.ask(m.Request(next(self._asks), refs[0], reason, module, names, refs)).request)

    def fetch(self, request: str) -> np.ndarray:
        return self._value(self.ask(m.Fetch(next(self._asks), request)))

    def request(self, value: Ref, reason: str = "A study.", key: str = "") -> str:
        return str(self.ask(m.Request(next(self._asks), value, reason, key=key)).request)

    def _value(self, answer: m.Answer) -> np.ndarray:
        data = answer.data
        if data is None:
            parts = bytearray()
            while len(parts) < answer.header.nbytes:
                frame = self.receive()
                assert frame.transfer == answer.transfer and frame.offset == len(parts)
                parts += frame.body
                self.send(m.Ack(answer.transfer, len(parts)))
            data = bytes(parts)
            assert hashlib.sha256(data).hexdigest() == answer.sha256
        return np.frombuffer(data, dtype=answer.header.dtype).reshape(answer.header.shape)

    def publish(self, values: Any, key: str = "", **spec: Any) -> dict[str, Any]:
        """Publish a tensor; returns its public metadata."""
        transfer = self.upload(save({"values": np.ascontiguousarray(values)}), "values")
        declared = m.PublishSpec(kind="tensor", **spec)
        return dict(self.ask(m.Publish(next(self._asks), declared, transfer, key=key)).dataset)

    def keep_plan(self, data: bytes, key: str = "", *, allow_download: bool = False) -> dict[str, Any]:
        """Send a plan; returns what is told of it."""
        transfer = self.upload(data, "plan")
        return dict(self.ask(m.Plan(next(self._asks), transfer, allow_download, key)).plan)
