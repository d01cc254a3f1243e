"""Signing in: guessing does not pay, and a closed account is closed everywhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, authenticate, get_user, hashers, login
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ValidationError
from django.db import connection
from django.http import HttpRequest
from django.test import RequestFactory

from apps.accounts import actions, lockout
from apps.accounts.models import AccessToken, LockOut, User
from apps.accounts.queries import user_of_token
from apps.audit.models import AuditEvent
from apps.core import clock
from gridclient.wire.errors import AuthenticationError, InvalidInputError, LimitExceededError, NotPermittedError
from tests.factories.people import PASSWORD, People, make_user

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def try_to(username: str = "owner", password: str = "wrong", address: str = "192.0.2.1", now: datetime = NOON) -> User:
    return actions.sign_in(username=username, password=password, address=address, now=now)


def fail(times: int, **kwargs: Any) -> None:
    for _ in range(times):
        with pytest.raises(AuthenticationError):
            try_to(**kwargs)


def test_the_right_password_signs_in_and_is_recorded(people: People) -> None:
    assert try_to("OWNER", PASSWORD) == people.owner
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.verb, event.actor_name, event.at) == ("signed_in", "owner", NOON)
    assert event.payload == {"address": "192.0.2.1"}
    assert User.objects.get(username="owner").last_login == NOON


def test_unknown_user_wrong_password_and_closed_account_look_alike(people: People) -> None:
    actions.deactivate(people.reviewer, by=None)
    dana = actions.federated_user(network_key="ab", user_id="7", display="dana@grid")
    messages = set()
    for username, password in [
        ("owner", "wrong"),
        ("nobody", "wrong"),
        ("reviewer", PASSWORD),
        (dana.username, ""),
        ("", ""),
        ("a\0b", "x"),
        ("owner\ud800", "x\ud800"),
        ("x" * 100_000, "y" * 100_000),
    ]:
        with pytest.raises(AuthenticationError) as error:
            try_to(username, password, address=f"198.51.100.{len(messages)}")
        messages.add((error.value.message, str(error.value.details)))
    assert len(messages) == 1


def test_an_unknown_user_costs_as_much_as_a_wrong_password(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    encode = hashers.Argon2PasswordHasher.encode
    verify = hashers.Argon2PasswordHasher.verify
    monkeypatch.setattr(
        hashers.Argon2PasswordHasher, "encode", lambda *args: (hashed.append("encode"), encode(*args))[1]
    )
    monkeypatch.setattr(
        hashers.Argon2PasswordHasher, "verify", lambda *args: (hashed.append("verify"), verify(*args))[1]
    )
    dana = actions.federated_user(network_key="ab", user_id="7", display="dana@grid")
    for username in ("owner", "nobody", dana.username):
        hashed.clear()
        fail(1, username=username)
        assert len(hashed) == 1


def test_what_was_typed_as_a_name_is_not_written_down(people: People) -> None:
    fail(1, username="my-secret-password")
    fail(1, username="owner")
    assert "my-secret-password" not in str([(e.target, e.payload) for e in AuditEvent.objects.all()])
    assert "my-secret-password" not in str(list(LockOut.objects.values()))
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.verb, event.actor_name, event.target) == ("sign_in_refused", "", "owner")


def test_after_five_failures_even_the_right_password_waits(people: People) -> None:
    fail(5)
    with pytest.raises(LimitExceededError, match="15 minutes") as error:
        try_to(password=PASSWORD)
    assert error.value.details == {"limit": 5, "retry_after": 900}
    with pytest.raises(LimitExceededError):
        try_to(password=PASSWORD, address="203.0.113.9", now=NOON + timedelta(minutes=14, seconds=59))
    assert try_to(password=PASSWORD, now=NOON + timedelta(minutes=15)) == people.owner


def test_a_name_that_nobody_has_is_locked_out_alike(people: People) -> None:
    fail(5, username="nobody")
    with pytest.raises(LimitExceededError) as unknown:
        try_to("nobody")
    fail(5, username="owner", address="203.0.113.9")
    with pytest.raises(LimitExceededError) as known:
        try_to("owner")
    assert unknown.value.message == known.value.message


def test_the_log_says_when_a_name_was_locked_and_does_not_grow_with_further_attempts(people: People) -> None:
    fail(5)
    assert [event.payload and event.payload["locked_out"] for event in AuditEvent.objects.all()[:5]] == [True] + [
        False
    ] * 4
    before = AuditEvent.objects.count()
    for _ in range(10):
        with pytest.raises(LimitExceededError):
            try_to()
    assert AuditEvent.objects.count() == before


def test_one_address_cannot_try_one_password_on_everybody(people: People) -> None:
    for number in range(lockout.ADDRESS_FAILURES):
        fail(1, username=f"person{number}")
    with pytest.raises(LimitExceededError):
        try_to(password=PASSWORD)
    assert try_to(password=PASSWORD, address="203.0.113.9") == people.owner


def test_an_ipv6_household_is_one_address(people: People) -> None:
    for number in range(lockout.ADDRESS_FAILURES):
        fail(1, username=f"person{number}", address=f"2001:db8::{number:x}")
    with pytest.raises(LimitExceededError):
        try_to(password=PASSWORD, address="2001:db8::ffff")
    assert try_to(password=PASSWORD, address="2001:db8:0:1::1") == people.owner


def test_own_success_does_not_wipe_the_failures_of_an_address(people: People) -> None:
    for number in range(lockout.ADDRESS_FAILURES - 1):
        fail(1, username=f"person{number}")
        try_to("stranger", PASSWORD)
    fail(1, username="last")
    with pytest.raises(LimitExceededError):
        try_to("stranger", PASSWORD)


def test_a_success_forgives_earlier_slips_of_the_name(people: People) -> None:
    for _ in range(3):
        fail(4)
        try_to(password=PASSWORD)


def test_counters_are_pruned_when_their_window_has_passed(people: People) -> None:
    for number in range(4):
        fail(1, username=f"person{number}", address=f"192.0.2.{number}")
    assert LockOut.objects.count() == 8
    try_to(password=PASSWORD, now=NOON + lockout.WINDOW)
    assert LockOut.objects.filter(failures__gt=0).count() == 0
    assert LockOut.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_guesses_made_at_the_same_time_are_counted_too() -> None:
    make_user("owner", "owner")

    def guess(_: int) -> str:
        try:
            try_to()
        except (AuthenticationError, LimitExceededError) as error:
            return error.code
        finally:
            connection.close()
        return "in"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(guess, range(16)))
    assert answers.count("authentication") == 5
    assert answers.count("limit_exceeded") == 11


# --- the console -------------------------------------------------------------------------------------------------


@pytest.fixture
def request_() -> HttpRequest:
    request = RequestFactory().post("/admin/login/", REMOTE_ADDR="192.0.2.7")
    request.session = SessionStore()
    return request


@pytest.mark.parametrize(
    ("who", "opens"),
    [
        ("owner", True),
        ("reviewer", True),
        ("auditor", True),
        ("administrator", True),
        ("scientist", False),
        ("stranger", False),
    ],
)
def test_the_console_opens_to_those_who_may(people: People, request_: HttpRequest, who: str, opens: bool) -> None:
    user = authenticate(request_, username=who, password=PASSWORD)
    assert (user == getattr(people, who)) is opens
    event = AuditEvent.objects.first()
    assert event is not None
    assert event.verb == ("signed_in" if opens else "sign_in_refused")
    assert event.payload is not None
    assert event.payload["address"] == "192.0.2.7"


def test_the_console_has_the_same_lock_out_and_says_so(people: People, request_: HttpRequest) -> None:
    fail(5, now=clock.now())
    with pytest.raises(ValidationError, match="Too many failed sign-ins"):
        authenticate(request_, username="owner", password=PASSWORD)
    assert authenticate(request_, username="", password="") is None


def signed_in(request: HttpRequest, username: str) -> User:
    user = authenticate(request, username=username, password=PASSWORD)
    assert isinstance(user, User)
    login(request, user)
    return user


def test_closing_an_account_ends_its_console_session_for_good(people: People, request_: HttpRequest) -> None:
    user = signed_in(request_, "owner")
    assert get_user(request_) == user
    actions.deactivate(people.owner, by=people.administrator)
    assert not get_user(request_).is_authenticated
    request_.session[SESSION_KEY] = str(user.pk)
    actions.reactivate(people.owner, by=people.administrator)
    assert not get_user(request_).is_authenticated


def test_a_new_password_ends_the_sessions_of_the_old_one(people: People, request_: HttpRequest) -> None:
    signed_in(request_, "owner")
    actions.set_password(people.owner, password="another long sentence", by=people.administrator)
    assert not get_user(request_).is_authenticated


def test_losing_the_role_closes_the_console_at_the_next_page(people: People, request_: HttpRequest) -> None:
    signed_in(request_, "owner")
    actions.set_roles(people.owner, roles=["scientist"], by=people.administrator)
    assert not get_user(request_).is_authenticated


NEW = "another long sentence"


def test_a_stolen_token_does_not_change_the_password(people: People) -> None:
    with pytest.raises(NotPermittedError, match="present password"):
        actions.set_password(people.owner, password=NEW, by=people.owner)
    for old in ("guess", "", "x" * 5_000, "\ud800"):
        with pytest.raises(InvalidInputError) as refused:
            actions.change_password(people.owner, old=old, password=NEW, address="192.0.2.1")
        assert refused.value.details["field"] == "old_password"
    assert actions.sign_in(username="owner", password=PASSWORD, address="192.0.2.1") == people.owner
    actions.change_password(people.owner, old=PASSWORD, password=NEW, address="192.0.2.1")
    assert actions.sign_in(username="owner", password=NEW, address="192.0.2.1") == people.owner


def test_guessing_the_old_password_locks_out_like_guessing_at_sign_in(people: People) -> None:
    for _ in range(lockout.USER_FAILURES):
        with pytest.raises(InvalidInputError):
            actions.change_password(people.owner, old="guess", password=NEW, address="192.0.2.1")
    with pytest.raises(LimitExceededError):
        actions.change_password(people.owner, old=PASSWORD, password=NEW, address="192.0.2.1")
    with pytest.raises(LimitExceededError):
        actions.sign_in(username="owner", password=PASSWORD, address="192.0.2.9")
    refused = AuditEvent.objects.filter(verb="sign_in_refused", target="owner")
    assert refused.count() == lockout.USER_FAILURES


def test_a_changed_password_ends_every_other_sign_in(people: People) -> None:
    def token(kind: str) -> tuple[AccessToken, str]:
        return actions.create_token(user=people.owner, name="x", expires=None, by=people.owner, kind=kind)

    (mine, text), (_, other), (_, named) = token("session"), token("session"), token("token")
    actions.change_password(people.owner, old=PASSWORD, password=NEW, address="", keep=mine)
    assert user_of_token(text)[0] == user_of_token(named)[0] == people.owner
    with pytest.raises(AuthenticationError):
        user_of_token(other)
    # A new password that will not do leaves everything as it is, and is no failed guess.
    with pytest.raises(InvalidInputError, match="not changed"):
        actions.change_password(people.owner, old=NEW, password="short", address="", keep=mine)
    assert user_of_token(text)
