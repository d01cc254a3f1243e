"""Machines that look after a node learn whether it serves and how much it does, and nothing about anybody."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError
from tests.factories import processes
from tests.factories.staff import PASSWORD, Staff, single_node

TOKEN = "a-token-for-the-scraper-0123456789"
CHECKS = {"database", "migrations", "audit", "ledger", "storage", "disk", "channel_layer", "workers"}


@dataclass
class Watched:
    staff: Staff
    folder: Path

    def call(self, method: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(urlsplit(self.staff.url).netloc, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def checks(self) -> dict[str, str]:
        status, body, _ = self.call("GET", "/readyz")
        answer = json.loads(body)
        assert answer["ready"] is (status == 200)
        return dict(answer["checks"])

    def failed(self) -> set[str]:
        return {name for name, word in self.checks().items() if word != "ok"}

    def figures(self) -> dict[str, float]:
        # An answer stands for a second.
        time.sleep(1.1)
        status, body, _ = self.call("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        return {name: float(value) for name, value in re.findall(r"^(gridsite_\S+) (\S+)$", body, re.MULTILINE)}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with single_node(folder, "watched", GRID_METRICS_TOKEN=TOKEN) as server:
        staff = Staff(server)
        for name, role in {"owner": "owner", "scientist": "scientist", "auditor": "auditor"}.items():
            staff.hire(name, role)
        yield Watched(staff, folder / "watched")


# Path, method, and the status for: nobody, a signed-in person, the scraper.
DOORS = [
    ("/healthz", "GET", "200 200 200"),
    ("/healthz", "HEAD", "200 200 200"),
    ("/healthz", "POST", "405 405 405"),
    ("/readyz", "GET", "200 200 200"),
    ("/readyz", "HEAD", "200 200 200"),
    ("/readyz", "DELETE", "405 405 405"),
    ("/metrics", "GET", "401 401 200"),
    ("/metrics", "HEAD", "401 401 200"),
    ("/metrics", "PUT", "405 405 405"),
    ("/healthz/", "GET", "404 404 404"),
    ("/metrics/", "GET", "404 404 404"),
]


@pytest.mark.parametrize(("path", "method", "statuses"), DOORS)
def test_each_gets_what_the_table_says(watched: Watched, path: str, method: str, statuses: str) -> None:
    tokens = ["", *(f"Bearer {token}" for token in (watched.staff.tokens["auditor"], TOKEN))]
    got = [watched.call(method, path, **({"Authorization": token} if token else {}))[0] for token in tokens]
    assert got == [int(status) for status in statuses.split()]


@pytest.mark.parametrize("given", [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "", "é"])
def test_metrics_are_for_the_holder_of_the_token_only(watched: Watched, given: str) -> None:
    assert watched.call("GET", "/metrics", Authorization=f"Bearer {given}".encode().decode("latin-1"))[0] == 401
    assert watched.call("GET", f"/metrics?token={TOKEN}")[0] == 401


def test_a_probe_by_any_address_is_answered(watched: Watched) -> None:
    """Orchestrators call a container by its address, which is in no list of hosts."""
    assert watched.call("GET", "/readyz", Host="10.1.2.3:8000")[0] == 200
    assert watched.call("GET", "/api/identity/", Host="10.1.2.3:8000")[0] == 400


def test_readiness_has_named_checks_and_tells_no_more(watched: Watched) -> None:
    status, body, headers = watched.call("GET", "/readyz")
    assert status == 200
    assert json.loads(body) == {"ready": True, "checks": dict.fromkeys(CHECKS, "ok")}
    assert headers["cache-control"] == "no-store"


def test_workers_that_were_killed_come_back_before_anybody_asks(watched: Watched) -> None:
    leader = processes.server(watched.folder)
    os.kill(processes.forkserver(leader), signal.SIGKILL)
    processes.wait_until(lambda: not watched.failed() and len(processes.group(leader)) == 2, 20, "they came back")


def test_a_database_that_was_set_back_is_not_ready(watched: Watched) -> None:
    """As after a restored copy: the head kept outside is further than the log."""
    head = watched.folder / "keys" / "audit.head"
    before = head.read_bytes()
    told = json.loads(before[:512])
    head.write_bytes(json.dumps({**told, "seq": told["seq"] + 1000}).encode().ljust(512) + before[512:])
    try:
        processes.wait_until(lambda: watched.failed() == {"audit"}, 5, "the audit check fails")
        _, body, _ = watched.call("GET", "/readyz")
        assert str(watched.folder) not in body
        assert told["hash"] not in body
    finally:
        head.write_bytes(before)
    processes.wait_until(lambda: not watched.failed(), 5, "ready again")


def test_figures_follow_what_happens(watched: Watched) -> None:
    before = watched.figures()
    with watched.staff.client("owner") as owner, watched.staff.client("scientist") as scientist:
        secret = owner.publish(
            np.full((20, 1), 17.8675), name="figures of nobody", columns=[m.Column("a", low=0.0, high=50.0)]
        )
        owner.get(owner.asset(secret))
        with pytest.raises(GetNotPermittedError):
            scientist.get(scientist.asset(secret))
        scientist.get(scientist.constant(np.ones(3)))
        scientist.request(scientist.asset(secret))
        during = watched.figures()
    after = watched.figures()

    def grew(name: str, figures: dict[str, float]) -> float:
        return figures[name] - before.get(name, 0.0)

    assert grew("gridsite_sessions", during) == 2
    assert grew("gridsite_workers", during) == 2
    assert during["gridsite_largest_worker_resident_bytes"] > 10**6
    assert grew("gridsite_sessions", after) == grew("gridsite_workers", after) == 0
    assert grew('gridsite_asks_total{kind="get",outcome="ok"}', during) == 2
    assert grew('gridsite_asks_total{kind="get",outcome="get_not_permitted"}', during) == 1
    assert grew('gridsite_asks_total{kind="publish",outcome="ok"}', during) == 1
    assert grew('gridsite_ask_seconds_count{kind="get"}', during) == 3
    assert grew('gridsite_errors_total{code="get_not_permitted",door="wire"}', during) == 1
    assert grew('gridsite_releases_total{route="read"}', during) == 1
    assert grew('gridsite_releases_total{route="public"}', during) == 1
    assert grew('gridsite_requests{state="submitted"}', during) == 1
    assert grew("gridsite_audit_events", during) >= 3
    assert grew("gridsite_received_frames_total", during) >= 8
    assert grew("gridsite_received_frame_bytes_total", during) > 200
    assert grew('gridsite_workers_ended_total{how="closed"}', after) == 2
    assert grew("gridsite_event_loop_lag_seconds_count", after) > 0
    assert grew("gridsite_database_wait_seconds_count", during) > 10
    assert during["gridsite_uploads"] == 0


def test_an_upload_in_flight_is_counted_until_its_session_ends(watched: Watched) -> None:
    with watched.staff.client("owner") as owner:
        owner.send(m.Upload(1, 5000, "0" * 64, "values"))
        owner.receive()
        during = watched.figures()
    assert (during["gridsite_uploads"], during["gridsite_upload_bytes"]) == (1, 5000)
    after = watched.figures()
    assert (after["gridsite_uploads"], after["gridsite_upload_bytes"]) == (0, 0)


def test_refusals_over_rest_are_counted_by_code(watched: Watched) -> None:
    name = 'gridsite_errors_total{code="authentication",door="rest"}'
    before = watched.figures().get(name, 0.0)
    assert watched.call("GET", "/api/me/")[0] == 401
    assert watched.figures()[name] == before + 1


def test_figures_name_nobody_and_nothing(watched: Watched) -> None:
    _, body, _ = watched.call("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
    names = ["scientist", "owner", "figures-of-nobody", "figures of nobody", "17.8675", PASSWORD, TOKEN, "grd_"]
    assert [name for name in names if name in body] == []
    labels = set(re.findall(r'(\w+)="', body))
    assert labels <= {"kind", "outcome", "door", "code", "route", "how", "state", "le"}
    assert len(body) < 60_000


def test_without_a_token_in_the_settings_there_is_no_page_of_figures(tmp_path: Path) -> None:
    with single_node(tmp_path, "quiet", GRID_DISK_FLOOR=str(2**60)) as server:
        quiet = Watched(Staff(server), tmp_path / "quiet")
        assert quiet.call("GET", "/metrics")[0] == 404
        assert quiet.call("GET", "/metrics", Authorization="Bearer ")[0] == 404
        # Alive, and yet of no use: its disk is too full for what it was told to keep free.
        assert quiet.call("GET", "/healthz")[0] == 200
        assert quiet.failed() == {"disk"}
        assert quiet.call("HEAD", "/readyz")[0] == 503
