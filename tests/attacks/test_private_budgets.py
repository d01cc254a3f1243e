"""Attacks 16, 26 and 28 on what pays for answers with noise: spent twice, by the wrong person, used up for others.

What an owner would lose: a person's budget that was promised to be one; what an analyst would: the answers.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from safetensors.numpy import save_file

from apps.accounts.actions import set_roles
from apps.accounts.models import User
from apps.budgets import ledger, pricing
from apps.budgets.actions import open_block, open_domain, place
from apps.budgets.pots import NANO
from apps.budgets.verification import verify
from apps.compute import publish as publishing
from apps.compute.certificates import certificate
from apps.datasets.assets import Ingested
from apps.datasets.ingest import ingest
from apps.datasets.models import Dataset
from apps.permissions import actions
from apps.permissions.models import Grant
from apps.permissions.policies import Ask, Input, release_grants
from gridclient.wire.errors import BudgetExhaustedError, GetNotPermittedError, InvalidInputError, NotPermittedError
from gridclient.wire.messages import Column, PublishSpec
from tests.factories.budgets import ask, charged, held, priced, queries_pot, question
from tests.factories.people import People, make_user
from tests.factories.queue import WEIGHTS, publish

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
COLUMNS = [Column("weight_kg", low=0.5, high=6.0), Column("length_cm", low=30.0, high=60.0)]


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def give(dataset: Dataset, people: People, columns: list[str], epsilon: float) -> Grant:
    return actions.give(
        dataset, to=people.scientist, right="release", columns=columns, epsilon=epsilon, reason="Study 7",
        by=people.owner, now=NOW,
    )  # fmt: skip


def test_a_column_with_a_small_allowance_is_not_paid_for_with_that_of_another(people: People, births: Dataset) -> None:
    give(births, people, ["weight_kg"], 0.1)
    large = give(births, people, ["length_cm"], 1.5)
    key = str(births.pk)

    def grants(*inputs: Input) -> list[Grant | None]:
        return release_grants(people.scientist, Ask("agg", list(inputs)), now=NOW)[births.pk]

    assert grants(Input(key, 1, ["length_cm"])) == [large]
    with pytest.raises(GetNotPermittedError):
        grants(Input(key, 1, ["weight_kg", "length_cm"]))
    with pytest.raises(GetNotPermittedError):
        grants(Input(key, 1, None))


def test_two_versions_are_not_paid_for_with_the_allowance_of_one(people: People, births: Dataset) -> None:
    first = births.current
    same = {name: getattr(first, name) for name in Ingested.__struct_fields__}
    births.versions.create(number=2, sequence=first.sequence, **same)
    give(births, people, ["weight_kg"], 0.1)
    give(births, people, ["length_cm"], 1.5)
    inputs = [Input(str(births.pk), 1, ["weight_kg"]), Input(str(births.pk), 2, ["length_cm"])]
    with pytest.raises(GetNotPermittedError):
        release_grants(people.scientist, Ask("agg", inputs), now=NOW)
    both = give(births, people, ["weight_kg", "length_cm"], 0.2)
    assert release_grants(people.scientist, Ask("agg", inputs), now=NOW) == {births.pk: [both]}


def published_as(people: People, folder: Path, **declared: Any) -> Dataset:
    """What the publisher's upload becomes, as `publish` commits it."""
    spec = PublishSpec(kind="tensor", name="Again", columns=COLUMNS, **declared)
    folder.mkdir()
    save_file({"values": WEIGHTS}, folder / "upload")
    (folder / "out").mkdir()
    ingested = ingest(spec, folder / "upload", None, b"k" * 32, folder / "out")
    with transaction.atomic():
        made = publishing._publish(people.owner, spec, ingested, folder / "out")
    return Dataset.objects.get(pk=made["id"])


def test_the_same_people_have_one_budget_however_often_they_are_published(
    people: People, births: Dataset, tmp_path: Path
) -> None:
    open_domain("town", statement="Others.", by=people.owner, now=NOW)
    town = published_as(people, tmp_path / "a", domain="town")

    def pot(dataset: Dataset) -> int:
        return pricing.pots_of([dataset.pk])[str(dataset.pk)].pk

    beside = published_as(people, tmp_path / "b", entities_of=town.slug)
    assert pot(beside) == pot(town) != pot(births)
    for number, (other, domain) in enumerate([(town, "default"), (births, "town")]):
        with pytest.raises(InvalidInputError, match="these are the people of"):
            published_as(people, tmp_path / f"c{number}", entities_of=other.slug, domain=domain)
    with pytest.raises(InvalidInputError, match="these are the people of"):
        published_as(people, tmp_path / "d", entities_of=town.slug, replace=births.slug)
    assert pot(published_as(people, tmp_path / "e", entities_of=births.slug)) == pot(births)
    published_as(people, tmp_path / "f", entities_of=town.slug, replace=beside.slug)


