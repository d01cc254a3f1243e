"""A token that leaked does no more than what it was made for."""

from __future__ import annotations

from typing import Any

import pytest

from apps.accounts import actions
from apps.accounts.scopes import Scope, check_scope
from gridclient.wire.errors import InvalidInputError, NotPermittedError
from tests.factories.people import People
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db


def api_of(people: People, *scopes: str) -> Api:
    """The administrator, on a token for these scopes."""
    api = Api(people.administrator)
    _, api.text = actions.create_token(
        user=people.administrator, name="limited", expires=None, scopes=scopes, by=people.administrator
    )
    return api


@pytest.mark.parametrize("scope", list(Scope))
def test_every_token_may_look(people: People, scope: Scope) -> None:
    api = api_of(people, scope)
    status, me = api("GET", "me/")
    assert (status, me["scopes"]) == (200, [scope])
    assert api("GET", "users/")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("POST", "users/", Scope.GOVERN),
        ("PATCH", "users/scientist/", Scope.GOVERN),
        ("POST", "teams/", Scope.GOVERN),
        ("POST", "tokens/", Scope.GOVERN),
        ("PATCH", "datasets/births/", Scope.PUBLISH),
        ("POST", "datasets/births/grants/", Scope.PUBLISH),
        ("DELETE", "grants/1/", Scope.PUBLISH),
        ("POST", "requests/00000000-0000-0000-0000-000000000000/approve/", Scope.GOVERN),
        ("POST", "requests/00000000-0000-0000-0000-000000000000/deny/", Scope.GOVERN),
        ("POST", "requests/00000000-0000-0000-0000-000000000000/withdraw/", Scope.COMPUTE),
        ("DELETE", "plans/never-was/", Scope.COMPUTE),
    ],
)
def test_changes_need_their_scope(people: People, method: str, path: str, needed: Scope) -> None:
    for scope in Scope:
        answer: Any = api_of(people, scope)(method, path, {"surprise": 1})
        if scope is needed:
            assert answer[0] in (400, 404), "past the scope, a wrong body or an object that is not there"
        else:
            assert code(answer) == (403, "not_permitted")
            assert answer[1]["error"]["details"]["scope"] == needed


def test_a_limited_token_makes_no_wider_one(people: People) -> None:
    api = api_of(people, "govern", "publish")
    for asked, made in ((None, ["publish", "govern"]), (["publish"], ["publish"])):
        status, token = api("POST", "tokens/", {"name": "child", "scopes": asked})
        assert (status, token["scopes"]) == (201, made)
    assert code(api("POST", "tokens/", {"name": "child", "scopes": ["compute"]})) == (403, "not_permitted")
    assert Api(people.administrator)("POST", "tokens/", {"name": "child"})[1]["scopes"] is None


def test_a_token_signs_itself_out_whatever_it_is_for(people: People) -> None:
    assert api_of(people, "read")("POST", "sign-out/")[0] == 204


def test_scopes_are_known_ordered_and_kept(people: People) -> None:
    token, _ = actions.create_token(
        user=people.owner, name="x", expires=None, scopes=["publish", "read", "publish"], by=people.owner
    )
    assert token.scopes == ["read", "publish"]
    for wrong in (["everything"], []):
        with pytest.raises(InvalidInputError, match="read, compute, publish, govern"):
            actions.create_token(user=people.owner, name="x", expires=None, scopes=wrong, by=people.owner)


def test_no_scopes_are_all() -> None:
    for scope in Scope:
        check_scope(None, scope)
        check_scope([scope], scope)
        check_scope(["read"], Scope.READ)
    with pytest.raises(NotPermittedError, match="made for read and publish only"):
        check_scope(["read", "publish"], Scope.COMPUTE)
