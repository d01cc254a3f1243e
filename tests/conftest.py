"""The environment of all tests: a deployment in a temporary folder, set before Django reads its settings."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

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

import sqlite3  # noqa: E402  (the environment comes first)
from collections.abc import Iterator  # noqa: E402
from contextlib import closing  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from django.conf import settings as django_settings  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.test import TransactionTestCase  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from pytest_django.plugin import DjangoDbBlocker  # noqa: E402

# Reading one setting here makes pytest-django set Django up; named in pyproject.toml, the module would be read before
# this file.
assert Path(_folder) == django_settings.GRID_DIR, "unset DJANGO_SETTINGS_MODULE: the settings were read too early"

pytest_plugins = ["tests.factories.people", "tests.factories.grid"]

# Two busy cores make single examples slow now and then; that is no finding.
settings.register_profile("grid", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("grid")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """After a test that commits, the database is put back as migrations left it.

    Django would delete every row instead: those of migrations too, and those of the audit log, which refuses.
    """
    fresh = sqlite3.connect(":memory:")
    with django_db_blocker.unblock(), connection.cursor():
        connection.connection.backup(fresh)

    def put_back(case: TransactionTestCase) -> None:
        connections.close_all()
        with connection.cursor():
            fresh.backup(connection.connection)

    with pytest.MonkeyPatch.context() as patch, closing(fresh):
        patch.setattr(TransactionTestCase, "_fixture_teardown", put_back)
        yield


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
        torch.set_grad_enabled(True)  # a worker's session that ran in this process has switched it off
        torch.set_num_threads(1)  # as a worker: with another number sums are added in another order
    with override_settings(GRID_KEYS_DIR=tmp_path / "keys", GRID_STORAGE_DIR=tmp_path / "storage"):
        yield
