"""The list of private answers over REST: as many queries for a page as for one, and no answer is read."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.budgets.actions import open_domain, place
from apps.budgets.models import Release
from apps.compute.certificates import certificate
from apps.compute.models import Disclosure
from apps.datasets.models import Dataset
from tests.factories.budgets import NOW, answer, ask, charged, held, priced, question
from tests.factories.people import People
from tests.factories.queue import publish
from tests.factories.rest import Api

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def datasets(people: People) -> list[Dataset]:
    """Two of the default domain, one of another."""
    made = [publish(people.owner, name) for name in ("Births", "Admissions", "Town")]
    place(made[2], open_domain("town", statement="Others.", by=people.owner), by=people.owner)
    return made


def disclose(dataset: UUID, number: int, people: People) -> None:
    Disclosure.objects.create(
        key=f"{number}", dataset=dataset, dataset_slug="d", version=1, user=people.scientist, route="aggregate",
        question="count of rows", columns=[], program_hash="a" * 64,
        crowds="b" * 64,
    )  # fmt: skip


def test_a_page_of_certificates_is_not_asked_for_row_by_row(people: People, datasets: list[Dataset]) -> None:
    api, costs = Api(people.scientist), []
    api("GET", "releases/")  # notes once that the token was used
    for number in range(1, 31):
        answer(ask(people.scientist, datasets[number % 3], f"{number}", epsilon=0.01, grant=number % 3))
        if number in (3, 30):
            with CaptureQueriesContext(connection) as asked:
                status, page = api("GET", "releases/")
            assert (status, len(page["results"])) == (200, number)
            costs.append(len(asked))
            assert not any('"budgets_release"."data"' in each["sql"] for each in asked), (
                "the answers stay where they are"
            )
    assert costs[0] == costs[1]


def test_certificates_of_a_page_are_those_of_its_answers(people: People, datasets: list[Dataset]) -> None:
    births, admissions, town = datasets
    for number, dataset in enumerate((births.pk, admissions.pk, admissions.pk, town.pk, UUID(int=7))):
        disclose(dataset, number, people)
    both = question(births, town)
    charged(people.scientist, both, priced(people.scientist, both, held(births, 2.0), held(town, 2.0, 2)), "both", NOW)
    for number, dataset in enumerate(datasets):
        ask(people.scientist, dataset, f"{number}", epsilon=0.1)
    for who in (people.scientist, people.owner):
        _, page = Api(who)("GET", "releases/")
        assert page["results"] == [certificate(row, to=who) for row in Release.objects.order_by("-at", "-pk")]
        exact = {row["position"]: row["disclosures_outside_the_ledger"] for row in page["results"]}
        # What is about a dataset that is gone counts as one of the default domain.
        assert exact == {1: 5, 2: 4, 3: 4, 4: 1}
        one = page["results"][0]
        assert Api(who)("GET", f"releases/{one['id']}/") == (200, one)
