"""A real PostgreSQL beside the tests' SQLite, with the tables of the search index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test.utils import override_settings

from tests.factories import databases

POSTGRES = "postgres"


class IndexOn:
    """A router that sends the tables of the index to another database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model._meta.app_label == "tags" else None

    db_for_write = db_for_read


@pytest.fixture(scope="module")
def postgres(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """A real PostgreSQL with the tables of the index."""
    with django_db_blocker.unblock():
        connections.databases[POSTGRES] = databases.connection_to("search_index")
        call_command("migrate", "tags", database=POSTGRES, verbosity=0)
        yield POSTGRES
        connections[POSTGRES].close()
        del connections[POSTGRES], connections.databases[POSTGRES]


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.django_db), POSTGRES])
def database(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[str]:
    """An empty index, on each database in turn."""
    if request.param == "sqlite":
        yield "default"
        return
    request.getfixturevalue("postgres")
    with django_db_blocker.unblock(), rolled_back():
        yield POSTGRES


@contextmanager
def rolled_back() -> Iterator[None]:
    """The index on PostgreSQL; nothing of it stays."""
    with override_settings(DATABASE_ROUTERS=[IndexOn(POSTGRES)]), transaction.atomic(using=POSTGRES):
        yield
        transaction.set_rollback(True, using=POSTGRES)
