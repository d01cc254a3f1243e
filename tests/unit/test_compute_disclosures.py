"""Exact answers as disclosures: who got what, and what an answer is compared with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import AccessToken, User
from apps.accounts.token_actions import create_token
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.compute import disclosures, release
from apps.compute.checks import CHECKS
from apps.compute.messages import PEOPLE, Closed, Examine, Examined, Input, Proposal, Value
from apps.compute.models import Disclosure, StoredAnswer
from apps.compute.workers import Worker
from apps.datasets.models import Dataset
from apps.permissions.actions import give
from gridclient.program.graph import Ref
from gridclient.wire.errors import GetNotPermittedError
from gridclient.wire.messages import TensorHeader
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_known", set())


class Bench:
    """A worker whose checks fail as a test says, and what the door makes of it."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.failed: list[str] = []
        self.examined: list[Examine] = []
        self.crowds = "ab" * 32

    async def ask(self, question: Any) -> Value | Examined:
        if isinstance(question, Examine):
            self.examined.append(question)
            (self.folder / "answer-crowds").write_bytes(b"who")
            return Examined(1, self.failed, self.crowds)
        return Value(1, TensorHeader("float64", [], 8), bytes(8), "tensor")

    def get(self, person: User, closed: Closed | None = None, label: str = "agg") -> release.Released:
        create_token(user=person, name=f"laptop {AccessToken.objects.count()}", expires=None, by=person)
        token = AccessToken.objects.get(user=person, pk=max(AccessToken.objects.values_list("pk", flat=True)))
        caller = release.Caller(person.pk, token.pk, token.expires)
        proposal = self.proposal(closed, label)
        worker = cast(Worker, SimpleNamespace(ask=self.ask))
        path = self.folder / "answer"
        return asyncio.run(release.pointer(worker, Ref(1), proposal, caller=caller, path=path))

    def proposal(self, closed: Closed | None, label: str) -> Proposal:
        inputs = [Input(str(self.dataset.pk), 1, ["weight_kg"])]
        return Proposal(1, "ab" * 32, label, inputs, closed, "tensor", "float64", [], 1, 8, 1)

    def total(self, kind: str = "sum") -> Closed:
        return Closed(kind, str(self.dataset.pk), 1, ["weight_kg"])


@pytest.fixture
def bench(people: People, tmp_path: Path) -> Bench:
    births = publish(people.owner)
    give(births, to=people.scientist, right="aggregate", reason="Study 7", by=people.owner)
    return Bench(births, tmp_path)


def test_an_owner_sees_what_was_disclosed_to_whom(people: People, bench: Bench) -> None:
    give(bench.dataset, to=people.reviewer, right="aggregate", reason="Study 8", by=people.owner)
    for person in (people.scientist, people.scientist, people.reviewer):
        assert bench.get(person, bench.total()).route == "aggregate"
    assert len(bench.examined) == 1  # answered from the store ever after
    found = list(disclosures.disclosures_visible_to(people.owner).values_list("user", "route", "question", "crowds"))
    assert found == [
        (person.pk, "aggregate", "sum of weight_kg", bench.crowds) for person in (people.reviewer, people.scientist)
    ]
    assert not disclosures.disclosures_visible_to(people.other_owner).exists()
    assert disclosures.numbers_beside([[bench.dataset.pk]]) == [Disclosure.objects.count()] == [2]


def test_an_answer_is_compared_with_the_people_of_all_earlier_ones(people: People, bench: Bench) -> None:
    bench.get(people.scientist, bench.total())
    bench.crowds = "cd" * 32
    bench.get(people.scientist, bench.total("mean"))
    first, second = bench.examined
    assert (first.known, first.least.k, first.data) == ([], 10, bench.dataset.current.sha256)
    (known,) = second.known
    assert Path(known).name == "ab" * 32 and Path(known).read_bytes() == b"who"


