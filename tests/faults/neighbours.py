"""What a node leans on, killed beside it: its PostgreSQL, and the process of its network."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2

import gridclient
from gridsite.deployment import Deployment, host_and_port
from gridsite.server import listen
from tests.factories import databases, processes
from tests.factories.grid import PATIENCE, stop
from tests.factories.raw import rest
from tests.factories.staff import PASSWORD, start_process, url_of
from tests.faults.books import DONE, Books
from tests.faults.ground import Ground, Rows, ground_in, until


@dataclass
class Place:
    """A node, the harm that comes to its neighbour, and what must hold of that one after a storm."""

    ground: Ground
    harm: dict[str, Callable[[], Any]] = field(default_factory=dict)
    check: Callable[[Books], None] = lambda books: None


@contextmanager
def alone(folder: Path) -> Iterator[Place]:
    """A node that leans on nothing."""
    with ground_in(folder) as ground:
        yield Place(ground)


@contextmanager
def on_postgres(folder: Path) -> Iterator[Place]:
    """A node on a PostgreSQL of its own, which is killed as a power cut would, and started again."""
    (folder / "postgres").mkdir()
    server = databases.postgres_in(folder / "postgres")
    host = databases.host_of(server)

    def query(sql: str) -> Rows:
        with (
            closing(psycopg2.connect(host=host, user="postgres", dbname="postgres")) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return list(cursor.fetchall())

    def kill() -> None:
        first = server.get_pid()
        served = processes.children(first)
        os.kill(first, signal.SIGKILL)
        # What served its clients ends a moment later, with the memory that they share; another one starts after that.
        assert until(lambda: not any(map(processes.running, served)), PATIENCE)
        # Where nobody collects it, the killed process still seems to be there.
        (folder / "postgres" / "postmaster.pid").unlink()
        assert until(started, PATIENCE), "PostgreSQL does not start again."

    def started() -> bool:
        with suppress(subprocess.SubprocessError):
            server.ensure_postgres_running()
            return True
        return False

    address = f"postgres://postgres@/postgres?host={quote(host, safe='')}"
    try:
        with ground_in(folder, query=query, GRID_DATABASE_URL=address) as ground:
            yield Place(ground, {"postgres": kill})
    finally:
        server.stop()


class Network:
    """A network whose process is killed and started again at one address."""

    def __init__(self, folder: Path, listener: Any) -> None:
        url = url_of(listener)
        own = {"GRID_GUEST_SEARCH": "true", **databases.settings_of(folder / "network")}
        self.deployment = Deployment("network", "network", folder / "network", url, settings=own)
        self.listener = listener
        self.process = start_process(self.deployment, listener)
        self._starting = threading.Lock()

    def allow(self, address: str) -> None:
        """Let it call a node on this machine."""
        self.deployment.settings["GRID_OUTBOUND_ALLOW"] = address

    def kill(self) -> None:
        with self._starting:
            self.process.kill()
            self.process.wait()
            self.process = start_process(self.deployment, self.listener)

    def admit(self, name: str) -> None:
        """Let the node in, as soon as it has asked."""
        with gridclient.connect_network(self.deployment.url, username="admin", password=PASSWORD) as operator:
            assert until(lambda: name in {node.id for node in operator.nodes()}, PATIENCE)
            operator.approve_node(name, "It is ours.")

    def check(self, books: Books) -> None:
        """What was published is found, in its newest version; and the network's own log holds."""
        assert rest("GET", f"{self.deployment.url}/api/identity/", timeout=PATIENCE)[0] == 200
        wanted = {name for (kind, name), told in books.told.items() if kind == "dataset" and told == DONE}
        with gridclient.connect_network(self.deployment.url, username="admin", password=PASSWORD) as operator:
            found = until(lambda: wanted <= {each.name for each in operator.iter_datasets()}, PATIENCE)
            assert found, wanted - {each.name for each in operator.iter_datasets()}
            assert operator.audit(verify=True)


@contextmanager
def in_network(folder: Path) -> Iterator[Place]:
    """A node that belongs to a network."""
    databases.prepare(folder, ["network"])
    with listen("127.0.0.1", 0) as listener:
        network = Network(folder, listener)
        try:
            url = network.deployment.url
            assert rest("GET", f"{url}/api/identity/", timeout=PATIENCE)[0] == 200
            with ground_in(folder, GRID_NETWORK_URL=url, GRID_OUTBOUND_ALLOW=host_and_port(url)) as ground:
                network.allow(host_and_port(ground.deployment.url))
                network.kill()
                network.admit("ward")
                yield Place(ground, {"network": network.kill}, network.check)
        finally:
            stop(network.process, seconds=30)


PLACES = {"alone": alone, "postgres": on_postgres, "network": in_network}
