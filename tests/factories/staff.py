"""People of a live node, and a node that runs by itself: for tests that need settings or a log of their own."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from gridclient.wire import messages as m
from gridsite.deployment import Deployment
from gridsite.server import listen
from tests.factories import databases
from tests.factories.grid import PATIENCE, Server, stop
from tests.factories.raw import RawClient, rest, sign_in

PASSWORD = "correct horse battery"
names = (f"person-{number}" for number in count(1))
"""Names that nobody on the live grid has yet, for accounts and datasets."""


@dataclass
class Staff:
    """Accounts of one live node by name; each call is made with the caller's own token."""

    server: Server
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens[self.server.username] = sign_in(self.server.url, self.server.username, self.server.password)

    @property
    def url(self) -> str:
        return self.server.url

    def hire(self, name: str, *roles: str) -> str:
        """Make an account and sign it in; returns its token."""
        account = {"username": name, "password": PASSWORD, "roles": list(roles)}
        self.call(self.server.username, "POST", "users/", account)
        self.tokens[name] = sign_in(self.url, name, PASSWORD)
        return self.tokens[name]

    def call(self, name: str, method: str, path: str, body: Any = None) -> Any:
        """One REST call that must succeed; its JSON."""
        status, answer = rest(method, f"{self.url}/api/{path}", body, token=self.tokens[name])
        assert status < 300, (status, answer)
        return answer

    def client(self, name: str) -> RawClient:
        return RawClient(self.url, self.tokens[name])

    def give(self, owner: str, dataset: dict[str, Any], to: str, right: str, columns: list[str] | None = None) -> int:
        """Give a grant; returns its id."""
        body = {"to": to, "right": right, "columns": columns, "reason": "A test."}
        return int(self.call(owner, "POST", f"datasets/{dataset['slug']}/grants/", body)["id"])

    def events(self, verb: str = "") -> list[dict[str, Any]]:
        """The audit log, oldest first, all of it or the events of one verb."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.call(self.server.username, "GET", f"audit/?limit=1000&after={after}")
            found += page["results"]
            if page["next"] is None:
                return [event for event in reversed(found) if verb in ("", event["verb"])]
            after = page["next"]


def publish_table(client: RawClient, table: pa.Table, columns: Sequence[m.Column], ask: int, **spec: Any) -> Any:
    """Publish a table; returns its public metadata."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    transfer = client.upload(sink.getvalue().to_pybytes(), "values")
    declared = m.PublishSpec(kind="table", columns=list(columns), **spec)
    return client.ask(m.Publish(ask, declared, transfer)).dataset


@contextmanager
def single_node(folder: Path, name: str = "vault", **settings: str) -> Iterator[Server]:
    """A node without a network in `folder / name`, its output in `server.log`; `settings` are its GRID_ variables."""
    databases.prepare(folder, [name])
    with listen("127.0.0.1", 0) as listener:
        own = databases.settings_of(folder / name) | settings
        deployment = Deployment("node", name, folder / name, url_of(listener), settings=own)
        process = start_process(deployment, listener)
    try:
        yield server_of(deployment, deployment.url)
    finally:
        stop(process)


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def start_process(deployment: Deployment, listener: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
    """The process of a deployment whose first account is `admin`."""
    deployment.folder.mkdir(parents=True, exist_ok=True)
    credentials = deployment.folder.parent / "credentials.json"
    credentials.write_text(json.dumps({deployment.name: {"username": "admin", "password": PASSWORD}}))
    with (deployment.folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            deployment.command("--fd", str(listener.fileno()), "--credentials", str(credentials), *arguments),
            env=deployment.environment(),
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def server_of(deployment: Deployment, url: str) -> Server:
    """A deployment at one of its addresses, as soon as it answers there."""
    # The socket listens already: this call waits in line until the node is up.
    assert rest("GET", f"{url}/api/identity/", timeout=PATIENCE)[0] == 200
    return Server(deployment.name, url, "admin", PASSWORD)
