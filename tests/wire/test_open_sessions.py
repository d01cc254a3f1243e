"""What ends or changes under an open session: its token, its account, a grant, its worker, its time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.program.graph import ASSET, Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import (
    AuthenticationError,
    GetNotPermittedError,
    LimitExceededError,
    NotFoundError,
)
from gridclient.wire.frames import (
    pack_batch,
)
from tests.factories import databases, processes
from tests.factories.grid import LiveGrid
from tests.factories.raw import RawClient, rest, sign_in
from tests.factories.sockets import begin_download, goes_on, hello, last_words, open_socket, rest_of
from tests.factories.staff import PASSWORD, Staff, names, single_node

BIG = 8 * 2**20
COLUMNS = [m.Column("a", low=0.0, high=50.0)]


@pytest.mark.parametrize("how", ["revoked", "signed out", "deactivated"])
def test_open_socket_ends_with_the_right_to_have_it(staff: Staff, how: str) -> None:
    name = next(names)
    token = staff.hire(name, "scientist")
    with staff.client(name) as client:
        begin_download(client, np.zeros(BIG // 8))
        match how:
            case "revoked":
                staff.call(staff.server.username, "DELETE", f"tokens/{token.split('_')[1]}/")
            case "signed out":
                staff.call(name, "POST", "sign-out/")
            case "deactivated":
                staff.call(staff.server.username, "PATCH", f"users/{name}/", {"active": False})
        began = time.monotonic()
        assert last_words(client.socket) == ("authentication", 4401)
        assert time.monotonic() - began < 1
    assert rest("GET", f"{staff.url}/api/me/", token=token)[0] == 401
    with open_socket(staff.url) as socket:
        socket.send(pack_batch(m.encode(m.ClientBatch(1, [hello(token)]))))
        assert last_words(socket) == ("authentication", 4401)


def test_ask_sent_after_the_revocation_gets_no_answer(staff: Staff, owner: str) -> None:
    token = staff.call(owner, "POST", "tokens/", {"name": "laptop"})["token"]
    with staff.client(owner) as publisher:
        dataset = publisher.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS)
    with RawClient(staff.url, token) as client:
        value = client.asset(dataset)
        assert client.get(value).shape == (12, 1)
        staff.call(owner, "DELETE", f"tokens/{token.split('_')[1]}/")
        with suppress(ConnectionClosed):
            client.send(m.Get(7, value))
        # The goodbye may come before the refusal of the question, or after it.
        assert {reply.code for reply in rest_of(client.socket)} == {"authentication"}


def test_session_ends_by_itself_when_its_token_expires(staff: Staff, owner: str) -> None:
    """Nobody wakes the node for the end of a token's time."""
    with brief(staff, owner) as client:
        expired = time.monotonic() + LIFE
        assert last_words(client.socket) == ("authentication", 4401)
        assert -1 < time.monotonic() - expired < 5


def test_nothing_is_given_or_taken_after_the_token_expired(staff: Staff, owner: str) -> None:
    with staff.client(owner) as publisher:
        dataset = publisher.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS)
    with brief(staff, owner) as client:
        expires = time.monotonic() + LIFE
        value, transfer = client.asset(dataset), client.upload(bytes(8), "values")
        assert client.get(value).shape == (12, 1)
        time.sleep(max(0.0, expires - time.monotonic()))
        spec = m.PublishSpec(kind="tensor", name=next(names))
        with suppress(ConnectionClosed):
            client.send(m.Get(7, value), m.Publish(8, spec, transfer), m.Upload(90, 8, "0" * 64, "values"))
        assert {reply.code for reply in rest_of(client.socket)} == {"authentication"}


LIFE = 2.0


def brief(staff: Staff, name: str) -> RawClient:
    """A session on a token of two seconds."""
    expires = (datetime.now(UTC) + timedelta(seconds=LIFE)).isoformat()
    token = staff.call(name, "POST", "tokens/", {"name": "brief", "expires": expires})["token"]
    return RawClient(staff.url, token)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Staff, Path]]:
    """A node of its own, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    with single_node(folder) as server:
        yield Staff(server), folder / server.name


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("revoked", "UPDATE accounts_accesstoken SET revoked_at = created WHERE prefix = %s"),
        ("expired", "UPDATE accounts_accesstoken SET created = '2020-01-01', expires = '2020-01-02' WHERE prefix = %s"),
        (
            "deactivated",
            "UPDATE accounts_user SET is_active = false"
            " WHERE id = (SELECT user_id FROM accounts_accesstoken WHERE prefix = %s)",
        ),
    ],
)
def test_what_another_process_ended_is_seen_at_the_next_use(alone: tuple[Staff, Path], how: str, change: str) -> None:
    """An operator's shell, or a second web process, cannot wake this one: each use looks at the token again."""
    staff, folder = alone
    name = f"{how}-{next(names)}"
    token = staff.hire(name, "owner")
    with staff.client(name) as client:
        dataset = client.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS)
        value, transfer = client.asset(dataset), client.upload(bytes(8), "values")
        assert client.get(value).shape == (12, 1)
        request = client.request(value)
        with databases.opened(folder) as cursor:
            cursor.execute(change, [token.split("_")[1]])
            assert cursor.rowcount == 1
        spec = m.PublishSpec(kind="tensor", name=next(names))
        part = Node(70, ASSET, [dataset["id"], dataset["version"], "mock"])
        uses: dict[str, list[Any]] = {
            "get": [m.Get(71, value)],
            "request": [m.Request(72, value, "A study.")],
            "fetch": [m.Fetch(73, request)],
            "publish": [m.Publish(74, spec, transfer)],
            "bind": [m.Run([part]), m.Get(75, Ref(70))],
            "upload": [m.Upload(90, 8, "0" * 64, "values")],
        }
        said = {use: _said(client, commands) for use, commands in uses.items()}
    assert said == dict.fromkeys(uses, "authentication")


