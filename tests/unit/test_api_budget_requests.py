"""Requests for budgets over REST: what each person sees, and what they can do."""

from __future__ import annotations

from uuid import uuid4

import pytest

from apps.datasets.models import Dataset
from tests.factories.people import People
from tests.factories.queue import publish
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db
WANTED = {"epsilon": 1.0, "reason": "Growth curves"}


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def test_a_budget_is_asked_for_and_given_in_part(people: People, births: Dataset) -> None:
    asker, owner = Api(people.scientist), Api(people.owner)
    assert code(asker("GET", "datasets/february-births/budget/"))[0] == 403
    status, made = asker("POST", "datasets/february-births/budget/", WANTED)
    assert (status, made["state"], made["epsilon"], made["given"]) == (201, "submitted", 1.0, None)
    path = f"budget-requests/{made['id']}"
    assert [row["id"] for row in owner("GET", "budget-requests/?state=submitted")[1]["results"]] == [made["id"]]
    assert code(owner("POST", f"{path}/approve/", {"reason": "Fine.", "epsilon": 2.0})) == (400, "invalid_input")
    status, given = owner("POST", f"{path}/approve/", {"reason": "Half will do.", "epsilon": 0.5})
    assert (status, given["state"], given["given"], given["decided_by"]) == (200, "approved", 0.5, "owner")
    assert asker("GET", f"{path}/")[1] == given
    assert asker("GET", "datasets/february-births/budget/")[1]["allowance"] == pytest.approx(0.5)
    assert code(owner("POST", f"{path}/deny/", {"reason": "No."})) == (409, "conflict")
    assert owner("GET", "budget-requests/?state=submitted")[1]["results"] == []
    assert code(owner("GET", "budget-requests/?state=lost")) == (400, "invalid_input")


def test_asking_twice_under_one_key_asks_once_and_without_one_is_a_conflict(people: People, births: Dataset) -> None:
    asker, path = Api(people.scientist), "datasets/february-births/budget/"
    first = asker("POST", path, WANTED, key="k")
    assert asker("POST", path, WANTED, key="k") == first and first[0] == 201
    assert code(asker("POST", path, WANTED)) == (409, "conflict")
    withdrawn = asker("POST", f"budget-requests/{first[1]['id']}/withdraw/")
    assert (withdrawn[0], withdrawn[1]["state"]) == (200, "withdrawn")


def test_a_person_outside_cannot_tell_a_budget_request_from_none(people: People, births: Dataset) -> None:
    _, made = Api(people.scientist)("POST", "datasets/february-births/budget/", WANTED)
    for person in (people.stranger, people.other_owner, people.reviewer, people.administrator):
        api = Api(person)
        for method, verb in (("GET", ""), ("POST", "approve/"), ("POST", "deny/"), ("POST", "withdraw/")):
            body = {"reason": "x"} if verb in ("approve/", "deny/") else None
            there = api(method, f"budget-requests/{made['id']}/{verb}", body)
            assert there == api(method, f"budget-requests/{uuid4()}/{verb}", body) and there[0] == 404
        assert api("GET", "budget-requests/")[1]["results"] == []
    secret = publish(people.owner, "Staff list", visibility="granted")
    hidden = Api(people.scientist)("POST", f"datasets/{secret.slug}/budget/", WANTED)
    assert hidden == Api(people.scientist)("POST", "datasets/nothing/budget/", WANTED) and hidden[0] == 404
