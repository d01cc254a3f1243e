"""Accounts, teams, tokens and the audit log over REST: who may, and what the others see."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from apps.accounts import actions
from apps.accounts.models import AccessToken, LockOut, User
from apps.core.clock import now
from tests.factories.people import PASSWORD, People
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db
NEW_PASSWORD = "another long pass phrase"


def test_an_administrator_makes_changes_and_closes_accounts(people: People) -> None:
    api = Api(people.administrator)
    status, made = api("POST", "users/", {"username": "Ana", "password": PASSWORD, "roles": ["scientist"]})
    assert (status, made["username"], made["roles"], made["active"]) == (201, "ana", ["scientist"], True)
    status, changed = api("PATCH", "users/Ana/", {"roles": ["scientist", "owner"], "password": NEW_PASSWORD})
    assert (status, changed["roles"]) == (200, ["owner", "scientist"])
    assert actions.sign_in(username="ana", password=NEW_PASSWORD, address="192.0.2.1").username == "ana"
    assert api("PATCH", "users/ana/", {"active": False})[1]["active"] is False
    assert api("PATCH", "users/ana/", {"active": True})[1]["active"] is True
    assert api("GET", "users/")[1]["results"][0]["username"] == "ana"


def test_a_change_that_fails_half_way_changes_nothing(people: People) -> None:
    api = Api(people.administrator)
    answer = api("PATCH", "users/scientist/", {"roles": ["auditor"], "password": "short"})
    assert code(answer) == (400, "invalid_input")
    assert api("GET", "users/scientist/")[1]["roles"] == ["scientist"]
    assert code(api("PATCH", "users/scientist/", {})) == (400, "invalid_input")


@pytest.mark.parametrize("name", ["owner", "scientist", "reviewer", "auditor", "stranger"])
def test_nobody_else_makes_accounts_or_gives_themselves_roles(people: People, name: str) -> None:
    api = Api(getattr(people, name))
    body = {"username": "eve", "password": PASSWORD, "roles": ["administrator"]}
    assert code(api("POST", "users/", body)) == (403, "not_permitted")
    assert code(api("PATCH", f"users/{name}/", {"roles": ["administrator"]})) == (403, "not_permitted")
    assert code(api("POST", "teams/", {"slug": "eves"})) == (403, "not_permitted")


def test_an_account_one_may_not_see_looks_like_one_that_is_not_there(people: People) -> None:
    api = Api(people.scientist)
    assert api("GET", "users/owner/") == api("GET", "users/nobody/")
    assert api("PATCH", "users/owner/", {"roles": []}) == api("PATCH", "users/nobody/", {"roles": []})
    assert api("GET", "users/owner/")[0] == 404
    assert [row["username"] for row in api("GET", "users/")[1]["results"]] == ["scientist"]
    theirs = AccessToken.objects.get(user=people.scientist).prefix
    stranger = Api(people.stranger)
    assert stranger("DELETE", f"tokens/{theirs}/") == stranger("DELETE", "tokens/aaaaaaaa/")
    assert api("GET", "me/")[0] == 200


def test_a_token_is_shown_once_and_never_listed(people: People) -> None:
    api = Api(people.administrator)
    day = (now() + timedelta(days=30)).date().isoformat()
    status, made = api("POST", "tokens/", {"user": "scientist", "name": "laptop", "expires": day})
    assert status == 201 and made["user"] == "scientist" and made["token"].startswith("grd_")
    assert made["expires"].startswith(day)
    listed = json.dumps(api("GET", "tokens/")[1])
    row = AccessToken.objects.get(prefix=made["prefix"])
    assert made["prefix"] in listed and made["token"] not in listed and row.digest not in listed
    assert api("DELETE", f"tokens/{made['prefix']}/") == (204, None)
    row.refresh_from_db()
    assert row.revoked_at is not None


def test_teams_list_their_members_and_refuse_unknown_ones(people: People) -> None:
    api = Api(people.administrator)
    assert api("POST", "teams/", {"slug": "ward-a", "name": "Ward A", "members": ["scientist"]})[0] == 201
    answer = api("PATCH", "teams/ward-a/", {"members": ["scientist", "nobody", "noone"]})
    assert code(answer) == (400, "invalid_input") and answer[1]["error"]["details"]["unknown"] == ["nobody", "noone"]
    assert api("PATCH", "teams/ward-a/", {"members": ["owner"]})[1]["members"] == ["owner"]
    assert Api(people.stranger)("GET", "teams/")[1]["results"] == []
    assert code(Api(people.stranger)("GET", "teams/ward-a/")) == (404, "not_found")


def test_a_long_list_is_read_page_by_page_without_gaps(people: People) -> None:
    api = Api(people.administrator)
    seen, after = [], ""
    for _ in range(10):
        _, found = api("GET", f"users/?limit=3&after={after}")
        assert len(found["results"]) <= 3
        seen += [row["username"] for row in found["results"]]
        if found["next"] is None:
            break
        after = found["next"]
    assert sorted(seen) == sorted(User.objects.values_list("username", flat=True)) and len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=99999999999", "after=x", "after=AAAA", "after=%00"]
)
def test_a_forged_cursor_is_an_error_of_the_caller(people: People, query: str) -> None:
    assert code(Api(people.administrator)("GET", f"users/?{query}")) == (400, "invalid_input")


def test_auditors_and_administrators_read_and_verify_the_log_and_nobody_else(
    people: People, django_capture_on_commit_callbacks: Any
) -> None:
    for reader in (people.auditor, people.administrator):
        with django_capture_on_commit_callbacks(execute=True):
            api = Api(reader)
        status, found = api("GET", "audit/?limit=2")
        assert status == 200 and found["results"][0]["seq"] == found["results"][1]["seq"] + 1
        assert found["results"][0]["verb"] == "token_created"
        older = api("GET", f"audit/?after={found['next']}")[1]["results"]
        assert all(row["seq"] < found["next"] for row in older) and older[-1]["seq"] == 1
        report = api("GET", "audit/verify/")[1]
        assert report == {"ok": True, "events": report["events"], "first_bad": None, "problem": ""}
    for other in (people.owner, people.scientist, people.reviewer, people.stranger):
        assert code(Api(other)("GET", "audit/")) == (403, "not_permitted")
        assert code(Api(other)("GET", "audit/verify/")) == (403, "not_permitted")


def test_no_password_is_in_any_answer_or_in_the_log(people: People) -> None:
    api = Api(people.administrator)
    api("POST", "users/", {"username": "ana", "password": "a very secret phrase", "roles": []})
    everything = json.dumps([api("GET", path)[1] for path in ("users/", "tokens/", "audit/", "me/")])
    assert "a very secret phrase" not in everything and "argon2" not in everything and api.text not in everything


def test_ones_own_password_needs_the_old_one(people: People) -> None:
    api, path = Api(people.scientist), "users/scientist/"
    answer = api("PATCH", path, {"password": NEW_PASSWORD})
    assert code(answer) == (400, "invalid_input") and answer[1]["error"]["details"]["field"] == "old_password"
    assert code(api("PATCH", path, {"password": NEW_PASSWORD, "old_password": "guess"})) == (400, "invalid_input")
    # The failure stays counted although the call failed.
    assert LockOut.objects.filter(failures=1).count() == 2
    assert code(api("PATCH", path, {"old_password": PASSWORD})) == (400, "invalid_input")
    with_more = {"password": NEW_PASSWORD, "old_password": PASSWORD, "active": True}
    assert code(api("PATCH", path, with_more)) == (400, "invalid_input")
    assert api("PATCH", path, {"password": NEW_PASSWORD, "old_password": PASSWORD})[0] == 200
    assert api("GET", "me/")[0] == 200
    assert actions.sign_in(username="scientist", password=NEW_PASSWORD, address="").username == "scientist"


def test_an_administrator_too_needs_the_old_one_for_the_own_account(people: People) -> None:
    api = Api(people.administrator)
    assert code(api("PATCH", "users/administrator/", {"password": NEW_PASSWORD})) == (400, "invalid_input")
    assert api("PATCH", "users/owner/", {"password": NEW_PASSWORD})[0] == 200


def test_the_auditor_makes_no_token_but_signs_in_and_out(people: People) -> None:
    assert code(Api(people.auditor)("POST", "tokens/", {"name": "laptop"})) == (403, "not_permitted")
    status, signed = Api(None)("POST", "sign-in/", {"username": "auditor", "password": PASSWORD})
    assert status == 200 and signed["token"]
    assert Api(people.auditor)("POST", "sign-out/", {})[0] == 204


def test_an_account_of_a_network_signs_in_there_and_makes_no_token_here(people: People) -> None:
    dana = actions.federated_user(network_key="ab" * 16, user_id="7", display="dana@grid")
    body = {"name": "keep", "expires": (now() + timedelta(days=365)).isoformat()}
    assert code(Api(dana)("POST", "tokens/", body)) == (403, "not_permitted")
    assert code(Api(people.administrator)("POST", "tokens/", {**body, "user": "dana@grid"})) == (403, "not_permitted")
