"""Snapshots of the database while it is written to, and what a snapshot names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.budgets.records import FOLDER, RECORDS
from apps.datarequests.models import MAX_FAILURES
from apps.datarequests.transitions import State
from gridsite.backup.manifest import BackupRefusal

_CROWDS = "SELECT DISTINCT crowds FROM compute_disclosure WHERE crowds <> ''"
_SEALED = (
    "SELECT c.pot_id, r.record FROM budgets_release r JOIN budgets_charge c ON c.release_id = r.id WHERE r.record <> ''"
)
FILES = {"sqlite": "database.sqlite3", "postgresql": "database.dump"}
# Options of a connection that libpq's programs read from their environment.
_PG_OPTIONS = {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "connect_timeout": "PGCONNECT_TIMEOUT"}


@dataclass(frozen=True)
class Snapshot:
    """What was in the database at one moment. Paths are relative to the storage."""

    audit: tuple[int, str]
    migrations: list[tuple[str, str]]
    versions: set[str]
    files: set[str]
    may_run: set[UUID]


def snapshot(target: Path) -> Snapshot:
    """Write the database of one moment to `target`; nobody waits for it."""
    return _SNAPSHOTS[connection.vendor](target)


def _read(query: Callable[[str], list[Any]]) -> Snapshot:
    requests = query("SELECT id, state, failures, answered_at IS NOT NULL FROM datarequests_datarequest")
    head = query("SELECT seq, hash FROM audit_audithead")
    return Snapshot(
        (head[0][0], head[0][1]) if head else (0, ""),
        sorted((app, name) for app, name in query("SELECT app, name FROM django_migrations")),
        {
            f"datasets/{UUID(str(dataset))}/{number}"
            for dataset, number in query("SELECT dataset_id, number FROM datasets_datasetversion")
        },
        {
            *(f"requests/{UUID(str(key))}/answer" for key, _, _, answered in requests if answered),
            *(f"crowds/{name}" for (name,) in query(_CROWDS)),
            *(f"{FOLDER}/{pot}/{RECORDS}/{name}" for pot, name in query(_SEALED)),
        },
        {
            UUID(str(key))
            for key, state, failures, answered in requests
            if state == State.SUBMITTED or (state == State.APPROVED and not answered and failures < MAX_FAILURES)
        },
    )


def _sqlite(target: Path) -> Snapshot:
    source = Path(connection.settings_dict["NAME"])
    address = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as live, closing(sqlite3.connect(target)) as copy:
        # In one step, hence of one moment: it holds a read lock, which stops no writer of a write-ahead log.
        live.backup(copy)
        # Of one file: a write-ahead log beside it would be part of the database, and in no manifest.
        copy.execute("PRAGMA journal_mode=DELETE")
        (state,) = copy.execute("PRAGMA quick_check").fetchone()
        if state != "ok":
            raise BackupRefusal(f"The database is damaged: {state}.")
        return _read(lambda sql: copy.execute(sql).fetchall())


def _postgresql(target: Path) -> Snapshot:
    with transaction.atomic(), connection.cursor() as cursor:

        def query(sql: str) -> list[Any]:
            cursor.execute(sql)
            return list(cursor.fetchall())

        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # pg_dump sees what this transaction sees, so that what we read of it is of the same moment.
        ((exported,),) = query("SELECT pg_export_snapshot()")
        found = _read(query)
        _pg("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--snapshot={exported}", f"--file={target}")
    return found


_SNAPSHOTS: dict[str, Callable[[Path], Snapshot]] = {"sqlite": _sqlite, "postgresql": _postgresql}


def is_empty() -> bool:
    """Whether there is no table yet."""
    if connection.vendor == "sqlite" and not Path(connection.settings_dict["NAME"]).exists():
        return True
    return not connection.introspection.table_names()


def put_back(source: Path) -> None:
    """Fill an empty database from a snapshot: whole, or not at all."""
    if connection.vendor != "sqlite":
        name = connection.settings_dict["NAME"]
        _pg("pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges",
            f"--dbname={name}", str(source))  # fmt: skip
        return
    connection.close()
    target = Path(connection.settings_dict["NAME"])
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in ("-wal", "-shm"):
        target.with_name(target.name + left).unlink(missing_ok=True)
    aside = target.with_name(f"{target.name}.restored")
    shutil.copyfile(source, aside)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, target)


def _pg(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs on this database."""
    where = connection.settings_dict
    named = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    environment = {name: str(where[key]) for name, key in named.items() if where.get(key)}
    environment |= {_PG_OPTIONS[key]: str(value) for key, value in where["OPTIONS"].items() if key in _PG_OPTIONS}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "GRID_"))}
    try:
        subprocess.run([program, *arguments], env=inherited | environment, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BackupRefusal(f"{program} is not on the path: install PostgreSQL's client programs.") from None
    except subprocess.CalledProcessError as error:
        raise BackupRefusal(f"{program} failed: {error.stderr.strip()[-500:]}") from None
