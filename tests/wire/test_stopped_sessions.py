"""Whoever looks after a node sees what is open and can end it: at once, with a reason, and for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from gridclient.wire import messages as m
from gridclient.wire.errors import SessionStoppedError
from tests.factories import databases, processes
from tests.factories.crew import eventually
from tests.factories.grid import LiveGrid
from tests.factories.raw import RawClient, listed_sessions, rest
from tests.factories.sockets import begin_download, goes_on, last_words
from tests.factories.staff import Staff, names, single_node

WHY = "Maintenance tonight."


def id_of(client: RawClient) -> str:
    return str(UUID(client.welcome.session))


def shown(staff: Staff, client: RawClient, until: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
    """How the administrator sees a session, as soon as `until` holds of it."""
    token = staff.tokens[staff.server.username]

    def look() -> dict[str, Any]:
        row = listed_sessions(staff.url, token).get(id_of(client), {})
        return row if row and until(row) else {}

    found = eventually(look)
    assert found, listed_sessions(staff.url, token).get(id_of(client))
    return found


def stop(staff: Staff, client: RawClient, reason: str = WHY) -> Any:
    return staff.call(staff.server.username, "POST", f"sessions/{id_of(client)}/stop/", {"reason": reason})


def test_a_session_is_shown_as_it_stands(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        row = shown(staff, client)
        assert (row["user"], row["client"], row["state"], row["open_asks"]) == (scientist, "raw", "connected", 0)
        client.lose()
        assert shown(staff, client, lambda row: row["state"] == "waiting")["waits_since"]
        client.come_back()
        assert shown(staff, client, lambda row: row["state"] == "connected")["waits_since"] is None
    token = staff.tokens[staff.server.username]
    assert eventually(lambda: id_of(client) not in listed_sessions(staff.url, token))


def test_a_live_session_ends_within_a_second_and_its_client_hears_why(
    grid: LiveGrid, staff: Staff, scientist: str
) -> None:
    node = processes.server(grid.folder / "hospital")
    with staff.client(scientist) as client, staff.client(scientist) as other:
        goes_on(other)
        before = processes.workers(node)
        begin_download(client, np.zeros(2**20))
        shown(staff, client)
        began = time.monotonic()
        assert stop(staff, client)["state"] == "stopping"
        with pytest.raises(SessionStoppedError, match=f"An administrator of this node ended this session: {WHY}"):
            _hear_out(client)
        assert time.monotonic() - began < 1
        assert eventually(lambda: processes.workers(node) <= before)
        goes_on(other)
    (event,) = [event for event in staff.events("session_stopped") if event["payload"]["session"] == id_of(client)]
    assert (event["target"], event["payload"]["reason"]) == (scientist, WHY)


def _hear_out(client: RawClient) -> None:
    """Everything that the node still says; its goodbye is raised."""
    while True:
        client.receive()


def test_the_socket_is_closed_with_a_code_of_its_own(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        shown(staff, client)
        stop(staff, client)
        assert last_words(client.socket) == ("session_stopped", 4410)


def test_a_session_that_waits_for_its_client_ends_too_and_the_client_hears_why_when_it_comes_back(
    staff: Staff, scientist: str
) -> None:
    with staff.client(scientist) as client:
        shown(staff, client)
        client.lose()
        shown(staff, client, lambda row: row["state"] == "waiting")
        stop(staff, client)
        token = staff.tokens[staff.server.username]
        assert eventually(lambda: id_of(client) not in listed_sessions(staff.url, token), seconds=1)
        stopped, resume = id_of(client), client.welcome.resume
        for _ in range(2):
            with pytest.raises(SessionStoppedError, match=WHY):
                client.come_back(resume)
    with staff.client(scientist) as another:  # the account is as welcome as before
        assert id_of(another) != stopped
        goes_on(another)


def test_a_client_that_does_not_read_holds_nobody_up(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as deaf, staff.client(scientist) as client:
        value = deaf.constant(np.zeros(2**20))
        deaf.send(*(m.Get(ask, value) for ask in range(1000, 1040)))
        shown(staff, client), shown(staff, deaf)
        time.sleep(0.5)
        stop(staff, deaf)
        began = time.monotonic()
        stop(staff, client)
        assert last_words(client.socket)[0] == "session_stopped"
        assert time.monotonic() - began < 1
        token = staff.tokens[staff.server.username]
        assert eventually(lambda: id_of(deaf) not in listed_sessions(staff.url, token), seconds=5)


def test_the_last_error_is_a_code_and_the_load_is_for_those_who_look_after_the_node(
    staff: Staff, scientist: str
) -> None:
    with staff.client(scientist) as client:
        goes_on(client)
        client.send(m.Drop([]), m.Upload(1, 8, "0" * 64, "answer"))
        assert isinstance(client.receive(), m.Error)
        client.lose()
        client.come_back()
        row = shown(staff, client, lambda row: row["last_error"])
        assert row["last_error"] == "invalid_input"
        assert shown(staff, client, lambda row: row["worker"])["worker"]["rss"] % 2**20 == 0
        assert listed_sessions(staff.url, staff.tokens[scientist])[id_of(client)]["worker"] is None


def test_ones_own_session_may_be_ended_from_elsewhere_and_nobody_elses(
    staff: Staff, scientist: str, owner: str
) -> None:
    with staff.client(scientist) as client:
        shown(staff, client)
        path = f"{staff.url}/api/sessions/{id_of(client)}/stop/"
        assert id_of(client) not in listed_sessions(staff.url, staff.tokens[owner])
        assert rest("POST", path, {"reason": "."}, token=staff.tokens[owner])[0] == 404
        goes_on(client)
        assert rest("POST", path, {"reason": " "}, token=staff.tokens[scientist])[0] == 400
        assert rest("POST", path, {"reason": "I forgot it."}, token=staff.tokens[scientist])[0] == 200
        with pytest.raises(SessionStoppedError, match="You ended this session from elsewhere: I forgot it"):
            client.receive()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Staff, Path]]:
    """A node of its own, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    with single_node(folder) as server:
        yield Staff(server), folder / server.name


def test_what_another_process_stopped_ends_when_this_one_looks_next(alone: tuple[Staff, Path]) -> None:
    staff, folder = alone
    name = next(names)
    staff.hire(name, "scientist")
    with staff.client(name) as client:
        shown(staff, client)
        key = UUID(id_of(client))
        with databases.opened(folder) as cursor:
            cursor.execute(
                "UPDATE compute_livesession SET stopped_at = '2026-01-01', stop_reason = 'Elsewhere.', stopped_by_id ="
                " (SELECT id FROM accounts_user WHERE username = 'admin') WHERE id = %s",
                [str(key) if databases.POSTGRES else key.hex],
            )
            assert cursor.rowcount == 1
        with staff.client(name), pytest.raises(SessionStoppedError, match="Elsewhere"):
            client.receive()
