"""The queue over REST: what each person sees of a request, and what they can do with it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from apps.datarequests.models import DataRequest
from apps.datasets.models import Dataset
from tests.factories.people import People
from tests.factories.queue import publish, submit
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


@pytest.fixture
def request_(people: People, births: Dataset) -> DataRequest:
    return submit(people.scientist, births)


def test_a_reviewer_reads_what_there_is_to_decide(people: People, request_: DataRequest) -> None:
    status, shown = Api(people.reviewer)("GET", f"requests/{request_.pk}/")
    assert status == 200
    assert (shown["requester"], shown["state"], shown["reason"]) == ("scientist", "submitted", "Monthly report")
    assert shown["words"] == "the sum of February births" and shown["shape"] == []
    assert [(entry["dataset"], entry["version"]) for entry in shown["inputs"]] == [("february-births", 1)]
    assert "program" not in shown


def test_oldest_first_and_by_state(people: People, births: Dataset) -> None:
    made = [str(submit(people.scientist, births).pk) for _ in range(3)]
    api = Api(people.owner)
    assert [row["id"] for row in api("GET", "requests/?state=submitted")[1]["results"]] == made
    assert api("POST", f"requests/{made[0]}/deny/", {"reason": "Too narrow."})[1]["state"] == "denied"
    assert [row["id"] for row in api("GET", "requests/?state=submitted")[1]["results"]] == made[1:]
    first = api("GET", "requests/?limit=2")[1]
    rest = api("GET", f"requests/?limit=2&after={first['next']}")[1]
    assert [row["id"] for row in first["results"] + rest["results"]] == made and rest["next"] is None
    assert code(api("GET", "requests/?state=lost")) == (400, "invalid_input")


def test_an_approval_returns_at_once(people: People, request_: DataRequest) -> None:
    status, shown = Api(people.owner)("POST", f"requests/{request_.pk}/approve/", {"reason": "Fine."})
    assert (status, shown["state"], shown["decided_by"], shown["decision_reason"]) == (
        200,
        "approved",
        "owner",
        "Fine.",
    )
    assert shown["answered_at"] is None


def test_a_decision_needs_a_reason_and_a_fresh_page(people: People, request_: DataRequest) -> None:
    api, path = Api(people.owner), f"requests/{request_.pk}"
    assert code(api("POST", f"{path}/approve/")) == (400, "invalid_input")
    assert code(api("POST", f"{path}/deny/", {})) == (400, "invalid_input")
    stale = {"reason": "Fine.", "seen": "2020-01-01T00:00:00Z"}
    assert code(api("POST", f"{path}/approve/", stale)) == (409, "conflict")
    seen = api("GET", f"{path}/")[1]["updated"]
    assert api("POST", f"{path}/approve/", {"reason": "Fine.", "seen": seen})[0] == 200
    assert code(api("POST", f"{path}/deny/", {"reason": "No."})) == (409, "conflict")


def test_a_person_outside_cannot_tell_a_request_from_none(people: People, request_: DataRequest) -> None:
    for person in (people.stranger, people.other_owner, people.administrator):
        api = Api(person)
        for method, verb in (("GET", ""), ("POST", "approve/"), ("POST", "deny/"), ("POST", "withdraw/")):
            there = api(method, f"requests/{request_.pk}/{verb}", {"reason": "x"})
            absent = api(method, f"requests/{uuid4()}/{verb}", {"reason": "x"})
            assert there == absent and there[0] == 404, (person.username, verb)
        assert api("GET", "requests/")[1]["results"] == []


def test_who_sees_a_request_without_deciding_cannot_decide(people: People, request_: DataRequest) -> None:
    for person in (people.auditor, people.scientist):
        api = Api(person)
        assert api("GET", f"requests/{request_.pk}/")[0] == 200
        for verb in ("approve", "deny"):
            assert code(api("POST", f"requests/{request_.pk}/{verb}/", {"reason": "x"})) == (403, "not_permitted")
    assert code(Api(people.owner)("POST", f"requests/{request_.pk}/withdraw/")) == (403, "not_permitted")
    assert Api(people.scientist)("POST", f"requests/{request_.pk}/withdraw/")[1]["state"] == "withdrawn"
