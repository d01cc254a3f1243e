"""Calls under an `Idempotency-Key`: whoever lost the response asks again, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.urls import URLPattern, get_resolver

from apps.accounts import actions
from apps.accounts.models import KeptReply, LockOut
from apps.accounts.scopes import Scope
from apps.api.views import CHANGES, KEY, View
from apps.audit.models import AuditEvent
from apps.datarequests.models import DataRequest
from apps.permissions.models import Grant
from tests.factories.people import PASSWORD, People
from tests.factories.queue import publish, submit
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db
WHY = {"reason": "Fine."}
TEAM = {"slug": "ward"}

# A route that changes something is in one of the two; one that is new fails here until somebody says in which.
KEYED = {
    "PATCH datasets/<str:slug>/", "POST datasets/<str:slug>/grants/", "DELETE grants/<int:id>/",
    "DELETE plans/<str:name>/", "POST requests/<uuid:id>/approve/", "POST requests/<uuid:id>/deny/",
    "POST requests/<uuid:id>/withdraw/", "POST users/", "PATCH users/<str:username>/", "POST teams/",
    "PATCH teams/<str:slug>/", "DELETE tokens/<str:prefix>/", "POST membership/", "POST sessions/<uuid:id>/stop/",
    "POST datasets/<str:slug>/budget/", "POST budget-requests/<uuid:id>/approve/",
    "POST budget-requests/<uuid:id>/deny/", "POST budget-requests/<uuid:id>/withdraw/",
    "POST domains/",
}  # fmt: skip
NOT_KEYED = {
    # Their replies are secrets.
    "POST sign-in/", "POST sign-in/assertion/", "POST tokens/", "POST assertions/", "POST challenge/",
    # The token is gone afterwards.
    "POST sign-out/",
    # Said by nodes, who sign each call for one use.
    "POST nodes/", "POST announcements/",
    # Calls the node.
    r"POST ^nodes/(?P<id>[-a-z0-9]{1,40})/(?P<verb>approve|reject|remove)/$",
}  # fmt: skip


def changing() -> Iterator[tuple[str, type[View]]]:
    """Every route under /api/ that changes something, with its view."""
    (api,) = [entry for entry in get_resolver().url_patterns if str(entry.pattern) == "api/"]

    def walk(patterns: list[Any]) -> Iterator[tuple[str, type[View]]]:
        for entry in patterns:
            if isinstance(entry, URLPattern):
                view = entry.callback.view_class  # type: ignore[attr-defined]
                for method in CHANGES:
                    if hasattr(view, method.lower()):
                        yield f"{method} {entry.pattern}", view
                assert not hasattr(view, "put")
            else:
                yield from walk(entry.url_patterns)

    yield from walk(api.url_patterns)  # type: ignore[union-attr]


def test_of_every_route_it_was_said_whether_it_takes_a_key() -> None:
    found = dict(changing())
    assert {name for name, view in found.items() if view.keyed} == KEYED
    assert {name for name, view in found.items() if not view.keyed} == NOT_KEYED


def events() -> int:
    return AuditEvent.objects.count()


@pytest.fixture
def request_(people: People) -> DataRequest:
    return submit(people.scientist, publish(people.owner))


def test_a_reviewer_who_lost_the_response_approves_again_and_reads_it(people: People, request_: DataRequest) -> None:
    api, path = Api(people.owner), f"requests/{request_.pk}/approve/"
    first = api("POST", path, WHY, "k")
    assert first[0] == 200 and first[1]["state"] == "approved"
    before = events()
    assert api("POST", path, WHY, "k") == first
    assert (events(), Grant.objects.exclude(program_hash="").count()) == (before, 1)
    assert code(api("POST", path, WHY, "l")) == code(api("POST", path, WHY)) == (409, "conflict")


def test_the_first_reply_stays_though_the_world_goes_on(people: People) -> None:
    """A late repeat must not give back what was taken meanwhile."""
    dataset = publish(people.owner)
    api, body = Api(people.owner), {"to": "scientist", "right": "read", "reason": "A study."}
    path = f"datasets/{dataset.slug}/grants/"
    first = api("POST", path, body, "k")
    assert first[0] == 201
    assert api("DELETE", f"grants/{first[1]['id']}/", None, "gone") == (204, None)
    assert api("DELETE", f"grants/{first[1]['id']}/", None, "gone") == (204, None)
    assert api("POST", path, body, "k") == first
    assert Grant.objects.filter(revoked_at=None, right="read").count() == 0
    changed = api("PATCH", f"datasets/{dataset.slug}/", {"description": "One."}, "d")
    assert api("PATCH", f"datasets/{dataset.slug}/", {"description": "Two."})[0] == 200
    assert api("PATCH", f"datasets/{dataset.slug}/", {"description": "One."}, "d") == changed
    assert api("GET", f"datasets/{dataset.slug}/")[1]["description"] == "Two."


def test_accounts_and_teams_are_made_once(people: People) -> None:
    api = Api(people.administrator)
    account = {"username": "newcomer", "password": PASSWORD, "roles": ["scientist"]}
    calls = [
        ("POST", "users/", account),
        ("PATCH", "users/newcomer/", {"roles": []}),
        ("POST", "teams/", TEAM),
        ("PATCH", "teams/ward/", {"members": ["newcomer"]}),
        ("PATCH", "users/newcomer/", {"active": False}),
    ]
    first = [api(*call, f"k{number}") for number, call in enumerate(calls)]
    assert [status for status, _ in first] == [201, 200, 201, 200, 200]
    before = events()
    assert [api(*call, f"k{number}") for number, call in enumerate(calls)] == first
    assert events() == before
    assert not KeptReply.objects.filter(reply__contains=PASSWORD).exists()


def test_a_refusal_is_not_kept(people: People) -> None:
    api = Api(people.administrator)
    assert code(api("POST", "teams/", {"slug": "no good"}, "k")) == (400, "invalid_input")
    assert code(api("POST", "teams/", TEAM | {"members": ["nobody"]}, "k")) == (400, "invalid_input")
    assert api("POST", "teams/", TEAM, "k")[0] == 201
    # All of a change or nothing, as without a key.
    assert api("PATCH", "users/stranger/", {"roles": ["scientist"], "password": "x"}, "l")[0] == 400
    assert api("GET", "users/stranger/")[1]["roles"] == []


def test_one_key_for_two_things_is_refused(people: People, request_: DataRequest) -> None:
    api, path = Api(people.owner), f"requests/{request_.pk}"
    first = api("POST", f"{path}/approve/", WHY, "k")
    for other in ((f"{path}/approve/", {"reason": "Good."}), (f"{path}/deny/", WHY), (f"{path}/approve/", None)):
        answer = api("POST", *other, "k")
        assert code(answer) == (409, "conflict") and answer[1]["error"]["details"] == {"field": "key"}
    assert api("POST", f"{path}/approve/", WHY, "k") == first


def test_a_key_of_somebody_else_opens_nothing(people: People, request_: DataRequest) -> None:
    path = f"requests/{request_.pk}/approve/"
    assert Api(people.owner)("POST", path, WHY, "k")[0] == 200
    for person in (people.stranger, people.other_owner):
        assert code(Api(person)("POST", path, WHY, "k")) == code(Api(person)("POST", path, WHY)) == (404, "not_found")
    assert code(Api(None)("POST", path, WHY, "k")) == (401, "authentication")


def test_the_token_is_looked_at_before_the_reply(people: People) -> None:
    by = people.administrator
    api = Api(by)
    assert api("POST", "teams/", TEAM, "k")[0] == 201
    narrow = Api(None)
    narrow.text = actions.create_token(user=by, name="narrow", expires=None, by=by, scopes=[Scope.READ])[1]
    assert code(narrow("POST", "teams/", TEAM, "k")) == (403, "not_permitted")
    actions.revoke_token(by.tokens.get(name="test"), by=by)
    assert code(api("POST", "teams/", TEAM, "k")) == (401, "authentication")


@pytest.mark.parametrize("key", ["", "a b", "k" * 65, "\xe9"])
def test_a_key_that_is_none_is_refused(people: People, key: str) -> None:
    api = Api(people.administrator)
    answer = api("POST", "teams/", TEAM, key)
    assert code(answer) == (400, "invalid_input") and answer[1]["error"]["details"]["field"] == "key"
    assert api("GET", "teams/")[1]["results"] == []


def test_a_route_that_keeps_nothing_says_so_and_does_nothing(people: People) -> None:
    """Ignored, the key would let a client believe that it may repeat the call."""
    api, signing = Api(people.scientist), {"username": "scientist", "password": PASSWORD}
    before = people.scientist.tokens.count()
    for path, body in (("tokens/", {"name": "laptop"}), ("sign-out/", None), ("sign-in/", signing)):
        answer = api("POST", path, body, "k")
        assert code(answer) == (400, "invalid_input") and KEY in answer[1]["error"]["message"], path
    assert people.scientist.tokens.filter(revoked_at=None).count() == before
    # What changes nothing has no use for one.
    assert api("GET", "me/", None, "k")[0] == 200 and not KeptReply.objects.exists()


def test_a_key_hides_no_guess_at_a_password(people: People) -> None:
    """In the transaction of a reply, the count of failures would be undone with the refusal."""
    api, guess = Api(people.scientist), {"password": "another one", "old_password": "a guess"}
    assert code(api("PATCH", "users/scientist/", guess, "k")) == (400, "invalid_input")
    assert not LockOut.objects.exists()
    answers = [code(api("PATCH", "users/scientist/", guess))[0] for _ in range(6)]
    assert answers == [400] * 5 + [429]


@pytest.mark.parametrize("method", ["POST", "REQUEST", "INITIAL", "PUT"])
def test_a_method_that_a_route_does_not_have_stays_one(people: People, method: str) -> None:
    assert Api(people.owner)(method, "users/owner/", {}, "k")[0] == 405


@pytest.mark.django_db(transaction=True)
def test_of_many_approvals_at_once_one_happens_and_all_read_of_it(people: People, request_: DataRequest) -> None:
    apis, before = [Api(people.owner) for _ in range(8)], events()

    def approve(api: Api) -> tuple[int, Any]:
        try:
            return api("POST", f"requests/{request_.pk}/approve/", WHY, "k")
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(approve, apis))
    assert answers == [answers[0]] * 8 and answers[0][0] == 200
    assert events() == before + 1 and AuditEvent.objects.latest("seq").verb == "request_approved"
