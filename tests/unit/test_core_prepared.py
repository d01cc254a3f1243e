"""A compiled query gives what the queryset gives, whatever it was compiled with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Exists, OuterRef, QuerySet

from apps.accounts.models import AccessToken, User
from apps.core.prepared import Prepared, insert_if_new
from apps.tags.models import Tag
from tests.factories.people import People

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def _tokens(users: tuple[UUID, ...], name: str, now: datetime) -> QuerySet[Any]:
    twin = Exists(AccessToken.objects.filter(user=OuterRef("user"), name="other"))
    return (
        AccessToken.objects.filter(user__in=users, name=name, expires__gt=now, revoked_at=None)
        .annotate(twin=twin)
        .order_by("pk")
    )


def _rows(tokens: list[Any]) -> list[tuple[Any, ...]]:
    names = [field.attname for field in AccessToken._meta.concrete_fields]
    return [(*(getattr(token, name) for name in names), token.twin) for token in tokens]


def make(user: User, name: str, number: int, *, lives: int) -> None:
    created = NOW - timedelta(days=1)
    AccessToken.objects.create(
        user=user, name=name, prefix=f"{number:08}", digest="d", created=created, expires=NOW + timedelta(hours=lives)
    )


def test_every_call_has_its_own_values(people: People) -> None:
    prepared = Prepared(_tokens)
    users = [people.owner, people.scientist, people.reviewer]
    for number, user in enumerate(users * 4):
        make(user, "laptop" if number % 2 else "other", number, lives=number - 3)
    for some in (users[:1], users, users[1:], users[:1]):
        for name in ("laptop", "other", "none"):
            for hours in (-2, 0, 5):
                values = (tuple(user.pk for user in some), name, NOW + timedelta(hours=hours))
                found = prepared(*values)
                assert _rows(found) == _rows(list(_tokens(*values)))
                assert all(type(token) is AccessToken for token in found)


def test_the_first_row_stays_and_a_second_one_is_told_of() -> None:
    first, second = (Tag(text="#Births", normal=normal) for normal in ("#births", "#other"))
    assert insert_if_new(first)
    assert not insert_if_new(second)
    assert [tag.normal for tag in Tag.objects.all()] == ["#births"]
