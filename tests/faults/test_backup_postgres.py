"""The same promise on PostgreSQL, with its own tools: what was acknowledged is in the backup, and the chain holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gridclient.wire import messages as m
from tests.factories import databases
from tests.factories.staff import Staff, single_node
from tests.faults.test_backup import NAME, Saved

pytestmark = pytest.mark.timeout(300)


def test_node_on_postgres_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(databases.postgres_programs()), prepend=os.pathsep)
    after = databases.make_database("backup_after")
    node = Saved(tmp_path, {"GRID_DATABASE_URL": databases.make_database("backup_before")})
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
    node.environment["GRID_DATABASE_URL"] = after
    done = node.restore("--keys", str(node.keys))
    assert done.returncode == 0, done.stderr
    assert node.manage("verify_audit").returncode == 0
    with single_node(node.root, NAME, **node.environment) as live:
        staff = Staff(live, dict(staff.tokens))
        assert [row["slug"] for row in staff.call("owner", "GET", "datasets/")["results"]] == [made["slug"]]
        with staff.client("owner") as owner:
            assert owner.get(owner.asset(made)).shape == (20, 1)
        assert staff.call("admin", "GET", "audit/verify/")["ok"]
