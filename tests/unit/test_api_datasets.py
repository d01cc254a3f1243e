"""Datasets and grants over REST: visibility decides what exists, the owner decides what is allowed."""

from __future__ import annotations

import json

import pytest

from apps.datarequests.actions import approve
from apps.datasets.models import Dataset
from apps.permissions.models import Grant
from tests.factories.people import People
from tests.factories.queue import publish, submit
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


@pytest.fixture
def hidden(people: People) -> Dataset:
    return publish(people.owner, "Clinic Z", visibility="granted")


def test_a_scientist_finds_what_is_listed_with_the_rights_on_it(
    people: People, births: Dataset, hidden: Dataset
) -> None:
    api = Api(people.scientist)
    found = api("GET", "datasets/")[1]["results"]
    assert [row["slug"] for row in found] == ["february-births"]
    assert found[0]["rights"] == ["compute", "discover"] and found[0]["tags"] == ["#births"]
    assert api("GET", "datasets/february-births/")[1] == found[0]
    for query, count in (("q=%23births", 1), ("q=february&q=births", 1), ("q=february&q=nothing", 0), ("q=clinic", 0)):
        assert len(api("GET", f"datasets/?{query}")[1]["results"]) == count, query
    assert code(api("GET", "datasets/?" + "&".join(["q=a"] * 100))) == (400, "invalid_input")


def test_no_private_figure_is_in_the_metadata(people: People, births: Dataset) -> None:
    text = json.dumps(Api(people.owner)("GET", "datasets/")[1])
    assert "entity_count" not in text and births.current.sha256 not in text and str(births.current.folder) not in text


def test_a_hidden_dataset_looks_like_none_on_every_route(people: People, hidden: Dataset) -> None:
    grant = {"to": "scientist", "right": "read", "reason": "x"}
    for person in (people.scientist, people.other_owner, people.reviewer, people.administrator, people.stranger):
        api = Api(person)
        for method, rest, body in (
            ("GET", "", None),
            ("PATCH", "", {"name": "mine"}),
            ("GET", "grants/", None),
            ("POST", "grants/", grant),
        ):
            there, absent = (
                api(method, f"datasets/{hidden.slug}/{rest}", body),
                api(method, f"datasets/none/{rest}", body),
            )
            assert there == absent and there[0] == 404, (person.username, method, rest)


def test_the_owner_changes_the_words_and_nobody_else(people: People, births: Dataset) -> None:
    change = {"description": "Births of February.", "tags": ["#Births", "#February"], "visibility": "accounts"}
    for person in (people.scientist, people.other_owner, people.reviewer, people.auditor, people.administrator):
        assert code(Api(person)("PATCH", "datasets/february-births/", change)) == (403, "not_permitted")
    status, shown = Api(people.owner)("PATCH", "datasets/february-births/", change)
    assert status == 200
    assert {name: shown[name] for name in change} == change
    assert code(Api(people.owner)("PATCH", "datasets/february-births/", {"owner": "eve"})) == (400, "invalid_input")


def test_an_owner_closes_a_dataset_to_programs_without_hiding_it(people: People, births: Dataset) -> None:
    change = {"accounts_may_compute": False}
    assert code(Api(people.scientist)("PATCH", "datasets/february-births/", change)) == (403, "not_permitted")
    assert "compute" in Api(people.scientist)("GET", "datasets/february-births/")[1]["rights"]
    assert Api(people.owner)("PATCH", "datasets/february-births/", change)[0] == 200
    assert Api(people.scientist)("GET", "datasets/february-births/")[1]["rights"] == ["discover"]


def test_a_grant_is_given_seen_and_taken_back(people: People, hidden: Dataset) -> None:
    owner, scientist = Api(people.owner), Api(people.scientist)
    body = {
        "to": "scientist",
        "right": "aggregate",
        "columns": ["weight_kg"],
        "expires": "2999-01-01",
        "reason": "Study 7",
    }
    status, made = owner("POST", f"datasets/{hidden.slug}/grants/", body)
    assert status == 201 and (made["to"], made["right"], made["columns"]) == ("scientist", "aggregate", ["weight_kg"])
    assert scientist("GET", f"datasets/{hidden.slug}/")[1]["rights"] == ["aggregate", "compute", "discover"]
    assert [row["id"] for row in scientist("GET", f"datasets/{hidden.slug}/grants/")[1]["results"]] == [made["id"]]
    assert code(scientist("DELETE", f"grants/{made['id']}/")) == (403, "not_permitted")
    assert owner("DELETE", f"grants/{made['id']}/") == (204, None)
    assert scientist("GET", f"datasets/{hidden.slug}/")[0] == 404
    assert Grant.objects.get(pk=made["id"]).revoked_at is not None


