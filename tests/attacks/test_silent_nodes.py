"""Attack 20: nodes that accept and never answer, drip, flood or lie. What a user would lose: every search of the grid.

On the original system one such node froze the network's whole gateway.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from apps.network import messages, signing
from gridsite.deployment import Deployment
from gridsite.server import listen
from tests.factories import databases
from tests.factories.grid import Server, stop
from tests.factories.network import acting_as, metadata
from tests.factories.raw import rest, sign_in
from tests.factories.staff import server_of, start_process, url_of


class Hostile:
    """A server that accepts everybody, and then does what it was made for."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = url_of(self._listener)
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._one, args=[self._listener.accept()[0]], daemon=True).start()

    def _one(self, caller: socket.socket) -> None:
        with caller, suppress(OSError):
            self._behave(caller)
            self.ended.wait(30)

    def close(self) -> None:
        self.ended.set()
        self._listener.close()


def says(text: bytes, body: bytes = b"") -> Callable[[socket.socket], None]:
    def behave(caller: socket.socket) -> None:
        caller.recv(4096)
        caller.sendall(text + body)

    return behave


def drips(caller: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000:
        caller.send(bytes([byte]))
        time.sleep(0.05)


def floods(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        caller.sendall(bytes(2**16))


_LIE = json.dumps(
    {"role": "node", "name": "hospital", "id": "hospital", "protocol": 1, "operations": 1, "public_key": "ab" * 32,
     "signature": "cd" * 64}
).encode()  # fmt: skip
BEHAVIOURS: dict[str, Callable[[socket.socket], None]] = {
    "silent": lambda caller: None,
    "dripping": drips,
    "flooding": floods,
    "lying": says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_LIE), _LIE),
    "redirecting": says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    "speaking nonsense": says(b"\0" * 4096),
}


@dataclass
class Network:
    server: Server
    operator: str
    key: str
    nodes: dict[str, Hostile]
    latencies: list[float] = field(default_factory=list)

    def search(self, *terms: str) -> list[Any]:
        """What a guest finds; how long it took is kept."""
        begin = time.perf_counter()
        query = "&".join(f"q={quote(term)}" for term in terms)
        status, body = rest("GET", f"{self.server.url}/api/search/?{query}")
        self.latencies.append(time.perf_counter() - begin)
        assert status == 200, body
        return list(body["results"])

    def decide(self, node: str, verb: str) -> tuple[int, Any]:
        return rest("POST", f"{self.server.url}/api/nodes/{node}/{verb}/", {"reason": "A test."}, token=self.operator)

    def post(self, name: str, path: str, body: bytes) -> tuple[int, Any]:
        """A request that the node `name` signs."""
        with acting_as(name):
            headers = signing.sign_request("POST", path, body, audience=self.key, now=datetime.now(UTC))
        parts = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request("POST", path, body, {**headers, "Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@pytest.fixture
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    nodes = {name.replace(" ", "-"): Hostile(behave) for name, behave in BEHAVIOURS.items()}
    folder = tmp_path_factory.mktemp("gateway")
    databases.prepare(folder, ["gateway"])
    with listen("127.0.0.1", 0) as listener:
        settings = databases.settings_of(folder / "gateway") | {"GRID_GUEST_SEARCH": "true"}
        allowed = tuple(urlsplit(node.url).netloc for node in nodes.values())
        deployment = Deployment(
            "network", "gateway", folder / "gateway", url_of(listener), outbound=allowed, settings=settings
        )
        process = start_process(deployment, listener)
    try:
        server = server_of(deployment, deployment.url)
        operator = sign_in(server.url, server.username, server.password)
        key = rest("GET", f"{server.url}/api/identity/")[1]["public_key"]
        yield Network(server, operator, key, nodes)
    finally:
        for node in nodes.values():
            node.close()
        stop(process)


def test_nodes_that_never_answer_drip_flood_or_lie_slow_nobody_down(network: Network) -> None:
    for name, node in network.nodes.items():
        with acting_as(name) as own:
            wanted = messages.Join(id=name, name=name.title(), url=node.url, public_key=own)
        assert network.post(name, "/api/nodes/", msgspec.json.encode(wanted))[0] == 200
    for _ in range(30):
        network.search("births")
    before = statistics.median(network.latencies)
    network.latencies.clear()

    told: dict[str, tuple[int, Any]] = {}

    def approve(name: str) -> None:
        told[name] = network.decide(name, "approve")

    def flood() -> None:
        """Whoever is no member announces without end."""
        source = random.Random(20)
        while len(told) < len(network.nodes):
            put = [msgspec.Raw(msgspec.json.encode(metadata(source.randrange(10**6)))) for _ in range(100)]
            push = messages.Push(base=None, revision=source.randrange(10**6), put=put)
            announced.append(network.post("silent", "/api/announcements/", msgspec.json.encode(push)))
            time.sleep(0.01)

    announced: list[tuple[int, Any]] = []
    threads = [threading.Thread(target=approve, args=[name]) for name in network.nodes]
    threads.append(threading.Thread(target=flood))
    for thread in threads:
        thread.start()
    end = time.monotonic() + 25
    while (any(thread.is_alive() for thread in threads) and time.monotonic() < end) or len(network.latencies) < 30:
        assert network.search("births") == []
        time.sleep(0.02)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

    during = statistics.median(network.latencies)
    figures = f"{1e3 * before:.1f} ms before, {1e3 * during:.1f} ms during, at most {max(network.latencies):.2f} s"
    # Generous: a machine with two cores has six approvals and a flood to serve beside it.
    assert during < 20 * before + 0.1 and max(network.latencies) < 8, figures
    for name, (status, body) in told.items():
        assert status >= 400 and body["error"]["code"] != "internal", (name, body)
    assert announced and all(status < 500 and not body.get("in_step") for status, body in announced)
    listed = rest("GET", f"{network.server.url}/api/nodes/", token=network.operator)[1]["results"]
    assert {row["state"] for row in listed} == {"pending"}
