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
from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa
import safetensors.torch
import torch
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from tests.sdk.fake_session import FakeSession, Talk

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
        self.greetings = 0
        """Sockets that were welcomed."""
        self.kept: dict[str, FakeSession] = {}
        """By the token that goes on with them."""
        self.done: dict[str, Any] = {}
        """Replies to asks that carry a key."""
        self.plans: list[bytes] = []
        self.wrong: list[str] = []
        """What the client did against the protocol."""
        self.turned_away: list[m.Goodbye] = []
        """What the next hellos get instead of a welcome."""
        self.happens: Callable[[str, Any], str | None] = lambda moment, what: None
        """Called at each moment of a socket, see `fake_session`. Gives "cut", "forget" (cut, and the session is gone),
        "lose" (the worker ends) or None."""
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

    def publish(self, command: m.Publish, uploads: dict[int, bytes]) -> dict[str, Any]:
        """Keep what was uploaded as a dataset."""
        self.published.append(command)
        self.uploads |= uploads
        raw, spec = self.uploads[command.values], command.spec
        values = safetensors.torch.load(raw)["values"] if spec.kind == "tensor" else pa.ipc.open_stream(raw).read_all()
        columns = [
            {"name": c.name, "kind": c.kind, "low": c.low, "high": c.high, "categories": c.categories}
            for c in spec.columns
        ]
        return self.add(spec.name or "unnamed", values, columns, description=spec.description, tags=spec.tags)

    def keep(self, plan: bytes) -> dict[str, Any]:
        """Keep an uploaded plan."""
        self.plans.append(plan)
        return {"name": f"plan-{len(self.plans)}", "nbytes": len(plan)}

    def ask_for(self, command: m.Request, value: Any) -> str:
        """Put a request with its answer into the queue."""
        id = f"request-{len(self.requests) + 1}"
        self.requests[id] = {
            "id": id, "state": "submitted", "reason": command.reason, "requester": "bob", "words": "the sum",
            "decision_reason": "", "updated": "2026-02-01T00:00:00Z", "answered_at": None, "failure": "",
        }  # fmt: skip
        self.values[id] = value
        return id

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
    assert not node.wrong, node.wrong


def _me(user: str) -> dict[str, Any]:
    return {"id": "1", "username": user, "roles": ["scientist"], "rights": ["compute.use"]}


def _error(status: int, code: str, message: str) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": message, "details": {}}}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