def test_a_domain_takes_data_of_nobody_whom_its_people_never_knew(
    people: People, births: Dataset, tmp_path: Path
) -> None:
    """Else a publisher puts data of their own into it, and lets a friend use up what its people were promised."""
    town = open_domain("town", statement="Others.", by=people.other_owner, now=NOW)
    refused = "opened it, own data in it, or review"
    with pytest.raises(NotPermittedError, match=refused):
        place(births, town, by=people.owner, now=NOW)
    with pytest.raises(NotPermittedError, match=refused):
        published_as(people, tmp_path / "a", domain="town")
    with pytest.raises(NotPermittedError, match=refused):
        open_block(town, "2026-12", epsilon_nano=100 * NANO, by=people.owner, now=NOW)
    assert Dataset.objects.count() == 1
    mine = publish(people.other_owner, name="Town")
    place(mine, town, by=people.other_owner, now=NOW)
    colleague = make_user("colleague", "owner", "reviewer")
    place(publish(colleague, name="Town 2"), town, by=colleague, now=NOW)
    # Who has data in it goes on, whoever opened it.
    again = publish(colleague, name="Town 3")
    place(again, town, by=set_roles(colleague, roles=["owner"], by=None), now=NOW)
    # Everybody's domain stays everybody's.
    published_as(people, tmp_path / "b", domain="default")


def test_a_publisher_and_a_friend_use_up_nobody_elses_budget_in_a_day(people: People, births: Dataset) -> None:
    def spend(user: User, dataset: Dataset, *, grant: int, now: datetime = NOW) -> None:
        asked = question(dataset)
        price = priced(user, asked, held(dataset, 100.0, grant), epsilon=0.5, now=now)
        charged(user, asked, price, uuid4().hex, now)

    def until_refused(user: User, *datasets: Dataset, now: datetime = NOW) -> None:
        def spend_all() -> None:
            for number in range(100):
                spend(user, datasets[number % len(datasets)], grant=number, now=now)

        with pytest.raises(BudgetExhaustedError, match="today"):
            spend_all()

    decoys = [publish(people.other_owner, name=f"Decoy {number}") for number in range(2)]
    for friend in (people.stranger, people.auditor):
        until_refused(friend, *decoys)
    pot = queries_pot()
    assert pot.cap // 8 < pot.spent <= pot.cap // 4
    with pytest.raises(BudgetExhaustedError, match="today"):
        spend(people.other_owner, decoys[0], grant=1)
    left = pricing.budget(people.stranger, decoys[0], grants=[held(decoys[0], 100.0)], now=NOW)
    assert left.remaining < 0.175 < left.allowance
    spend(people.scientist, births, grant=200)
    # A question about both takes from the part of each.
    both = question(births, decoys[0])
    price = priced(people.scientist, both, held(births, 2.0, 201), held(decoys[0], 2.0, 202))
    with pytest.raises(BudgetExhaustedError, match="today"):
        charged(people.scientist, both, price, "both", NOW)
    until_refused(people.stranger, *decoys, now=NOW + timedelta(days=1))
    assert queries_pot().spent <= queries_pot().cap * 3 // 4
    assert verify()


def test_whose_people_are_in_nobody_elses_data_gives_them_out_as_they_like(people: People, births: Dataset) -> None:
    ask(people.scientist, births, "k", epsilon=1.5)
    assert queries_pot().spent > queries_pot().cap // 4


def test_somebody_who_lets_answers_fail_stops_nobody_elses(people: People, births: Dataset) -> None:
    for key in ("1", "2"):
        ledger.void(ask(people.scientist, births, key, epsilon=0.01), "The worker failed.")
    with pytest.raises(NotPermittedError, match="failed 2 times"):
        ask(people.scientist, births, "3")
    ledger.void(ask(people.reviewer, births, "4", epsilon=0.01), "The worker failed.")
    with pytest.raises(NotPermittedError, match="failed 2 times"):
        ask(people.administrator, births, "5")


def test_a_certificate_does_not_tell_neighbours_of_a_hidden_dataset(people: People) -> None:
    hidden = publish(people.owner, visibility="granted")
    release = ask(people.scientist, hidden, "k")
    shown = certificate(release, to=people.other_owner)
    assert shown["data"] == [{"dataset": "", "version": 0}]
    assert str(hidden.pk) not in str(shown) and hidden.slug not in str(shown)
    assert certificate(release, to=people.scientist)["data"] == [{"dataset": str(hidden.pk), "version": 1}]
    assert certificate(release, to=people.owner)["data"] == [{"dataset": hidden.slug, "version": 1}]
