"""What is alive on a node: who sees it, who may end it, and that rows of what is dead mean nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from django.apps import apps as registry
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor

from apps.accounts import actions as accounts
from apps.accounts.capabilities import NODE_OPERATE
from apps.accounts.models import Role
from apps.audit.models import AuditEvent
from apps.compute import live
from apps.compute.actions import stop_session
from apps.compute.models import LiveSession, WebProcess
from apps.compute.queries import SILENT_AFTER, live_processes, sessions_visible_to
from apps.compute.usage import usage_of
from apps.compute.workers import Workers
from apps.core import clock
from apps.core.database import in_database
from apps.core.recent import recent_errors
from gridclient.wire.errors import ConflictError, InvalidInputError, NotPermittedError, SessionStoppedError
from tests.factories.live import open_session, serving, session_of, worker_of
from tests.factories.people import People, make_user
from tests.factories.rest import Api, code

WHY = "Maintenance tonight."


# --- who sees it --------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_administrators_and_auditors_see_all_sessions_and_others_their_own(people: People) -> None:
    theirs, own = open_session(people.scientist), open_session(people.owner)
    for who in (people.administrator, people.auditor):
        assert set(sessions_visible_to(who)) == {theirs, own}
    assert set(sessions_visible_to(people.scientist)) == {theirs}
    assert set(sessions_visible_to(people.owner)) == {own}
    for who in (people.other_owner, people.reviewer, people.stranger):
        assert not sessions_visible_to(who)


@pytest.mark.django_db
def test_what_a_worker_takes_is_told_to_those_who_look_after_the_node_only(people: People) -> None:
    """Memory and time depend on private values: to the one who computes on them they would be answers."""
    session = open_session(people.scientist)
    WebProcess.objects.update(report={"workers": [worker_of(session)]})
    for who in (people.administrator, people.auditor):
        (row,) = Api(who)("GET", "sessions/")[1]["results"]
        assert row["worker"] == {"pid": 4712, "rss": 300 * 2**20, "pss": 40 * 2**20, "cpu": 2500, "isolated": True}
    (row,) = Api(people.scientist)("GET", "sessions/")[1]["results"]
    assert (row["user"], row["worker"]) == ("scientist", None)


def test_the_load_of_a_process_is_coarse() -> None:
    found = usage_of(os.getpid())
    assert found is not None and found.rss > 0
    assert (found.rss % 2**20, (found.pss or 0) % 2**20, found.cpu % 100) == (0, 0, 0)
    assert usage_of(2**22 + 1) is None


@pytest.mark.django_db
def test_sessions_of_a_process_that_fell_silent_are_gone(people: People) -> None:
    now = clock.now()
    open_session(people.scientist, seen=now)
    assert sessions_visible_to(people.scientist, now=now + SILENT_AFTER - timedelta(seconds=1))
    later = now + SILENT_AFTER
    assert not sessions_visible_to(people.scientist, now=later) and not live_processes(now=later)


@pytest.mark.django_db
def test_a_process_that_lives_clears_away_the_rows_of_those_that_do_not(people: People) -> None:
    now = clock.now()
    open_session(people.scientist, seen=now - 3 * SILENT_AFTER)
    alive = open_session(people.owner, seen=now)
    assert list(LiveSession.objects.all()) == [alive]
    assert list(WebProcess.objects.all()) == [alive.process]


@pytest.mark.django_db
def test_a_session_that_ended_is_gone_with_the_next_writing_and_others_stay(people: People) -> None:
    process = serving()
    first, second = session_of(people.scientist, process), session_of(people.owner, process)
    live.write(process, [first, second])
    second.asks = 3
    live.write(process, [second])
    assert [(row.pk, row.asks) for row in LiveSession.objects.all()] == [(second.pk, 3)]


# --- who may end it -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_who_looks_after_the_node_ends_a_session_and_the_log_says_so(people: People) -> None:
    session = open_session(people.scientist)
    stopped = stop_session(session, by=people.administrator, reason=f"  {WHY}\n")
    assert (stopped.state, stopped.stopped_by, stopped.stop_reason) == ("stopping", people.administrator, WHY)
    event = AuditEvent.objects.latest("seq")
    assert (event.verb, event.actor_name, event.target) == ("session_stopped", "administrator", "scientist")
    assert event.payload is not None and event.payload["reason"] == WHY
    assert event.payload["session"] == str(session.pk)


@pytest.mark.django_db
def test_nobody_else_ends_it(people: People) -> None:
    session = open_session(people.scientist)
    for who in (people.owner, people.other_owner, people.reviewer, people.auditor, people.stranger):
        with pytest.raises(NotPermittedError):
            stop_session(session, by=who, reason=WHY)
    accounts.deactivate(people.scientist, by=people.administrator)
    people.scientist.refresh_from_db()
    with pytest.raises(NotPermittedError):
        stop_session(session, by=people.scientist, reason=WHY)
    assert LiveSession.objects.get().stopped_at is None


@pytest.mark.django_db
def test_ending_it_again_changes_nothing_and_a_session_that_ended_is_a_conflict(people: People) -> None:
    session = open_session(people.scientist)
    stop_session(session, by=people.administrator, reason=WHY)
    events = AuditEvent.objects.count()
    assert stop_session(session, by=people.scientist, reason="Another.").stop_reason == WHY
    live.write(session.process, [])
    with pytest.raises(ConflictError):
        stop_session(session, by=people.administrator, reason=WHY)
    assert AuditEvent.objects.count() == events


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["", " \n", "x" * 501, "safe\u202eevil", "\x1b[2J"])
def test_a_reason_says_something_and_shows_itself(people: People, reason: str) -> None:
    session = open_session(people.scientist)
    with pytest.raises(InvalidInputError):
        stop_session(session, by=people.administrator, reason=reason)
    assert code(Api(people.administrator)("POST", f"sessions/{session.pk}/stop/", {"reason": reason}))[0] == 400
    assert LiveSession.objects.get().stopped_at is None


@pytest.mark.django_db
def test_the_database_keeps_no_stop_without_somebody_and_a_reason(people: People) -> None:
    open_session(people.scientist)
    with pytest.raises(IntegrityError):
        LiveSession.objects.update(stopped_at=clock.now())


@pytest.mark.django_db
def test_a_stop_outlives_what_the_process_writes_meanwhile(people: People) -> None:
    session = open_session(people.scientist)
    stop_session(session, by=people.administrator, reason=WHY)
    live.write(session.process, [session_of(people.scientist, session.process, id=session.pk, asks=2)])
    row = LiveSession.objects.get()
    assert (row.state, row.asks, row.stop_reason) == ("stopping", 2, WHY)


@pytest.mark.django_db
def test_a_token_that_only_looks_stops_nothing(people: People) -> None:
    session = open_session(people.scientist)
    _, text = accounts.create_token(
        user=people.scientist, name="looks", expires=None, scopes=["read"], by=people.scientist
    )
    api = Api(None)
    api.text = text
    assert api("GET", "sessions/")[0] == 200
    assert code(api("POST", f"sessions/{session.pk}/stop/", {"reason": WHY})) == (403, "not_permitted")


# --- the task of each process -------------------------------------------------------------------------------------


class Talk:
    """A conversation without a socket."""

    def __init__(self, user: UUID) -> None:
        self.id = "0190b3a0c0de4000800000000000beef"
        self.user = user
        self.heard: list[SessionStoppedError] = []
        self.over = asyncio.Event()

    def look(self) -> live.Look:
        return live.Look(self.user, "gridclient", clock.now(), None, 1, ("not_found", clock.now()), None)

    async def stop(self, error: SessionStoppedError) -> None:
        self.heard.append(error)
        self.over.set()


async def _until(look: Callable[[], Any]) -> Any:
    for _ in range(500):
        if found := await in_database(look):
            return found
        await asyncio.sleep(0.02)
    pytest.fail("It did not come about.")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("woken", [True, False])
def test_a_process_tells_of_its_sessions_and_ends_those_that_shall_end(
    monkeypatch: pytest.MonkeyPatch, woken: bool
) -> None:
    """Also where nothing wakes it, because another process took the call: it looks by itself."""
    monkeypatch.setattr(live, "BEAT", 60 if woken else 0.3)
    monkeypatch.setattr(live, "GATHER", 0.05)

    def stop_it(row: LiveSession, by: Any) -> None:
        if woken:
            stop_session(row, by=by, reason=WHY)
        else:
            LiveSession.objects.update(stopped_at=clock.now(), stopped_by=by, stop_reason=WHY)

    async def scenario() -> list[SessionStoppedError]:
        people = await in_database(lambda: (make_user("scientist", "scientist"), make_user("adm", "administrator")))
        talk = Talk(people[0].pk)
        task = asyncio.create_task(live.run(Workers()))
        await _until(lambda: WebProcess.objects.exists())
        with live.session(talk):
            row = await _until(lambda: LiveSession.objects.select_related("user").first())
            assert (str(row), row.asks, row.last_error) == ("0190b3a0 of scientist", 1, "not_found")
            await in_database(stop_it, row, people[1])
            async with asyncio.timeout(10):
                await talk.over.wait()
        await _until(lambda: not LiveSession.objects.exists())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not await in_database(WebProcess.objects.exists)
        return talk.heard

    heard = asyncio.run(scenario())
    assert [error.message for error in heard[:1]] == [f"An administrator of this node ended this session: {WHY}"]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_fails_for_a_while_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "BEAT", 0.05)
    monkeypatch.setattr(live, "GATHER", 0.01)
    write, failures = live.write, [IntegrityError("secret"), ValueError("secret")]

    def fails(*arguments: Any) -> None:
        if failures:
            raise failures.pop(0)
        write(*arguments)

    monkeypatch.setattr(live, "write", fails)

    async def scenario() -> None:
        task = asyncio.create_task(live.run(Workers()))
        await _until(lambda: WebProcess.objects.exists())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records if record.name == live.__name__] == [
        "What is alive here could not be told (IntegrityError).",
        "What is alive here could not be told (ValueError).",
    ]


# --- the last errors of the log -----------------------------------------------------------------------------------


def test_errors_are_kept_by_class_and_place_and_never_with_what_they_say() -> None:
    logger = logging.getLogger("apps.test.errors")
    logger.warning("no error: 4815162342")
    logger.error("value 4815162342", extra={"value": "4815162342"})
    try:
        usage_of(cast(int, "4815162342"))
    except TypeError:
        logger.exception("patient %s", "4815162342")
    raised, said = (each for each in recent_errors() if each["logger"] == "apps.test.errors")
    assert raised["error"] == "TypeError" and raised["place"].startswith("apps.compute.usage:")
    assert raised["place"].endswith(" usage_of")
    assert said["error"] == "" and said["place"].startswith("test_compute_live.py:")
    assert "4815162342" not in str(recent_errors()) and "/" not in raised["place"]


# --- migrations ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_administrators_of_a_node_that_is_upgraded_look_after_it_and_the_way_back_takes_only_that() -> None:
    Role.objects.filter(name="administrator").update(capabilities=["accounts.manage", "theirs"])
    executor = MigrationExecutor(connection)
    executor.migrate([("accounts", "0003_kept_replies"), ("compute", "0001_initial")])
    assert Role.objects.get(name="administrator").capabilities == ["accounts.manage", "theirs"]
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    assert Role.objects.get(name="administrator").capabilities == ["accounts.manage", "theirs", NODE_OPERATE]
    assert registry.get_model("compute", "LiveSession").objects.count() == 0
