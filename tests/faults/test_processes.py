"""One node in several web processes, on PostgreSQL and Redis: what is done in one holds in the others."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError
from pytest_django.fixtures import Settings

from apps.api.network import SIGN_INS_PER_MINUTE
from gridclient.wire import messages as m
from gridclient.wire.errors import LimitExceededError
from gridsite.deployment import Deployment
from gridsite.processes import SHORTEST_LIFE
from gridsite.server import listen
from gridsite.serving import check_processes
from gridsite.threads import MOST
from tests.factories import databases, processes
from tests.factories.grid import stop
from tests.factories.raw import RawClient, rest
from tests.factories.sockets import goes_on, last_words
from tests.factories.staff import PASSWORD, Staff, names, server_of, start_process, url_of

COLUMNS = [m.Column("a", low=0.0, high=50.0)]
SESSIONS = 6
pytestmark = pytest.mark.timeout(240)


@dataclass
class Pair:
    """Two processes of one node, each at an address of its own, so that a test chooses where something is done."""

    folder: Path
    database: str
    left: Staff
    right: Staff
    running: dict[str, subprocess.Popen[bytes]]

    def hire(self, *roles: str) -> str:
        """A new account, signed in on the left; the token is good on both sides."""
        name = next(names)
        self.right.tokens[name] = self.left.hire(name, *roles)
        return name


@contextmanager
def pair_in(folder: Path, *, together: bool) -> Iterator[Pair]:
    """`together`: both start on an empty database; else the left one is up before the right one starts."""
    database = f"pair_{folder.name}"
    settings = {
        "GRID_DATABASE_URL": databases.make_database(database),
        "GRID_REDIS_URL": databases.redis_url(),
        "GRID_MAX_SESSIONS_OF_ACCOUNT": str(SESSIONS),
    }
    running = {}
    with listen("127.0.0.1", 0) as left, listen("127.0.0.1", 0) as right:
        deployment = Deployment("node", "ward", folder / "ward", url_of(left), settings=settings)
        try:
            running["left"] = start_process(deployment, left)
            if not together:
                server_of(deployment, url_of(left))
            running["right"] = start_process(deployment, right)
            sides = [Staff(server_of(deployment, url_of(each))) for each in (left, right)]
            yield Pair(deployment.folder, database, *sides, running)
        finally:
            for process in running.values():
                if process.poll() is None:
                    stop(process)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_in(tmp_path_factory.mktemp("pair"), together=True) as pair:
        yield pair


@pytest.mark.parametrize("how", ["revoked", "signed out", "deactivated"])
def test_a_socket_in_one_process_ends_with_what_was_taken_in_the_other(pair: Pair, how: str) -> None:
    name = pair.hire("scientist")
    token = pair.left.tokens[name]
    with pair.left.client(name) as client:
        goes_on(client)
        match how:
            case "revoked":
                pair.right.call("admin", "DELETE", f"tokens/{token.split('_')[1]}/")
            case "signed out":
                pair.right.call(name, "POST", "sign-out/")
            case "deactivated":
                pair.right.call("admin", "PATCH", f"users/{name}/", {"active": False})
        began = time.monotonic()
        assert last_words(client.socket) == ("authentication", 4401)
        assert time.monotonic() - began < 1


def test_what_is_approved_in_one_process_is_answered_once_and_delivered_by_both(pair: Pair) -> None:
    owner, scientist = pair.hire("owner"), pair.hire("scientist")
    with pair.left.client(owner) as publisher:
        dataset = publisher.publish(np.arange(12.0).reshape(12, 1), name=next(names), columns=COLUMNS)
    for here, there in ((pair.left, pair.right), (pair.right, pair.left)):
        with here.client(scientist) as client:
            request = client.request(client.node("aten::mul.Tensor", client.asset(dataset), 2.0))
            there.call(owner, "POST", f"requests/{request}/approve/", {"reason": "Fine."})
            began = time.monotonic()
            _wait_answered(here, scientist, request)
            assert time.monotonic() - began < 10  # it was woken: by itself it looks each 15 seconds
            with there.client(scientist) as other:
                assert client.fetch(request).sum() == other.fetch(request).sum() == 132
        assert [event["target"] for event in here.events("request_answered")].count(f"request:{request}") == 1


def _wait_answered(side: Staff, name: str, request: str) -> None:
    def answered() -> bool:
        return bool(side.call(name, "GET", f"requests/{request}/")["answered_at"])

    processes.wait_until(answered, 20, "the request is answered")


def test_what_is_published_in_one_process_is_found_in_the_other(pair: Pair) -> None:
    owner = pair.hire("owner")
    tag = f"#{next(names)}"
    with pair.left.client(owner) as publisher:
        dataset = publisher.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS, tags=[tag])
    found = pair.right.call(owner, "GET", f"datasets/?q={tag.replace('#', '%23')}")["results"]
    assert [row["id"] for row in found] == [dataset["id"]]
    with pair.right.client(owner) as client:
        assert client.get(client.asset(dataset)).sum() == 12


def test_wrong_passwords_are_counted_in_both(pair: Pair) -> None:
    name = pair.hire("scientist")
    body = {"username": name, "password": "wrong"}
    said = [rest("POST", f"{side.url}/api/sign-in/", body)[0] for side in (pair.left, pair.right) * 3]
    assert said == [401] * 5 + [429]
    assert {rest("POST", f"{side.url}/api/sign-in/", {**body, "password": PASSWORD})[0]
            for side in (pair.left, pair.right)} == {429}  # fmt: skip


def test_strangers_are_counted_in_both(pair: Pair) -> None:
    if (second := time.time() % 60) > 40:
        time.sleep(60 - second)  # all of them in one minute
    said = [
        rest("POST", f"{side.url}/api/challenge/")[0]
        for _ in range(SIGN_INS_PER_MINUTE // 2 + 1)
        for side in (pair.left, pair.right)
    ]
    assert (said.count(200), said.count(429)) == (SIGN_INS_PER_MINUTE, 2)


def test_sessions_of_an_account_are_counted_in_both(pair: Pair) -> None:
    name = pair.hire("scientist")
    with ExitStack() as held:
        for side in (pair.left, pair.right) * (SESSIONS // 2):
            held.enter_context(side.client(name))
        for side in (pair.left, pair.right):
            with pytest.raises(LimitExceededError, match="close one"):
                side.client(name)
    processes.wait_until(lambda: _free(pair.right, name), 5, "the places are free again")


def _free(side: Staff, name: str) -> bool:
    try:
        with side.client(name) as client:
            goes_on(client)
    except LimitExceededError:
        return False
    return True


def test_the_log_of_both_is_one_chain(pair: Pair) -> None:
    """Writers of every kind in both processes at once: none fails, none overtakes another."""
    owner, scientist = pair.hire("owner"), pair.hire("scientist")
    with pair.left.client(owner) as publisher:
        dataset = publisher.publish(np.arange(24.0).reshape(24, 1), name=next(names), columns=COLUMNS)
    pair.left.give(owner, dataset, scientist, "read")
    sides = (pair.left, pair.right)

    def grants(side: Staff) -> None:
        for _ in range(8):
            grant = side.give(owner, dataset, scientist, "aggregate")
            side.call(owner, "DELETE", f"grants/{grant}/")

    def tokens(side: Staff) -> None:
        for _ in range(8):
            text = side.call(scientist, "POST", "tokens/", {"name": "laptop"})["token"]
            side.call(scientist, "DELETE", f"tokens/{text.split('_')[1]}/")

    def values(side: Staff) -> None:
        with side.client(scientist) as client:
            for number in range(8):
                assert client.get(client.node("aten::mul.Tensor", client.asset(dataset), float(number))).size == 24

    def versions(side: Staff) -> None:
        with side.client(owner) as client:
            for _ in range(3):
                client.publish(np.arange(24.0).reshape(24, 1), name="", columns=COLUMNS, replace=dataset["slug"])

    def requests(side: Staff) -> None:
        with side.client(scientist) as client:
            for number in range(4):
                request = client.request(client.node("aten::add.Tensor", client.asset(dataset), float(number)))
                side.call(owner, "POST", f"requests/{request}/approve/", {"reason": "Fine."})

    before = len(pair.left.events())
    works = (grants, tokens, values, versions, requests)
    with ThreadPoolExecutor(10) as pool:
        for done in [pool.submit(work, side) for work in works for side in sides]:
            done.result()
    expected = 2 * (8 * 2 + 8 * 2 + 8 + 3 + 4 * 2)
    events = pair.right.events()[before:]
    assert len([event for event in events if event["verb"] != "request_answered"]) == expected
    assert [side.call("admin", "GET", "audit/verify/")["ok"] for side in sides] == [True, True]
    log = (pair.folder / "server.log").read_text()
    assert "deadlock" not in log and "Traceback" not in log


def test_a_crowd_of_requests_takes_few_connections(pair: Pair) -> None:
    """PostgreSQL has a hundred of them, for everybody."""
    with ThreadPoolExecutor(40) as pool:
        said = list(pool.map(lambda side: rest("GET", f"{side.url}/api/me/")[0], (pair.left, pair.right) * 80))
    assert set(said) == {401}
    with databases.administrator() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [pair.database])
        assert cursor.fetchone()[0] <= 2 * (MOST + 1)


def test_one_process_runs_requests_until_it_falls_and_files_of_the_living_stay(tmp_path: Path) -> None:
    with pair_in(tmp_path, together=False) as pair:
        owner, scientist = pair.hire("owner"), pair.hire("scientist")
        sessions = pair.folder / "storage" / "sessions"
        with pair.right.client(owner) as client, pair.left.client(scientist) as fallen:
            dataset = client.publish(np.arange(12.0).reshape(12, 1), name=next(names), columns=COLUMNS)
            goes_on(fallen)
            assert len(list(sessions.iterdir())) == 2
            assert not _can_lock(pair.folder / "storage" / "locks" / "requests")
            with pair.right.client(scientist) as asking:
                request = asking.request(asking.asset(dataset))
            os.kill(pair.running["left"].pid, signal.SIGKILL)
            pair.running["left"].wait()
            pair.right.call(owner, "POST", f"requests/{request}/approve/", {"reason": "Fine."})
            _wait_answered(pair.right, owner, request)
            with listen("127.0.0.1", 0) as listener:
                deployment = Deployment(
                    "node", "ward", pair.folder, pair.left.url, settings=_settings_of(pair.running["right"].pid)
                )
                pair.running["left"] = start_process(deployment, listener)
                server_of(deployment, url_of(listener))
            assert len(list(sessions.iterdir())) == 1  # the fallen one's is gone, the living one's is not
            assert client.get(client.asset(dataset)).sum() == 66
            goes_on(client)


def _settings_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry.startswith("GRID_"))


def _can_lock(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# --- several processes on one socket ----------------------------------------------------------------------------


def test_several_processes_share_a_socket_one_is_replaced_and_all_end_together(tmp_path: Path) -> None:
    settings = {
        "GRID_DATABASE_URL": databases.make_database(f"crowd_{tmp_path.name}"),
        "GRID_REDIS_URL": databases.redis_url(),
    }
    with listen("127.0.0.1", 0) as listener:
        deployment = Deployment("node", "ward", tmp_path / "ward", url_of(listener), settings=settings)
        parent = start_process(deployment, listener, "--processes", "2")
    try:
        staff = Staff(server_of(deployment, deployment.url))
        # Those that serve have a forkserver each.
        processes.wait_until(lambda: len(_serving(parent.pid)) == 2, 30, "both are up")
        first = _serving(parent.pid)
        time.sleep(SHORTEST_LIFE)
        os.kill(min(first), signal.SIGKILL)
        processes.wait_until(lambda: len(_serving(parent.pid) - first) == 1, 30, "another has taken its place")
        staff.hire("scientist", "scientist")
        with RawClient(staff.url, staff.tokens["scientist"]) as client:
            goes_on(client)
            everybody = processes.group(parent.pid)
            assert stop(parent, seconds=30) == 0
        assert len(everybody) >= 6  # the parent, two that serve, two forkservers, a worker
        processes.wait_until(lambda: not any(map(processes.running, everybody)), 5, "all of them are gone")
    finally:
        if parent.poll() is None:
            stop(parent)


def _serving(parent: int) -> set[int]:
    return {pid for pid in processes.children(parent) if processes.children(pid)}


@pytest.mark.parametrize(
    ("vendor", "redis", "why"), [("sqlite", "redis://redis", "PostgreSQL"), ("postgresql", "", "Redis")]
)
def test_several_processes_without_what_they_need_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, vendor: str, redis: str, why: str
) -> None:
    settings.GRID_REDIS_URL = redis
    monkeypatch.setattr("gridsite.serving.connections", {"default": type("Database", (), {"vendor": vendor})})
    check_processes(1)
    with pytest.raises(CommandError, match=why):
        check_processes(2)
