"""The page of the node: what it tells to whom, and that its button is the verb."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client, override_settings

from apps.audit.models import AuditEvent
from apps.compute import live
from apps.compute.models import LiveSession
from apps.console.show import size
from apps.core import clock
from tests.factories.live import open_session, serving, session_of, worker_of
from tests.factories.people import People
from tests.factories.queue import publish, submit

pytestmark = pytest.mark.django_db

PAGE = "/admin/compute/livesession/"
HOSTILE = "<img src=x onerror=alert(1)>"


def at(people: People, who: str) -> Client:
    client = Client()
    client.force_login(getattr(people, who))
    return client


def text(answer: HttpResponse) -> str:
    return " ".join(answer.content.decode().split())


def page_of(session: LiveSession) -> str:
    return f"{PAGE}{session.pk}/"


def stop(client: Client, session: LiveSession, reason: str) -> Any:
    return client.post(f"{page_of(session)}do/stop/", {"reason": reason}, follow=True)


def test_an_administrator_and_an_auditor_see_what_the_node_does(people: People) -> None:
    submit(people.scientist, publish(people.owner))
    now = clock.now()
    error = {"at": now.isoformat(), "error": "KeyError", "place": "apps.wire.answers:88 _answer", "logger": "apps"}
    process = serving(errors=[error], database={"waiting": 7, "turn": 12})
    session = session_of(people.scientist, process, asks=3, last_error="limit_exceeded", last_error_at=now)
    runner = {**worker_of(session), "pid": 4713, "session": None}
    process.report |= {"workers": [worker_of(session), runner]}
    live.write(process, [session, session_of(people.owner, process, client=HOSTILE, waits_since=now)])
    for who in ("administrator", "auditor"):
        shown = text(at(people, who).get(PAGE))
        for fact in (
            "scientist", "gridclient 0.1.0", "waits for its client", "limit exceeded", "40 MiB (300 MiB mapped)",
            "2.5 s", "cut off", "an approved request", "ward-1, process 4711", "7 waiting; a turn comes after 12 ms",
            "waiting for a decision", "KeyError in <code>apps.wire.answers:88 _answer</code>", "Free disk",
        ):  # fmt: skip
            assert fact in shown, (who, fact)
        assert HOSTILE not in shown and "not cut off" not in shown
        assert "Some workers have the network" not in shown


def test_a_worker_that_has_the_network_is_an_alarm(people: People) -> None:
    process = serving()
    session = session_of(people.scientist, process)
    process.report |= {"workers": [worker_of(session, isolated=False)]}
    live.write(process, [session])
    assert "Some workers have the network of the machine" in text(at(people, "administrator").get(PAGE))


def test_a_worker_on_another_machine_is_shown_without_figures_that_nobody_has(people: People) -> None:
    process = serving()
    session = session_of(people.scientist, process)
    process.report |= {"workers": [worker_of(session) | {"pid": None, "rss": None, "pss": None, "cpu": None}]}
    live.write(process, [session])
    for page in (PAGE, f"{page_of(session)}change/"):
        shown = text(at(people, "administrator").get(page))
        assert "on another machine" in shown and "not known" in shown, page


def test_a_node_without_anybody_says_what_will_appear(people: People) -> None:
    shown = text(at(people, "administrator").get(PAGE))
    assert "Nobody is connected." in shown and "No process of this node has written of itself lately." in shown


def test_its_page_tells_how_a_session_stands_and_only_an_administrator_may_stop_it(people: People) -> None:
    session = open_session(people.scientist, client=HOSTILE, last_error="shape", last_error_at=clock.now())
    for who, offered in (("administrator", True), ("auditor", False)):
        shown = text(at(people, who).get(f"{page_of(session)}change/"))
        assert (">Stop this session" in shown) is offered
        assert HOSTILE not in shown and "ward-1, process 4711" in shown and "none yet" in shown
    assert stop(at(people, "auditor"), session, "Because.").status_code == 403
    assert LiveSession.objects.get().stopped_at is None


def test_a_stop_needs_a_reason_and_is_in_the_log(people: People) -> None:
    session, client = open_session(people.scientist), at(people, "administrator")
    answer = stop(client, session, " ")
    assert answer.status_code == 200 and "Write a reason." in text(answer)
    answer = stop(client, session, "Maintenance\ntonight.")
    assert answer.redirect_chain == [(PAGE, 302)]
    assert "The session of scientist is being stopped" in text(answer) and "being stopped" in text(answer)
    assert LiveSession.objects.get().stop_reason == "Maintenance tonight."
    assert AuditEvent.objects.latest("seq").verb == "session_stopped"


def test_a_session_that_has_ended_meanwhile_is_not_there(people: People) -> None:
    session, client = open_session(people.scientist), at(people, "administrator")
    live.write(session.process, [])
    assert stop(client, session, "Because.").status_code == 404


def test_the_page_costs_the_same_with_many_sessions(people: People, django_assert_max_num_queries: Any) -> None:
    process = serving()
    sessions = [session_of(people.scientist, process) for _ in range(60)]
    process.report |= {"workers": [worker_of(session) for session in sessions]}
    live.write(process, sessions)
    client = at(people, "administrator")
    client.get(PAGE)
    with django_assert_max_num_queries(25):
        assert text(client.get(PAGE)).count("data-row") == 50


def test_a_network_has_no_such_page(people: People) -> None:
    with override_settings(GRID_ROLE="network"):
        client = at(people, "administrator")
        assert client.get(PAGE).status_code == 403 and PAGE not in text(client.get("/admin/"))
    assert PAGE in text(at(people, "administrator").get("/admin/"))


def test_sizes_are_too_coarse_to_count_rows_by() -> None:
    assert [size(0), size(1), size(2**20 + 1), size(10 * 2**30)] == ["0 MiB", "1 MiB", "2 MiB", "10.0 GiB"]
