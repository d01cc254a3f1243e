"""Signing in over REST, and what a call looks like that has no right to be answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts import actions
from apps.accounts.models import AccessToken
from apps.core.clock import now
from tests.factories.people import PASSWORD, People

pytestmark = pytest.mark.django_db


def sign_in(client: Client, username: str, password: str = PASSWORD) -> Any:
    return client.post("/api/sign-in/", {"username": username, "password": password}, content_type="application/json")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_password_is_exchanged_for_a_token_that_ends_by_itself(client: Client, people: People) -> None:
    answer = sign_in(client, "scientist")
    assert answer.status_code == 200
    signed = answer.json()
    assert signed["user"]["username"] == "scientist" and signed["user"]["rights"] == ["compute.use"]
    token = AccessToken.objects.get(user=people.scientist)
    assert token.kind == "session"
    assert timedelta(hours=11) < token.expires - now() <= timedelta(hours=12)
    me = client.get("/api/me/", headers=bearer(signed["token"])).json()
    assert me == {**signed["user"], "scopes": None, "node": {"id": "ward", "name": "ward"}}


def test_after_signing_out_the_token_is_worth_nothing(client: Client, people: People) -> None:
    token = sign_in(client, "scientist").json()["token"]
    assert client.post("/api/sign-out/", headers=bearer(token)).status_code == 204
    answer = client.get("/api/me/", headers=bearer(token))
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "authentication"


def test_a_guesser_cannot_tell_wrong_passwords_from_unknown_names(client: Client, people: People) -> None:
    wrong, unknown = sign_in(client, "scientist", "wrong"), sign_in(client, "nobody", "wrong")
    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
    assert wrong.status_code == 401 and wrong.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer grd_x", "grd_aaaaaaaa_" + "b" * 43, "Bearer \x00"]
)
def test_a_bad_token_is_refused_before_anything_is_looked_up(client: Client, people: People, header: str) -> None:
    answer = client.get("/api/users/", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "authentication"


def test_without_a_token_every_route_says_the_same(client: Client, people: People) -> None:
    texts = set()
    for path in ("me", "users", "users/owner", "teams", "tokens", "datasets", "datasets/x", "requests", "audit"):
        answer = client.get(f"/api/{path}/")
        assert answer.status_code == 401, path
        texts.add(answer.content)
    assert len(texts) == 1


def test_a_console_cookie_opens_no_api(client: Client, people: People) -> None:
    client.force_login(people.administrator)
    assert client.get("/api/me/").status_code == 401


def test_a_closed_account_is_out_at_once(client: Client, people: People) -> None:
    token = sign_in(client, "scientist").json()["token"]
    actions.deactivate(people.scientist, by=people.administrator)
    assert client.get("/api/me/", headers=bearer(token)).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "username"),
        (b"{", ""),
        (b'{"username": 1, "password": "x"}', "username"),
        (b'{"username": "a", "password": "b", "role": "admin"}', "role"),
        (b'["scientist"]', ""),
        (b"\xff\xfe", ""),
        (b'{"username": "a\\u0000", "password": "b"}', ""),
        (b'{"username": "\\ud800", "password": "b"}', ""),
        (b"[" * 100_000, ""),
        (b'{"username": ' + b"[" * 100_000, "username"),
    ],
)
def test_a_damaged_body_is_a_typed_error_that_names_the_field(
    client: Client, db: None, body: bytes, field: str
) -> None:
    answer = client.generic("POST", "/api/sign-in/", body, content_type="application/json")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_input")
    assert error["details"].get("field") == field


def test_a_body_beyond_the_limit_is_not_read(client: Client, db: None) -> None:
    answer = client.generic("POST", "/api/sign-in/", b" " * (3 * 2**20), content_type="application/json")
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "limit_exceeded"


def test_a_wrong_method_and_a_wrong_path_are_typed_errors(client: Client, people: People) -> None:
    answer = client.put("/api/sign-in/", b"{}", content_type="application/json")
    assert answer.status_code == 405 and answer.json()["error"]["code"] == "invalid_input"
    for path in ("/api/nothing/", "/api/users", "/api/", "/api/requests/17/"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found", path


def test_an_accident_tells_no_value_to_caller_or_log(
    client: Client, people: People, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = sign_in(client, "scientist").json()["token"]

    def fall(*args: Any) -> Any:
        raise RuntimeError("the secret is 4711")

    monkeypatch.setattr("apps.api.outputs.me", fall)
    answer = client.get("/api/me/", headers=bearer(token))
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert "RuntimeError" in caplog.text and "signing.py" in caplog.text
    assert "4711" not in answer.content.decode() and "4711" not in caplog.text