def _said(client: RawClient, commands: list[Any]) -> str:
    """The code of the refusal, or what came instead."""
    try:
        client.send(*commands)
        reply = client.receive()
    except AuthenticationError as goodbye:
        return goodbye.code
    return str(getattr(reply, "code", type(reply).__name__))


def test_revoked_grant_stops_the_next_get_of_an_open_session(staff: Staff, owner: str, scientist: str) -> None:
    with staff.client(owner) as publisher:
        dataset = publisher.publish(np.arange(12.0).reshape(12, 1), name=next(names), columns=COLUMNS)
    grant = staff.give(owner, dataset, scientist, "read")
    with staff.client(scientist) as client:
        value = client.asset(dataset)
        assert client.get(value).sum() == 66
        staff.call(owner, "DELETE", f"grants/{grant}/")
        with pytest.raises(GetNotPermittedError):
            client.get(value)
        goes_on(client)


def test_mock_data_of_a_dataset_that_was_taken_away_come_by_no_detour(staff: Staff, owner: str, scientist: str) -> None:
    """Nobody decides about mock data: hidden in a value that is decided about, they would leave with it."""
    with staff.client(owner) as publisher:
        hidden = publisher.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS, visibility="granted")
        shared = publisher.publish(np.arange(12.0).reshape(12, 1), name=next(names), columns=COLUMNS)
    grant = staff.give(owner, hidden, scientist, "compute")
    staff.give(owner, shared, scientist, "read")
    with staff.client(scientist) as client:
        mock = client.asset(hidden, "mock")
        detour = client.node("aten::add.Tensor", client.node("aten::mul.Tensor", client.asset(shared), 0.0), mock)
        shape_only = client.node("aten::add.Tensor", client.asset(shared), client.node("aten::zeros_like", mock))
        assert client.get(detour).shape == client.get(shape_only).shape == (12, 1)
        staff.call(owner, "DELETE", f"grants/{grant}/")
        for value in (mock, detour, shape_only):
            with pytest.raises(NotFoundError):
                client.get(value)
        with pytest.raises(NotFoundError):
            client.request(detour)
        assert client.get(client.asset(shared)).sum() == 66


def test_names_of_datasets_that_are_none_are_not_kept(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        long = client.node("grid::asset", "x" * 100_000, 1, "values")
        with pytest.raises(NotFoundError):
            client.get(long)
        goes_on(client)


def test_killed_worker_is_a_typed_error_of_its_own_session_only(grid: LiveGrid, staff: Staff, scientist: str) -> None:
    node = processes.server(grid.folder / "hospital")
    with staff.client(scientist) as other, staff.client(scientist) as client:
        goes_on(other)
        before = processes.workers(node)
        goes_on(client)
        (worker,) = processes.workers(node) - before
        value = client.constant(np.array([1.0]))
        os.kill(worker, signal.SIGSTOP)
        client.send(m.Get(1, value))
        os.kill(worker, signal.SIGKILL)
        refused = client.receive()
        assert (type(refused), refused.ask, refused.code) == (m.Refused, 1, "internal")
        assert client.receive() == m.Lost()
        client.send(m.Get(2, value))  # passed over: it is about a program that is gone
        client.send(m.Begin())
        goes_on(client)
        goes_on(other)
    with staff.client(scientist) as third:
        goes_on(third)


def test_computation_beyond_the_deadline_is_stopped_with_the_limit_named(tmp_path: Path) -> None:
    with single_node(tmp_path, GRID_DEADLINE="1") as server:
        staff = Staff(server)
        staff.hire("scientist", "scientist")
        with staff.client("scientist") as client, staff.client("scientist") as other:
            value = client.constant(np.eye(1200) / 2)
            for _ in range(400):
                value = client.node("aten::mm", value, value)
            with pytest.raises(LimitExceededError) as stopped:
                client.get(client.node("aten::sum", value))
            assert stopped.value.details["limit"] == 1
            goes_on(other)
        assert sign_in(server.url, "scientist", PASSWORD)