def test_a_train_grant_may_name_the_programs_that_it_is_for(people: People, hidden: Dataset) -> None:
    owner, scientist = Api(people.owner), Api(people.scientist)
    path = f"datasets/{hidden.slug}/grants/"
    body = {"to": "scientist", "right": "train", "programs": ["ab" * 32], "reason": "Study 7"}
    status, made = owner("POST", path, body)
    assert (status, made["right"], made["programs"]) == (201, "train", ["ab" * 32])
    assert scientist("GET", f"datasets/{hidden.slug}/")[1]["rights"] == ["compute", "discover", "train"]
    assert code(owner("POST", path, {**body, "right": "aggregate"})) == (400, "invalid_input")
    assert code(owner("POST", path, {**body, "programs": "ab" * 32})) == (400, "invalid_input")


def test_grants_of_others_look_like_none(people: People, hidden: Dataset) -> None:
    made = Api(people.owner)(
        "POST", f"datasets/{hidden.slug}/grants/", {"to": "scientist", "right": "read", "reason": "Study 7"}
    )[1]
    for person in (people.stranger, people.other_owner, people.administrator):
        api = Api(person)
        assert api("DELETE", f"grants/{made['id']}/") == api("DELETE", "grants/999999/")
        assert api("DELETE", "grants/99999999999999999999999/")[0] == 404


def test_a_bad_grant_is_refused_with_every_problem(people: People, births: Dataset) -> None:
    api, path = Api(people.owner), "datasets/february-births/grants/"
    body = {"to": "scientist", "right": "all", "columns": ["height"], "expires": "2001-01-01", "reason": " "}
    status, answer = api("POST", path, body)
    assert status == 400 and len(answer["error"]["details"]["problems"]) == 4
    good = {"right": "read", "reason": "x"}
    for to in ("nobody", "team:none", ""):
        assert code(api("POST", path, {**good, "to": to})) == (400, "invalid_input")
    assert code(api("POST", path, {**good, "to": "scientist", "expires": "soon"})) == (400, "invalid_input")
    assert not Grant.objects.exists()


def test_a_team_holds_a_grant_together(people: People, hidden: Dataset) -> None:
    Api(people.administrator)("POST", "teams/", {"slug": "researchers", "members": ["scientist"]})
    body = {"to": "team:researchers", "right": "compute", "reason": "Study 7"}
    assert Api(people.owner)("POST", f"datasets/{hidden.slug}/grants/", body)[1]["to"] == "team:researchers"
    assert Api(people.scientist)("GET", f"datasets/{hidden.slug}/")[0] == 200
    assert Api(people.stranger)("GET", f"datasets/{hidden.slug}/")[0] == 404


def test_grants_that_hold_are_not_lost_among_approvals_and_revoked_ones(people: People, births: Dataset) -> None:
    owner, path = Api(people.owner), f"datasets/{births.slug}/grants/"
    body = {"to": "scientist", "right": "aggregate", "reason": "Study 7"}
    kept, taken = (owner("POST", path, body)[1]["id"] for _ in range(2))
    owner("DELETE", f"grants/{taken}/")
    request = submit(people.scientist, births)
    approve(request, reason="Fine.", by=people.owner)
    once = Grant.objects.get(request_id=request.pk).pk
    for query, ids in (
        ("", {kept}), ("?once=1", {kept, once}), ("?revoked=1", {kept, taken}),
        ("?once=1&revoked=1", {kept, taken, once}), ("?once=0&revoked=0", {kept}),
    ):  # fmt: skip
        rows = owner("GET", path + query)[1]["results"]
        assert {row["id"] for row in rows} == ids, query
        assert {row["id"]: row["request"] for row in rows if row["request"]} == (
            {once: str(request.pk)} if once in ids else {}
        )
    assert code(owner("GET", f"{path}?once=yes")) == (400, "invalid_input")