def test_an_answer_is_compared_once_with_the_same_people_of_its_version_and_with_every_one_of_another(
    people: People, bench: Bench
) -> None:
    """However many columns were asked for, one more takes no longer; a corrected column is found all the same."""
    one, other = "ab" * (PEOPLE // 2), "cd" * (PEOPLE // 2)
    with transaction.atomic():
        for number, behind in enumerate((one, one, one, other)):
            inputs = [Input(str(bench.dataset.pk), 1, [f"column {number}"])]
            proposal = msgspec.structs.replace(bench.proposal(None, "agg"), inputs=inputs, program_hash=str(number))
            crowds = {(str(bench.dataset.pk), 1): behind + f"{number:0{64 - PEOPLE}}"}
            disclosures.disclose(proposal, "approved", crowds, by=people.scientist)
    asked = bench.total()
    assert len(disclosures.earlier(asked).known) == 2
    Disclosure.objects.update(version=2)
    assert len(disclosures.earlier(asked).known) == 4


def test_an_answer_released_meanwhile_is_compared_too(people: People, bench: Bench) -> None:
    """Two who ask at once, each for one half of a difference, do not both get it unseen."""
    ask = bench.ask

    async def overtaken(question: Any) -> Value | Examined:
        found = await ask(question)
        if isinstance(question, Examine) and len(bench.examined) == 1:
            await asyncio.to_thread(_disclosed, bench, people.scientist)
        return found

    bench.ask = overtaken  # type: ignore[method-assign]
    assert bench.get(people.scientist, bench.total()).route == "aggregate"
    assert [len(each.known) for each in bench.examined] == [0, 1]


def _disclosed(bench: Bench, person: User) -> None:
    disclosures.disclose(bench.proposal(None, "agg"), "approved", {(str(bench.dataset.pk), 1): "ef" * 32}, by=person)
    connection.close()


def test_a_refusal_is_the_same_whichever_check_failed(people: People, bench: Bench) -> None:
    told, queries = set(), set()
    for failed in [[name] for name in CHECKS] + [list(CHECKS)]:
        bench.failed = failed
        with CaptureQueriesContext(connection) as captured, pytest.raises(GetNotPermittedError) as caught:
            bench.get(people.scientist, bench.total())
        told.add((caught.value.message, repr(caught.value.details)))
        queries.add(len(captured))
    (text, _), *others = told
    assert not others and not any(name in text for name in ("dominance", "p-percent", "freedom"))
    assert len(queries) == 1
    events = AuditEvent.objects.filter(verb=Verb.AGGREGATE_WITHHELD).select_related("text").order_by("seq")
    assert [event.payload["checks"] for event in events if event.payload] == [[name] for name in CHECKS] + [
        list(CHECKS)
    ]
    assert not Disclosure.objects.exists() and not StoredAnswer.objects.exists()


def test_without_a_grant_nothing_is_examined(people: People, bench: Bench) -> None:
    with pytest.raises(GetNotPermittedError):
        bench.get(people.other_owner, bench.total())
    assert bench.examined == [] and not AuditEvent.objects.filter(verb=Verb.AGGREGATE_WITHHELD).exists()


def test_a_read_by_somebody_else_is_a_disclosure_and_the_owners_own_is_none(people: People, bench: Bench) -> None:
    give(bench.dataset, to=people.reviewer, right="read", reason="Study 9", by=people.owner)
    for person in (people.owner, people.reviewer):
        assert bench.get(person, None, "rows").route == "read"
    assert [(row.user, row.route, row.crowds) for row in Disclosure.objects.all()] == [(people.reviewer, "read", "")]


def test_an_answer_kept_before_people_were_compared_is_examined_once(people: People, bench: Bench) -> None:
    bench.get(people.scientist, bench.total())
    Disclosure.objects.all().delete()
    StoredAnswer.objects.update(crowds="", data=b"earlier.")
    release._known.clear()
    assert bench.get(people.scientist, bench.total()).answer.data == b"earlier."
    assert len(bench.examined) == 2 and StoredAnswer.objects.get().crowds == bench.crowds


def test_an_approved_answer_counts_with_the_people_behind_it(people: People, bench: Bench) -> None:
    proposal = bench.proposal(None, "tainted")
    assert disclosures.behind(proposal) == [Closed("sum", str(bench.dataset.pk), 1, ["weight_kg"])]
    assert disclosures.behind(bench.proposal(bench.total("mean"), "agg")) == [bench.total("mean")]
