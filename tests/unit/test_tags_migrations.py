"""What was found before an update of the software is found after it, and after going back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import override_settings

from apps.tags import index
from apps.tags.normal import tokens
from tests.factories.postgres import POSTGRES, IndexOn, postgres, rolled_back

__all__ = ["postgres"]  # a fixture

OLD = [("tags", "0002_tokens")]
NEW = [("tags", "0005_drop_tokens")]
LONG = "x" * 300


@pytest.fixture(params=["sqlite", POSTGRES])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_setup: None, django_db_blocker: Any
) -> Iterator[str]:
    """A database of its own: SQLite changes tables outside of transactions only."""
    if request.param == POSTGRES:
        request.getfixturevalue("postgres")
        with django_db_blocker.unblock(), rolled_back():
            with connections[POSTGRES].cursor() as cursor:
                # In a real update each migration is a transaction of its own, whose end checks what was deferred.
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            yield POSTGRES
        return
    with django_db_blocker.unblock(), override_settings(DATABASE_ROUTERS=[IndexOn("old")]):
        connections.databases["old"] = connections.databases["default"] | {"NAME": str(tmp_path / "old.sqlite3")}
        yield "old"
        connections["old"].close()
        del connections["old"], connections.databases["old"]


def migrate(alias: str, targets: list[tuple[str, str]]) -> Any:
    executor = MigrationExecutor(connections[alias])
    executor.migrate(targets)
    return executor.loader.project_state(targets).apps


def encoded(token: str) -> str:
    """As the index kept a token then."""
    return index._short(token).decode() if len(token.encode()) > 64 else token.encode().hex()


def old_tokens(alias: str) -> dict[int, list[str]]:
    statement = {
        "sqlite": "SELECT rowid, tokens FROM tags_tokens",
        "postgresql": "SELECT id, array_to_string(tokens, ' ') FROM tags_entry",
    }
    with connections[alias].cursor() as cursor:
        cursor.execute(statement[connections[alias].vendor])
        return {number: sorted(text.split()) for number, text in cursor}


@pytest.mark.parametrize("count", [0, 3])
def test_entries_are_carried_over_and_back(database: str, count: int) -> None:
    connection = connections[database]
    models = migrate(database, OLD)
    keys = [uuid4() for _ in range(count)]
    before = {}
    for number, key in enumerate(keys):
        having = [encoded(token) for token in tokens(f"births {number}", LONG, ["#Straße"])]
        entry = models.get_model("tags", "Entry").objects.using(database).create(kind="dataset", key=key.hex)
        before[entry.pk] = sorted(having)
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("UPDATE tags_entry SET tokens = %s WHERE id = %s", [having, entry.pk])
            else:
                cursor.execute("INSERT INTO tags_tokens (rowid, tokens) VALUES (%s, %s)", [entry.pk, " ".join(having)])
    migrate(database, NEW)

    def found(*terms: str) -> list[UUID]:
        return [match.key for match in chain(*index.matching("dataset", terms))]

    assert found() == found("births", "#strasse", LONG) == keys[::-1]
    assert found("0") == keys[:1] and found(LONG + "x") == []
    assert index.popular("dataset", "t:", limit=5) == ([("t:strasse", count)] if count else [])
    if keys:
        index.put("dataset", [index.document(keys[0], name="visits", description="", tags=[])])
        before[min(before)] = sorted(encoded(token) for token in tokens("visits", "", []))
    migrate(database, OLD)
    assert old_tokens(database) == before
    migrate(database, NEW)
    assert found("visits") == keys[:1]
