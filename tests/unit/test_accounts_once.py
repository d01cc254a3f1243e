"""Under a key nothing happens twice, and the first reply is not lost: on both databases, whoever comes when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from threading import Event
from typing import Any, TypeVar

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts import actions
from apps.accounts.models import KeptReply, Team, User
from apps.accounts.once import KEPT_FOR, Asked, forget_old, kept_reply, once
from apps.audit.models import AuditEvent
from apps.core.database import in_database
from gridclient.wire.errors import ConflictError, GridError, InvalidInputError
from gridsite import lifespan
from tests.factories import databases
from tests.factories.people import People, make_user

T = TypeVar("T")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def found(by: User, slug: str = "ward") -> Any:
    """An effect, with an audit event, and a reply that tells which of several it is the reply of."""
    team = actions.create_team(slug=f"{slug}-{Team.objects.count()}", name="Ward", members=[], by=by)
    return {"team": team.slug, "id": team.pk}


def happened() -> tuple[int, int]:
    return Team.objects.count(), AuditEvent.objects.filter(verb="team_created").count()


# --- one after the other -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_who_asks_again_gets_the_first_reply_and_nothing_happens(people: People) -> None:
    by = people.administrator
    first = once(by, Asked("k", b"a ward"), lambda: found(by))
    assert once(by, Asked("k", b"a ward"), lambda: found(by)) == first == kept_reply(by, Asked("k", b"a ward"))
    assert happened() == (1, 1)
    assert once(by, Asked("l", b"a ward"), lambda: found(by)) != first
    assert happened() == (2, 2)


@pytest.mark.django_db
def test_without_a_key_everything_happens(people: People) -> None:
    by = people.administrator
    assert once(by, Asked("", b"a ward"), lambda: found(by)) != once(by, Asked("", b"a ward"), lambda: found(by))
    assert happened() == (2, 2) and not KeptReply.objects.exists()
    assert kept_reply(by, Asked("", b"a ward")) is None


@pytest.mark.django_db
def test_a_key_that_stands_for_something_else_is_refused_whoever_looks(people: People) -> None:
    by = people.administrator
    first = once(by, Asked("k", b"a ward"), lambda: found(by))
    for look in (lambda: once(by, Asked("k", b"two"), lambda: found(by)), lambda: kept_reply(by, Asked("k", b"two"))):
        with pytest.raises(ConflictError) as refused:
            look()
        assert refused.value.details == {"field": "key"}
    assert happened() == (1, 1) and kept_reply(by, Asked("k", b"a ward")) == first


@pytest.mark.django_db
def test_a_key_is_its_owners_alone(people: People) -> None:
    """Neither a reply nor the fact that somebody used a key is for another."""
    by = people.administrator
    once(by, Asked("k", b"a ward"), lambda: found(by))
    assert kept_reply(people.stranger, Asked("k", b"a ward")) is None
    assert once(people.stranger, Asked("k", b"two"), lambda: "mine") == "mine"
    assert once(people.stranger, Asked("k", b"two"), lambda: "not again") == "mine"


@pytest.mark.django_db
@pytest.mark.parametrize("error", [InvalidInputError("not so"), ZeroDivisionError()])
def test_what_failed_may_be_tried_again_even_as_something_else(people: People, error: Exception) -> None:
    by = people.administrator

    def fail() -> Any:
        found(by)
        raise error

    with pytest.raises(type(error)):
        once(by, Asked("k", b"a ward"), fail)
    assert happened() == (0, 0) and kept_reply(by, Asked("k", b"a ward")) is None
    assert once(by, Asked("k", b"another"), lambda: found(by))["team"] == "ward-0"
    assert happened() == (1, 1)


@pytest.mark.django_db
def test_a_reply_that_is_no_json_undoes_what_it_tells_of(people: People) -> None:
    by = people.administrator
    with pytest.raises(ValueError):
        once(by, Asked("k", b"a ward"), lambda: (found(by), float("nan")))
    assert happened() == (0, 0) and not KeptReply.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["a b", "k" * 65, "ключ", "a\0", "a\n", " "])
def test_a_key_that_is_none_is_refused_before_anything_happens(people: People, key: str) -> None:
    by = people.administrator
    for look in (lambda: once(by, Asked(key, b""), lambda: found(by)), lambda: kept_reply(by, Asked(key, b""))):
        with pytest.raises(InvalidInputError):
            look()
    assert happened() == (0, 0)


@pytest.mark.django_db
def test_replies_are_kept_for_thirty_days(people: People) -> None:
    by = people.administrator
    for key, kept in (("old", NOW - KEPT_FOR), ("older", NOW - 2 * KEPT_FOR), ("new", NOW)):
        once(by, Asked(key, b""), lambda: "first")
        KeptReply.objects.filter(key=key).update(kept=kept)
    assert forget_old(now=NOW) == 1
    assert once(by, Asked("old", b""), lambda: "second") == "first"
    assert once(by, Asked("older", b""), lambda: "second") == "second"


@pytest.mark.django_db(transaction=True)
def test_old_replies_go_without_anybody_asking_for_it(people: People) -> None:
    once(people.owner, Asked("k", b""), lambda: "first")
    KeptReply.objects.update(kept=NOW - 2 * KEPT_FOR)

    async def until_it_is_gone() -> None:
        daily = asyncio.create_task(lifespan.daily())
        while await in_database(KeptReply.objects.exists):
            assert not daily.done()
            await asyncio.sleep(0.01)
        daily.cancel()

    asyncio.run(asyncio.wait_for(until_it_is_gone(), 30))


@pytest.mark.django_db
def test_a_password_that_was_asked_for_cannot_be_guessed_from_what_is_kept(people: People) -> None:
    content = b'{"password": "hunter2"}'
    once(people.owner, Asked("k", content), lambda: None)
    row = KeptReply.objects.get()
    assert row.digest != sha256(content).hexdigest() and "hunter2" not in f"{row.digest} {row.reply}"


_ask = st.tuples(
    st.sampled_from(["owner", "stranger"]), st.sampled_from("kl"), st.sampled_from([b"a", b"b"]), st.booleans()
)


@pytest.mark.django_db
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asks=st.lists(_ask, max_size=10))
def test_any_sequence_of_asks_does_what_a_dictionary_says(people: People, asks: list[Any]) -> None:
    """The model: the first ask of a user under a key that does not fail decides; the others hear of it."""
    known: dict[tuple[str, str], tuple[bytes, int]] = {}
    done: list[int] = []
    with transaction.atomic():
        for number, (who, key, content, fails) in enumerate(asks):

            def do(number: int = number, fails: bool = fails) -> int:
                if fails:
                    raise InvalidInputError("not so")
                done.append(number)
                return number

            first = known.get((who, key))
            try:
                reply: object = once(getattr(people, who), Asked(key, content), do)
            except GridError as error:
                reply = error.code
            if first is None:
                assert reply == ("invalid_input" if fails else number)
                if not fails:
                    known[who, key] = content, number
            else:
                assert reply == (first[1] if first[0] == content else "conflict")
        assert done == sorted(number for _, number in known.values())
        transaction.set_rollback(True)


# --- at the same time --------------------------------------------------------------------------------------------


class Threads:
    """Threads with connections of their own to one database."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def start(self, function: Callable[[], T]) -> Future[T]:
        def run() -> T:
            try:
                return function()
            finally:
                connection.close()

        return self._pool.submit(run)

    def run(self, function: Callable[[], T]) -> T:
        return self.start(function).result(60)


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True)), "postgres"])
def threads(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[Threads]:
    with ThreadPoolExecutor(12) as pool, pytest.MonkeyPatch.context() as patch, django_db_blocker.unblock():
        found = Threads(pool)
        if request.param == "postgres":
            patch.setitem(connections.databases, "default", databases.connection_to("once"))
            found.run(lambda: call_command("migrate", verbosity=0))
            # This module's tests share the server: each has its own people.
            found.run(lambda: User.objects.filter(username="administrator").update(username=f"was-{id(request)}"))
        yield found


@pytest.fixture
def by(threads: Threads) -> User:
    return threads.run(lambda: make_user("administrator", "administrator"))


def test_of_many_at_once_one_does_it_and_all_hear_of_it(threads: Threads, by: User) -> None:
    before = threads.run(happened)
    running = [threads.start(lambda: once(by, Asked("k", b"a ward"), lambda: found(by))) for _ in range(8)]
    replies = [each.result(60) for each in running]
    assert replies == [replies[0]] * 8
    assert threads.run(happened) == (before[0] + 1, before[1] + 1)


def test_who_comes_while_the_first_is_at_work_waits_for_its_outcome(threads: Threads, by: User) -> None:
    at_work, go_on = Event(), Event()

    def slowly() -> Any:
        at_work.set()
        assert go_on.wait(30)
        return "first"

    first = threads.start(lambda: once(by, Asked("k", b""), slowly))
    assert at_work.wait(30)
    second = threads.start(lambda: once(by, Asked("k", b""), lambda: "second"))
    other = threads.start(lambda: once(by, Asked("k", b"other"), lambda: "third"))
    with pytest.raises(TimeoutError):
        second.result(0.3)
    go_on.set()
    assert first.result(60) == second.result(60) == "first"
    assert isinstance(other.exception(60), ConflictError)


def test_where_the_first_fails_the_next_one_does_it(threads: Threads, by: User) -> None:
    before, tries = threads.run(happened), iter(range(100))

    def do() -> Any:
        reply = found(by, "wing")
        if next(tries) == 0:
            raise InvalidInputError("not so")
        return reply

    running = [threads.start(lambda: once(by, Asked("k", b"a wing"), do)) for _ in range(8)]
    failed = [each for each in running if each.exception(60) is not None]
    replies = [each.result(60) for each in running if each not in failed]
    assert len(failed) == 1 and isinstance(failed[0].exception(), InvalidInputError)
    assert replies == [replies[0]] * 7
    assert threads.run(happened) == (before[0] + 1, before[1] + 1) and next(tries) == 2


@pytest.mark.parametrize("threads", ["postgres"], indirect=True)
def test_an_ask_waits_for_nobody_who_waits_for_it(threads: Threads, by: User) -> None:
    """Most verbs lock the user's row before others: an ask under a key that locks it last would end in a deadlock."""
    team = threads.run(lambda: found(by, "shared"))["id"]
    holds_team = Event()

    def delete_under_a_key() -> Any:
        Team.objects.select_for_update().get(pk=team)
        holds_team.set()
        with connection.cursor() as cursor:
            while cursor.execute("SELECT FROM pg_locks WHERE NOT granted") or not cursor.fetchall():
                time.sleep(0.01)
        return "done"

    def send() -> str:
        with transaction.atomic():
            User.objects.select_for_update().get(pk=by.pk)
            return Team.objects.select_for_update().get(pk=team).slug

    first = threads.start(lambda: once(by, Asked("k", b""), delete_under_a_key))
    assert holds_team.wait(30)
    second = threads.start(send)
    assert first.result(60) == "done" and second.result(60).startswith("shared")
