"""Puts the roles of this release into the table, after every migration: a missing one is added, none is rewritten."""

from __future__ import annotations

from typing import Any

from django.apps import apps as current
from django.apps.registry import Apps
from django.db import DEFAULT_DB_ALIAS

from apps.accounts.capabilities import ROLES


def seed(*, apps: Apps = current, using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """Receiver of `post_migrate`: `apps` is the state that the migration reached."""
    try:
        role = apps.get_model("accounts", "Role")
    except LookupError:  # migrated back to nothing
        return
    rows = [role(name=name, title=title, capabilities=list(given)) for name, (title, given) in ROLES.items()]
    role._default_manager.using(using).bulk_create(rows, ignore_conflicts=True)
