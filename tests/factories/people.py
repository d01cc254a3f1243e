"""People with names. Each test asks for those that it needs, or for `people`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from apps.accounts.models import User

PASSWORD = "correct horse battery staple"


def make_user(username: str, *roles: str, password: str = PASSWORD) -> User:
    """An account made the way the product makes one, by the system."""
    from apps.accounts import actions  # this module is loaded before Django is set up

    return actions.create_user(username=username, password=password, roles=list(roles), by=None)


@dataclass(frozen=True)
class People:
    owner: User
    other_owner: User
    scientist: User
    reviewer: User
    auditor: User
    administrator: User
    stranger: User  # an account without any role


ROLES: dict[str, tuple[str, ...]] = {
    "owner": ("owner",),
    "other_owner": ("owner",),
    "scientist": ("scientist",),
    "reviewer": ("reviewer",),
    "auditor": ("auditor",),
    "administrator": ("administrator",),
    "stranger": (),
}


@pytest.fixture
def people(db: None) -> People:
    """One of each."""
    return People(**{name: make_user(name, *roles) for name, roles in ROLES.items()})
