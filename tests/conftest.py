"""The environment of all tests: a deployment in a temporary folder, set before Django reads its settings."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

_folder = tempfile.mkdtemp(prefix="gridsite-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("GRID_")]:
    del os.environ[_name]
os.environ.update(
    DJANGO_SETTINGS_MODULE="gridsite.settings",
    GRID_ROLE="node",
    GRID_NAME="ward",
    GRID_DIR=_folder,
    GRID_SECRET_KEY="only-for-tests-" + "0123456789abcdef" * 4,
    GRID_DEVELOPMENT="true",
    GRID_URL="http://127.0.0.1:8001",
)

from tests.factories import databases  # noqa: E402  (the environment comes first)

os.environ |= databases.settings_of(Path(_folder) / "ward")

import sqlite3  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import closing, contextmanager  # noqa: E402

import pytest  # noqa: E402
from django.conf import settings as django_settings  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402
from django.test import TransactionTestCase  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from pytest_django.plugin import DjangoDbBlocker  # noqa: E402

from apps.core import database  # noqa: E402

# Reading one setting here makes pytest-django set Django up; named in pyproject.toml, the module would be read before
# this file.
assert Path(_folder) == django_settings.GRID_DIR, "unset DJANGO_SETTINGS_MODULE: the settings were read too early"

pytest_plugins = ["tests.factories.people", "tests.factories.grid"]

# Two busy cores make single examples slow now and then; that is no finding.
settings.register_profile("grid", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("grid")


SERVED = {"wire", "faults", "browser"}
"""Folders in which every test has a server."""
ELSEWHERE = {
    "test_canaries.py", "test_cli.py", "test_container_command.py", "test_decoders.py", "test_flooding.py",
    "test_hiding.py", "test_keras.py", "test_laundering.py", "test_limits.py", "test_live_compute.py",
    "test_log_canaries.py", "test_markup.py", "test_models.py", "test_models_that_stay.py", "test_observables.py",
    "test_only_door.py", "test_open_sessions.py", "test_plans.py", "test_probes.py", "test_rows.py",
    "test_rungrid.py", "test_silent_nodes.py", "test_tables.py", "test_train.py", "test_training.py",
    "test_transfers.py",
}  # fmt: skip
"""Files whose server computes, reads, refuses or starts: which database it has makes no difference to what they ask."""
OWN = {
    "test_processes.py", "test_backup.py", "test_backup_making.py", "test_backup_postgres.py", "test_doctor.py",
    "test_ledger_faults.py", "test_storm.py",
}  # fmt: skip
"""Files that say themselves which database they are about, in every run."""
LONG = {
    "test_tutorial.py", "test_cluster.py", "test_storm.py", "test_restart.py", "test_backup.py", "test_canaries.py",
    "test_rungrid.py", "test_laundering.py", "test_flooding.py", "test_cli.py", "test_lost_connections.py",
}  # fmt: skip
"""Files that take minutes: they begin first, so that no process waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what touches a database: `-m database` is what can go differently on another one."""
    items.sort(key=lambda item: item.path.name not in LONG)
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        touches = used & {"db", "grid"} or item.get_closest_marker("django_db") or item.path.parent.name in SERVED
        if touches and item.path.name not in {*ELSEWHERE, *OWN}:
            item.add_marker(pytest.mark.database)


def pytest_xdist_setupnodes() -> None:
    """Each process of a run has a deployment of its own: it reads its settings after this file, not before."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """After a test that commits, the database is put back as migrations left it.

    Django would delete every row instead: those of migrations too, and those of the audit log, which refuses.
    """
    kept = _kept_by_postgres if connection.vendor == "postgresql" else _kept_by_sqlite
    with django_db_blocker.unblock(), kept() as put_back, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda case: put_back())
        with django_db_blocker.block():
            yield
        # A database that somebody is connected to cannot be removed.
        database._thread.submit(connections.close_all).result()


@contextmanager
def _kept_by_sqlite() -> Iterator[Callable[[], None]]:
    with closing(sqlite3.connect(":memory:")) as fresh:
        with connection.cursor():
            connection.connection.backup(fresh)

        def put_back() -> None:
            connections.close_all()
            with connection.cursor():
                fresh.backup(connection.connection)

        yield put_back


@contextmanager
def _kept_by_postgres() -> Iterator[Callable[[], None]]:
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        rows = {table: io.BytesIO() for table in tables}
        for table, file in rows.items():
            cursor.copy_expert(f'COPY "{table}" TO STDOUT', file)

    def put_back() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            # Neither triggers nor foreign keys: the rows are as good as they were.
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(";".join(f'DELETE FROM "{table}"' for table in tables))
            for table, file in rows.items():
                if file.getbuffer().nbytes:
                    file.seek(0)
                    cursor.copy_expert(f'COPY "{table}" FROM STDIN', file)

    yield put_back


@pytest.fixture(autouse=True)
def own_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test has its own keys, storage and cache, so that audit heads and files of one never meet another's."""
    from django.contrib.auth.hashers import Argon2PasswordHasher
    from django.core.cache import cache
    from django.test.utils import override_settings

    # Still argon2 in every respect but its price: 20 sign-ins would otherwise cost a second.
    monkeypatch.setattr(Argon2PasswordHasher, "time_cost", 1)
    monkeypatch.setattr(Argon2PasswordHasher, "memory_cost", 8)
    monkeypatch.setattr(Argon2PasswordHasher, "parallelism", 1)
    cache.clear()
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_grad_enabled(True)  # a worker's session that ran in this process has switched it off,
        torch.set_flush_denormal(False)  # and this on
        torch.set_num_threads(1)  # as a worker: with another number sums are added in another order
    with override_settings(GRID_KEYS_DIR=tmp_path / "keys", GRID_STORAGE_DIR=tmp_path / "storage"):
        yield
