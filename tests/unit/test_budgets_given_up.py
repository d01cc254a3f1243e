"""A charge whose answer nobody comes back for ends one day, and stays charged: the owner sees what became of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from apps.audit.models import AuditEvent
from apps.budgets import ledger
from apps.budgets.models import Release
from apps.budgets.states import State
from apps.budgets.verification import verify
from apps.core import clock
from apps.core.database import in_database
from apps.datasets.models import Dataset
from gridclient.wire.errors import ConflictError
from gridsite import lifespan
from gridsite.backup import restoring
from gridsite.backup.manifest import Manifest
from tests.factories.budgets import NOW, answer, ask, charged, held, priced, queries_pot, question
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def test_an_answer_that_nobody_comes_back_for_ends_and_stays_charged(people: People, births: Dataset) -> None:
    """A client that is lost, or a process that is killed, between charge and answer leaves such a one behind."""
    lost, begun = ask(people.scientist, births, "lost"), ask(people.scientist, births, "begun")
    kept = answer(ask(people.scientist, births, "kept"))
    spent = queries_pot().spent
    last = NOW + ledger.AGAIN_FOR
    slow = ledger.attempt(begun, now=last - timedelta(seconds=1))
    for late in (lost, begun):
        with pytest.raises(ConflictError, match="too long ago"):
            ledger.attempt(late, now=last)
    # As long as the last draw that was begun in time may take, nothing is given up.
    end = NOW + ledger.VOID_AFTER
    assert ledger.give_up_unanswered(now=end - timedelta(seconds=1)) == 0
    ledger.answered(begun, slow, data=b"slow", dtype="float64", shape=[])
    assert ledger.give_up_unanswered(now=end) == 1
    states = dict(Release.objects.values_list("key", "state"))
    assert states == {"lost": State.VOID, "begun": State.ANSWERED, "kept": State.ANSWERED}
    assert ledger.delivered(kept).state == State.DELIVERED
    event = AuditEvent.objects.get(verb="release_voided")
    assert (event.target, event.actor_name) == (f"release:{lost.pk}", "")
    assert queries_pot().spent == spent and verify()
    # Another process of the node does the same, and finds nothing to do.
    assert ledger.give_up_unanswered(now=end) == 0


def test_what_a_killed_process_left_behind_is_given_up_after_a_later_start(people: People, births: Dataset) -> None:
    asked, now = question(births), clock.now()
    price = priced(people.scientist, asked, held(births, 2.0), epsilon=0.1)
    left = charged(people.scientist, asked, price, "left", now - ledger.VOID_AFTER)
    fresh = charged(people.scientist, asked, price, "fresh", now)

    async def until_it_is_void() -> None:
        daily = asyncio.create_task(lifespan.daily())
        while await in_database(Release.objects.filter(pk=left.pk, state=State.CHARGED).exists):
            assert not daily.done()
            await asyncio.sleep(0.01)
        daily.cancel()

    asyncio.run(asyncio.wait_for(until_it_is_void(), 30))
    assert Release.objects.get(pk=left.pk).state == State.VOID
    assert Release.objects.get(pk=fresh.pk).state == State.CHARGED


def test_what_was_charged_when_a_backup_was_made_is_never_drawn_from_it(people: People, births: Dataset) -> None:
    """It may have been answered an hour later: of two draws for one charge, the mean tells more than was paid for."""
    lost, kept = ask(people.scientist, births, "lost"), answer(ask(people.scientist, births, "kept"))
    found = Manifest(1, "2026-02-01", "node", "ward", "sqlite", "", (2, ""), [], {}, {})
    restoring.put_in_order(found, "ab" * 32, operator="root")
    with pytest.raises(ConflictError):
        ledger.attempt(lost)
    assert ledger.delivered(kept).state == State.DELIVERED
    assert list(AuditEvent.objects.values_list("verb", flat=True).order_by("-seq")[:2]) == [
        "release_voided", "backup_restored",
    ]  # fmt: skip
