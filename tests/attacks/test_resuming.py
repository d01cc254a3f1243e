"""A session that outlives its socket must leave nothing behind, keep nobody's place and touch nobody else's worker.

What a node would lose: its memory, its disk and its descriptors to one account with a token; or another user's session.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.program.graph import Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, LimitExceededError
from gridclient.wire.frames import CHUNK_SIZE, pack_batch, pack_chunk
from tests.factories import processes
from tests.factories.raw import RawClient
from tests.factories.sockets import goes_on, hello, open_socket, take_chunk
from tests.factories.staff import Staff, single_node


@dataclass(frozen=True)
class Alone:
    """A node of its own, so that whatever is left behind is of these tests."""

    staff: Staff
    folder: Path
    pid: int

    def client(self, name: str = "scientist") -> RawClient:
        return self.staff.client(name)

    @property
    def workers(self) -> set[int]:
        return processes.workers(self.pid)

    @property
    def folders(self) -> set[str]:
        place = self.folder / "storage" / "sessions"
        return set(os.listdir(place)) if place.exists() else set()

    @property
    def sockets(self) -> int:
        """Descriptors that the web process has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def nothing_left(self) -> None:
        processes.wait_until(lambda: not self.workers and not self.folders, 20, f"{self.workers} {self.folders}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    folder = tmp_path_factory.mktemp("alone")
    with single_node(folder, GRID_MAX_UPLOAD=str(2**24)) as server:
        staff = Staff(server)
        staff.hire("scientist", "scientist")
        staff.hire("owner", "owner")
        yield Alone(staff, folder / server.name, processes.server(folder / server.name))


@pytest.fixture(autouse=True)
def nothing_is_left(alone: Alone) -> Iterator[None]:
    yield
    alone.nothing_left()


def test_a_program_that_is_left_together_with_the_session_leaves_no_worker(alone: Alone) -> None:
    with alone.client() as client:
        goes_on(client)
        client.send(m.Begin(), m.Bye())


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_who_leaves_while_a_worker_starts_leaves_nothing_and_takes_nobody_elses(alone: Alone, delay: float) -> None:
    with alone.client() as hasty:
        hasty.send(m.Get(1, Ref(1)))
        time.sleep(delay)
        hasty.send(m.Bye())
    with alone.client("owner") as victim:
        goes_on(victim)
        with alone.client() as other:
            goes_on(other)
            other.send(m.Bye())
        goes_on(victim)
        time.sleep(0.05)
        assert len(alone.workers) == 1
        goes_on(victim)
        victim.send(m.Bye())


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_a_revocation_while_a_worker_starts_leaves_none(alone: Alone, delay: float) -> None:
    token = alone.staff.call("owner", "POST", "tokens/", {"name": "hasty"})["token"]
    with RawClient(alone.staff.url, token) as client:
        revoke = Thread(target=alone.staff.call, args=("owner", "DELETE", f"tokens/{token.split('_')[1]}/"))
        revoke.start()
        time.sleep(delay)
        with suppress(ConnectionClosed, GridError):
            client.send(m.Run([Node(1, "aten::neg", [Ref(0)])]))
            client.receive()
        revoke.join()


def busy(client: RawClient) -> None:
    """Keep the session's worker busy for some seconds."""
    value = client.constant(np.eye(1000) / 2)
    for _ in range(60):
        value = client.node("aten::mm", value, value)
    client.send(m.Get(1000, client.node("aten::sum", value)))
    time.sleep(0.3)


def constants(client: RawClient, number: int) -> None:
    """Say constants that the worker must take."""
    data = bytes(2**20)
    for _ in range(number):
        client.send(m.Constant("0" * 64, m.TensorHeader("float64", [2**17], len(data)), data))


def test_constants_for_a_busy_worker_wait_at_the_client(alone: Alone) -> None:
    with alone.client() as client:
        busy(client)
        before = memory(alone.pid)
        sender = Thread(target=constants, args=(client, 80), daemon=True)
        sender.start()
        sender.join(3)
        assert memory(alone.pid) - before < 40 * 2**20
        assert client.receive()
        sender.join()
        client.send(m.Bye())


def memory(pid: int) -> int:
    """Bytes of memory that a process has to itself."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def test_a_place_that_is_waited_for_keeps_one_socket(alone: Alone) -> None:
    """One place, one socket: of those that wait for a busy session, none but the last holds a descriptor."""
    with alone.client() as client:
        busy(client)
        constants(client, 11)  # more than may wait for a busy worker
        before = alone.sockets
        greeting = hello(alone.staff.tokens["scientist"], resume=client.welcome.resume)
        with ExitStack() as many:
            for _ in range(24):
                socket = many.enter_context(open_socket(alone.staff.url))
                socket.send(pack_batch(m.encode(m.ClientBatch(1, [greeting], client.seen))))
            time.sleep(0.5)
            assert alone.sockets <= before + 2
        client.come_back()
        client.send(m.Bye())


def test_a_socket_pipelined_with_its_goodbye_leaves_no_older_one(alone: Alone) -> None:
    with alone.client() as client:
        goes_on(client)
        greeting = hello(alone.staff.tokens["scientist"], resume=client.welcome.resume)
        batches = [m.ClientBatch(1, [greeting], client.seen), m.ClientBatch(1000, [m.Bye()], client.seen)]
        with open_socket(alone.staff.url) as other:
            for batch in batches:
                other.send(pack_batch(m.encode(batch)))
            with suppress(ConnectionClosed):
                while True:
                    other.recv(timeout=5)
        with pytest.raises(ConnectionClosed):
            client.socket.recv(timeout=5)


def test_a_chunk_that_was_on_its_way_to_a_lost_socket_does_not_come_over_the_next(alone: Alone) -> None:
    values = np.random.default_rng(5).random(2**20)
    with alone.client() as client:
        value = client.constant(values)
        for attempt in range(3):
            answer = client.ask(m.Get(1000 + attempt, value))
            received = bytearray()
            take_chunk(client, answer, received)
            take_chunk(client, answer, received)
            client.come_back()  # the node still sends over the older one
            client.send(m.Ack(answer.transfer, len(received)))
            while len(received) < values.nbytes:
                take_chunk(client, answer, received)
                client.send(m.Ack(answer.transfer, len(received)))
            assert hashlib.sha256(received).hexdigest() == answer.sha256


def test_uploads_of_programs_that_were_left_do_not_add_up(alone: Alone) -> None:
    """An answer that is not taken keeps its program's folder; what was uploaded for the program goes at once."""
    data = bytes(2**23)
    with alone.client("owner") as client:
        for number in range(3):
            client._ids, client._transfers = iter(range(1, 100)), iter(range(1, 100))
            client.upload(data, "values")
            client.send(m.Get(5000 + number, client.constant(np.zeros(2**20 - 2**18))))
            time.sleep(0.5)
            client.send(m.Begin())
        time.sleep(0.5)
        held = sum(file.stat().st_size for file in (alone.folder / "storage" / "sessions").rglob("upload-*"))
        assert held <= 2**24
        client.send(m.Bye())


def test_long_answers_that_nobody_takes_do_not_fill_the_disk(alone: Alone) -> None:
    with alone.client() as client:
        value = client.constant(np.zeros(2**20))
        for ask in (1000, 1001):
            assert client.ask(m.Get(ask, value)).transfer
        with pytest.raises(LimitExceededError, match="take them"):
            client.ask(m.Get(1002, value))
        client.send(m.Bye())


def test_an_upload_that_a_revocation_cuts_is_no_failure_of_the_node(alone: Alone) -> None:
    data = bytes(2**23)
    for _ in range(3):
        token = alone.staff.call("owner", "POST", "tokens/", {"name": "hasty"})["token"]
        with RawClient(alone.staff.url, token) as client:
            client.send(m.Upload(1, len(data), hashlib.sha256(data).hexdigest(), "values"))
            client._acknowledged(1)
            revoke = Thread(target=alone.staff.call, args=("owner", "DELETE", f"tokens/{token.split('_')[1]}/"))
            revoke.start()
            with suppress(ConnectionClosed):
                for offset in range(0, len(data), CHUNK_SIZE):
                    client.socket.send(pack_chunk(1, offset, data[offset : offset + CHUNK_SIZE]))
            revoke.join()
    time.sleep(0.3)
    assert "Traceback" not in alone.log, re.findall(r"(?s)Traceback.{0,2000}", alone.log)[:1]
