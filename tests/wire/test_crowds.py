"""One account, or strangers without one, must not take the node away from the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from apps.wire.rooms import MAX_STRANGERS_OF_ADDRESS
from gridclient.program.graph import Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, InvalidInputError, LimitExceededError
from gridclient.wire.frames import MAX_BATCH, MAX_FRAME, MAX_HELLO, pack_batch
from tests.factories import processes
from tests.factories.crowd import gather
from tests.factories.raw import RawClient
from tests.factories.staff import Staff, single_node

SESSIONS = 4


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staff]:
    folder: Path = tmp_path_factory.mktemp("crowded")
    with single_node(folder, GRID_MAX_SESSIONS="12", GRID_MAX_SESSIONS_OF_ACCOUNT=str(SESSIONS)) as server:
        staff = Staff(server)
        staff.hire("scientist", "scientist")
        staff.hire("owner", "owner")
        yield staff


def test_silent_strangers_do_not_keep_users_out(crowded: Staff) -> None:
    address = crowded.url.replace("http", "ws", 1) + "/ws/grid/"
    with ExitStack() as silent:
        opened = 0
        for _ in range(MAX_STRANGERS_OF_ADDRESS + 8):
            try:
                silent.enter_context(connect(address, compression=None, max_size=MAX_FRAME))
                opened += 1
            except InvalidStatus:
                break
        assert opened == MAX_STRANGERS_OF_ADDRESS
        silent.pop_all().close()
    # They held no session, so every place is still there once one of them has gone.
    with RawClient(crowded.url, crowded.tokens["scientist"]) as client:
        assert client.get(client.constant(np.ones(2))).tolist() == [1.0, 1.0]


def test_one_account_cannot_take_every_session(crowded: Staff) -> None:
    with ExitStack() as held:
        for _ in range(SESSIONS):
            held.enter_context(RawClient(crowded.url, crowded.tokens["scientist"]))
        with pytest.raises(LimitExceededError, match="close one"):
            RawClient(crowded.url, crowded.tokens["scientist"])
        with RawClient(crowded.url, crowded.tokens["owner"]) as owner:
            assert owner.welcome.user == "owner"


def test_a_long_first_frame_is_not_even_decoded(crowded: Staff) -> None:
    address = crowded.url.replace("http", "ws", 1) + "/ws/grid/"
    with connect(address, compression=None, max_size=MAX_FRAME) as socket:
        socket.send(pack_batch(b"\xc0" * MAX_HELLO))
        assert b"limit_exceeded" in bytes(socket.recv(timeout=10))


@pytest.mark.parametrize(
    "commands",
    [
        [m.Ack(1, 0)] * (m.MAX_COMMANDS + 1),
        [m.Run([Node(n, "aten::neg", [Ref(0)]) for n in range(1, m.MAX_NODES + 2)])],
        [m.Drop([Ref(0)] * (m.MAX_NODES + 1))],
        [m.Run([Node(1, "aten::view", [Ref(0), list(range(5_000))])])],
        [m.Run([Node(1, "aten::view", [Ref(0), [[[[[[1]]]]]]])])],
        [m.Run([Node(n, "aten::view", [Ref(0), list(range(4_000))]) for n in range(1, 20)])],
    ],
    ids=["commands", "nodes", "drops", "arguments", "nesting", "arguments together"],
)
def test_what_would_keep_everybody_waiting_is_refused_by_its_size(crowded: Staff, commands: list[object]) -> None:
    with RawClient(crowded.url, crowded.tokens["scientist"]) as client:
        begin = time.perf_counter()
        client.send(*commands)
        reply = client.receive()
        assert reply.code in (InvalidInputError.code, LimitExceededError.code)
        assert time.perf_counter() - begin < 5
        assert client.get(client.constant(np.ones(2))).tolist() == [1.0, 1.0]


def test_a_batch_beyond_its_cap_is_refused_and_the_session_goes_on(crowded: Staff) -> None:
    with RawClient(crowded.url, crowded.tokens["scientist"]) as client:
        client.socket.send(pack_batch(b"\x90" * (MAX_BATCH + 1)))
        assert client.receive().code == LimitExceededError.code
        assert client.get(client.constant(np.ones(2))).tolist() == [1.0, 1.0]


def test_a_dataset_taken_away_ends_in_open_sessions(crowded: Staff) -> None:
    with RawClient(crowded.url, crowded.tokens["owner"]) as owner:
        dataset = owner.publish(np.ones((12, 2)), name="taken away")
    with RawClient(crowded.url, crowded.tokens["scientist"]) as client:
        mock = client.asset(dataset, "mock")
        assert client.get(mock).shape == (12, 2)
        crowded.call("owner", "PATCH", f"datasets/{dataset['slug']}/", {"visibility": "granted"})
        with pytest.raises(GridError) as refused:
            client.get(mock)
        assert refused.value.code == "not_found"


@pytest.fixture(scope="module")
def paced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staff]:
    with single_node(tmp_path_factory.mktemp("paced"), GRID_ACCOUNT_RATE="100") as server:
        staff = Staff(server)
        staff.hire("scientist", "scientist")
        staff.hire("owner", "owner")
        yield staff


def test_an_account_that_floods_waits_and_others_do_not(paced: Staff) -> None:
    with ExitStack() as open_sessions:
        first, second = (open_sessions.enter_context(RawClient(paced.url, paced.tokens["scientist"])) for _ in range(2))
        other = open_sessions.enter_context(RawClient(paced.url, paced.tokens["owner"]))
        begin = time.monotonic()
        for _ in range(150):
            first.send()
            second.send()
        other_begin = time.monotonic()
        assert other.get(other.constant(np.ones(2))).tolist() == [1.0, 1.0]
        assert time.monotonic() - other_begin < 2
        for flooding in (first, second):  # nothing was refused: it only came later
            assert flooding.get(flooding.constant(np.ones(2))).tolist() == [1.0, 1.0]
        assert time.monotonic() - begin > 1.5


def test_a_crowd_gets_its_values_and_the_node_does_not_grow(tmp_path: Path) -> None:
    with single_node(tmp_path, GRID_MAX_SESSIONS="128", GRID_MAX_SESSIONS_OF_ACCOUNT="128") as server:
        token = Staff(server).tokens[server.username]
        leader = processes.server(tmp_path / "vault")
        full: list[int] = []

        def gathered() -> None:
            assert len(processes.workers(leader)) == 10, "who asks nothing has no worker"
            full.append(processes.memory(leader))

        crowd = asyncio.run(gather(server.url, token, idle=100, busy=10, seconds=5, pause=0.1, ready=gathered))
        assert crowd.errors == []
        assert crowd.asks > 20
        processes.wait_until(lambda: not processes.workers(leader), 20, "the workers of sessions that ended are gone")
        assert processes.memory(leader) < full[0] + 32 * 2**20
