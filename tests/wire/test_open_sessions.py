"""What ends or changes under an open session: its token, its account, a grant, its worker, its time."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError, InternalError, LimitExceededError
from gridclient.wire.frames import (
    pack_batch,
)
from tests.factories import processes
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
        with pytest.raises(InternalError):
            client.get(value)
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
