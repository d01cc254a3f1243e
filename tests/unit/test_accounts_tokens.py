"""Access tokens: shown once, stored as a digest, and worth nothing after revocation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection

from apps.accounts import actions
from apps.accounts.models import AccessToken
from apps.accounts.queries import user_of_live_token, user_of_token
from apps.audit.models import AuditEvent
from apps.core import clock, wake
from gridclient.wire.errors import AuthenticationError, ConflictError, InvalidInputError, NotPermittedError
from tests.factories.people import PASSWORD, People, make_user

pytestmark = pytest.mark.django_db


def make(people: People, **kwargs: Any) -> tuple[AccessToken, str]:
    given = {"user": people.scientist, "name": "laptop", "expires": None, "by": people.scientist, **kwargs}
    return actions.create_token(**given)


def test_a_token_stands_for_its_user_and_its_text_is_stored_nowhere(people: People) -> None:
    token, text = make(people)
    assert re.fullmatch(r"grd_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", text)
    assert user_of_token(text) == (people.scientist, token)
    stored = str(list(AccessToken.objects.values())) + str([(e.target, e.payload) for e in AuditEvent.objects.all()])
    assert text.removeprefix(f"grd_{token.prefix}_") not in stored


def test_every_token_that_is_not_valid_looks_alike(people: People) -> None:
    now = clock.now()
    revoked, revoked_text = make(people)
    actions.revoke_token(revoked, by=people.scientist)
    _, expired_text = make(people, expires=now + timedelta(hours=1))
    _, closed_text = make(people, user=people.owner, by=None)
    actions.deactivate(people.owner, by=None)
    _, good = make(people)
    other_secret = good[:13] + ("A" if good[13] != "A" else "B") + good[14:]
    messages = set()
    for text in (
        revoked_text, expired_text, closed_text, other_secret, "", "grd_", "grd_aaaaaaaa_" + "A" * 43,
        good + "A", good + "\n", good.upper(), "é" * 56, "x" * 1_000_000,
    ):  # fmt: skip
        with pytest.raises(AuthenticationError) as error:
            user_of_token(text, now=now + timedelta(hours=2))
        messages.add(error.value.message)
    assert len(messages) == 1
    assert user_of_token(good, now=now + timedelta(hours=2))[0] == people.scientist


def test_a_revoked_token_is_kept_and_recorded_once(people: People) -> None:
    token, _ = make(people)
    actions.revoke_token(token, by=people.administrator)
    first = token.revoked_at
    assert first is not None
    actions.revoke_token(token, by=people.administrator)
    assert token.revoked_at == first
    assert AuditEvent.objects.filter(verb="token_revoked").count() == 1
    with pytest.raises(ConflictError):
        token.delete()
    with pytest.raises(ConflictError):
        AccessToken.objects.all().delete()


def test_a_live_socket_can_ask_whether_its_token_still_counts(people: People) -> None:
    now = clock.now()
    token, _ = make(people, expires=now + timedelta(hours=1))
    assert user_of_live_token(token.pk) == people.scientist
    with pytest.raises(AuthenticationError):
        user_of_live_token(token.pk, now=now + timedelta(hours=1))
    actions.deactivate(people.scientist, by=people.administrator)
    for key in (token.pk, 0):
        with pytest.raises(AuthenticationError):
            user_of_live_token(key)


def test_an_account_opened_again_does_not_get_its_old_tokens_back(people: People) -> None:
    _, text = make(people)
    actions.deactivate(people.scientist, by=people.administrator)
    actions.reactivate(people.scientist, by=people.administrator)
    with pytest.raises(AuthenticationError):
        user_of_token(text)


def test_a_new_password_ends_sign_ins_and_keeps_named_tokens(people: People) -> None:
    _, named = make(people)
    _, session = make(people, kind="session")
    actions.set_password(people.scientist, password="another long sentence", by=people.administrator)
    assert user_of_token(named)[0] == people.scientist
    with pytest.raises(AuthenticationError):
        user_of_token(session)
    event = AuditEvent.objects.first()
    assert event is not None
    assert "another" not in str(event.payload)


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\0b", "lap\u202etop", "\ud800"])
def test_a_token_has_a_name_to_tell_it_by(people: People, name: str) -> None:
    with pytest.raises(InvalidInputError):
        make(people, name=name)


def test_a_token_expires_in_the_future_and_within_a_year(people: People) -> None:
    now = clock.now()
    for expires in (now, now - timedelta(days=1), now + timedelta(days=500)):
        with pytest.raises(InvalidInputError):
            make(people, expires=expires, now=now)
    assert make(people, now=now)[0].expires == now + timedelta(days=90)
    assert make(people, kind="session", now=now)[0].expires == now + timedelta(hours=12)
    with pytest.raises(IntegrityError):
        AccessToken.objects.create(user=people.owner, name="x", prefix="x", digest="x", created=now, expires=now)


def test_use_is_noted_without_a_write_at_every_call(people: People, django_assert_num_queries: Any) -> None:
    now = clock.now()
    token, text = make(people)
    user_of_token(text, now=now)
    with django_assert_num_queries(1):
        user_of_token(text, now=now + timedelta(minutes=9))
    user_of_token(text, now=now + timedelta(minutes=11))
    token.refresh_from_db()
    assert token.last_used == now + timedelta(minutes=11)


@pytest.mark.django_db(transaction=True)
def test_open_sockets_are_woken_when_a_token_is_revoked_an_account_closed_or_roles_change() -> None:
    make_user("administrator", "administrator")
    user = make_user("scientist", "scientist")
    token, _ = actions.create_token(user=user, name="laptop", expires=None, by=None)

    async def woken(*calls: Callable[[], None]) -> list[bool]:
        event, found = wake.listen("tokens"), []
        for call in calls:
            await asyncio.to_thread(call)
            await asyncio.sleep(0)
            found.append(event.is_set())
            event.clear()
        wake.forget("tokens", event)
        return found

    def then_close(verb: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            try:
                verb()
            finally:
                connection.close()

        return call

    assert asyncio.run(
        woken(
            then_close(lambda: actions.set_roles(user, roles=["owner"], by=None)),
            then_close(lambda: actions.revoke_token(token, by=None)),
            then_close(lambda: actions.set_password(user, password=PASSWORD + "!", by=None)),
            then_close(lambda: actions.deactivate(user, by=None)),
        )
    ) == [True, True, True, True]


def test_a_network_account_has_no_access_that_outlives_its_network(people: People) -> None:
    now = clock.now()
    dana = actions.federated_user(network_key="ab" * 16, user_id="7", display="dana@grid")
    for by in (dana, people.administrator, None):
        with pytest.raises(NotPermittedError, match="through the network"):
            actions.create_token(user=dana, name="keep", expires=now + timedelta(days=365), by=by)
    with pytest.raises(InvalidInputError):
        actions.create_token(user=dana, name="in", expires=now + timedelta(hours=13), by=dana, kind="session", now=now)
    session, _ = actions.create_token(user=dana, name="in", expires=None, by=dana, kind="session", now=now)
    assert session.expires == now + timedelta(hours=12)


def test_who_only_looks_makes_no_tokens_but_signs_in(people: People) -> None:
    for person in (people.auditor, people.stranger):
        with pytest.raises(NotPermittedError):
            actions.create_token(user=person, name="laptop", expires=None, by=person)
        assert actions.create_token(user=person, name="sign-in", expires=None, by=person, kind="session")
