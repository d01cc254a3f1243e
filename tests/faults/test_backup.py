"""A node that was destroyed comes back from its backup with all that it promised, and a proof of what it lacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridsite.backup.manifest import FILE
from gridsite.deployment import MANAGE
from tests.factories import processes
from tests.factories.staff import Staff, single_node

pytestmark = pytest.mark.timeout(300)
NAME = "vault"
VALUES = np.arange(40.0).reshape(20, 2)
COLUMNS = [m.Column("a", low=0.0, high=50.0), m.Column("b", low=0.0, high=50.0)]


@dataclass
class Kept:
    """What was acknowledged before the backup began."""

    tokens: dict[str, str]
    dataset: dict[str, Any]
    answered: str
    open: str
    total: bytes
    people: list[str]


@dataclass
class Saved:
    """A node in `root`, its backup, and how its commands are run."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / NAME

    @property
    def set(self) -> Path:
        return self.root / "backup"

    @property
    def keys(self) -> Path:
        return self.root / "keys-apart"

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GRID_", "DJANGO_"))}
        own = {"GRID_DIR": str(self.folder), "GRID_NAME": NAME, "GRID_DEVELOPMENT": "true"}
        return subprocess.run(
            [sys.executable, str(MANAGE), *arguments],
            env=inherited | own | self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def backup(self) -> None:
        done = self.manage("backup", "--to", str(self.set), "--keys", str(self.keys))
        assert done.returncode == 0, done.stderr

    def restore(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.manage("restore", "--from", str(self.set), *more)


def begin(staff: Staff) -> Kept:
    for name, role in {"owner": "owner", "scientist": "scientist", "reader": "scientist"}.items():
        staff.hire(name, role)
    with staff.client("owner") as owner:
        dataset = owner.publish(VALUES, name="backed up", columns=COLUMNS, tags=["#kept"])
    staff.give("owner", dataset, "reader", "read")
    staff.give("owner", dataset, "scientist", "aggregate")
    with staff.client("scientist") as client:
        value = client.asset(dataset)
        weighted = client.node("aten::mul.Tensor", value, client.constant(np.arange(40.0).reshape(20, 2)))
        answered, waiting = client.request(client.node("aten::select.int", value, 0, 1)), client.request(weighted)
        total = client.get(client.node("aten::sum.dim_IntList", value, [0])).tobytes()
    staff.call("owner", "POST", f"requests/{answered}/approve/", {"reason": "A test."})
    wait_answered(staff, answered)
    people = sorted(row["username"] for row in staff.call("admin", "GET", "users/")["results"])
    return Kept(staff.tokens, dataset, answered, waiting, total, people)


def wait_answered(staff: Staff, request: str) -> None:
    def done() -> bool:
        return bool(staff.call("scientist", "GET", f"requests/{request}/")["answered_at"])

    processes.wait_until(done, 30, "the request is answered")


def keep_writing(staff: Staff, enough: threading.Event, written: list[str]) -> None:
    """Publish, ask, approve and have answered, until told to stop."""
    number = 0
    with staff.client("owner") as owner, staff.client("scientist") as client:
        while not enough.is_set():
            number += 1
            made = owner.publish(VALUES + 0.25, name=f"meanwhile {number}", columns=COLUMNS)
            weights = client.constant(np.full((20, 2), float(number)))
            request = client.request(client.node("aten::mul.Tensor", client.asset(made), weights))
            staff.call("owner", "POST", f"requests/{request}/approve/", {"reason": "A test."})
            written.append(made["slug"])


def check_all_there(staff: Staff, kept: Kept) -> None:
    """Datasets, rights, requests, decisions and answers are what they were."""
    assert sorted(row["username"] for row in staff.call("admin", "GET", "users/")["results"]) == kept.people
    seen = staff.call("owner", "GET", f"datasets/{kept.dataset['slug']}/")
    assert (seen["id"], seen["tags"]) == (kept.dataset["id"], kept.dataset["tags"])
    with staff.client("reader") as reader, staff.client("scientist") as client:
        assert np.array_equal(reader.get(reader.asset(kept.dataset)), VALUES)
        value = client.asset(kept.dataset)
        assert client.get(client.node("aten::sum.dim_IntList", value, [0])).tobytes() == kept.total
        with pytest.raises(GridError):
            client.get(value)
        assert np.array_equal(client.fetch(kept.answered), VALUES[1])
        # The one that still waited has its program and constants, and runs here.
        staff.call("owner", "POST", f"requests/{kept.open}/approve/", {"reason": "After the restore."})
        wait_answered(staff, kept.open)
        assert np.array_equal(client.fetch(kept.open), VALUES * np.arange(40.0).reshape(20, 2))


def check_every_dataset_has_its_file(staff: Staff) -> None:
    page = staff.call("owner", "GET", "datasets/")["results"]
    with staff.client("owner") as owner:
        for row in page:
            assert owner.get(owner.asset(row)).shape == (20, 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Saved, Kept, list[str]]:
    """A node, backed up while it was being written to, and then stopped."""
    saved, written, enough = Saved(tmp_path_factory.mktemp("saved")), list[str](), threading.Event()
    with single_node(saved.root, NAME) as server:
        kept = begin(Staff(server))
        writer = threading.Thread(target=keep_writing, args=(Staff(server, dict(kept.tokens)), enough, written))
        writer.start()
        try:
            processes.wait_until(lambda: len(written) > 1, 30, "it is being written to")
            before = len(written)
            saved.backup()
            assert len(written) > before, "nothing was written during the backup"
        finally:
            enough.set()
            writer.join()
    return saved, kept, written


def copy_of(saved: Saved, root: Path) -> Saved:
    """The same backup, for a deployment of another folder, of which nothing is there."""
    shutil.copytree(saved.set, root / "backup")
    shutil.copytree(saved.keys, root / "keys-apart")
    return Saved(root, dict(saved.environment))


def test_destroyed_node_comes_back_with_everything(saved: tuple[Saved, Kept, list[str]], tmp_path: Path) -> None:
    original, kept, _ = saved
    node = copy_of(original, tmp_path)
    done = node.restore("--keys", str(node.keys))
    assert done.returncode == 0, done.stderr
    assert "The audit log is whole" in done.stdout
    assert "revoked" in done.stderr
    checked = node.manage("verify_audit")
    assert checked.returncode == 0, checked.stderr
    with single_node(node.root, NAME) as server:
        staff = Staff(server, dict(kept.tokens))
        check_all_there(staff, kept)
        check_every_dataset_has_its_file(staff)
        assert staff.call("admin", "GET", "audit/verify/")["ok"]
        (event,) = staff.events("backup_restored")
        assert event["payload"]["operator"]
    # The deployment and the backup share no file.
    assert {path.stat().st_nlink for path in (node.folder / "storage").rglob("*") if path.is_file()} == {1}


def test_older_database_beside_its_own_keys_is_found_out_and_accepted_loudly(
    saved: tuple[Saved, Kept, list[str]], tmp_path: Path
) -> None:
    """The disk of the data was lost, the keys were not: the head outside is further than the backup."""
    original, kept, written = saved
    node = copy_of(original, tmp_path)
    shutil.copytree(original.folder / "keys", node.folder / "keys")
    done = node.restore()
    assert done.returncode == 1
    assert "accept_restored_audit" in done.stderr
    assert node.manage("verify_audit").returncode == 1
    accepted = node.manage("accept_restored_audit", "--reason", "The disk of the data was lost on Monday.")
    assert accepted.returncode == 0, accepted.stderr
    checked = node.manage("verify_audit")
    assert checked.returncode == 0
    assert "BUT" in checked.stderr
    with single_node(node.root, NAME) as server:
        staff = Staff(server, dict(kept.tokens))
        check_all_there(staff, kept)
        present = {row["slug"] for row in staff.call("owner", "GET", "datasets/")["results"]}
        assert set(written) - present, "the backup was older than the node"
        assert staff.call("admin", "GET", "audit/verify/")["problem"]


def test_set_has_no_key_and_no_head_and_no_open_session(saved: tuple[Saved, Kept, list[str]]) -> None:
    node, _, _ = saved
    names = {path.relative_to(node.set).as_posix() for path in node.set.rglob("*") if path.is_file()}
    assert {FILE, "manifest.sig", "database.sqlite3"} <= names
    assert not [name for name in names if ".key" in name or "head" in name or "sessions" in name]
    assert {path.name for path in node.keys.iterdir()} == {"signing.key", "entity.key", "secret.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for folder in (node.set, node.keys) for path in folder.rglob("*"))
    content = b"".join(path.read_bytes() for path in node.set.rglob("*") if path.is_file())
    for key in node.keys.iterdir():
        assert key.read_bytes() not in content
        assert key.read_bytes().hex().encode() not in content


def change_a_value(node: Saved) -> None:
    file = next(path for path in (node.set / "storage" / "datasets").rglob("*") if path.is_file())
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")


def change_the_database(node: Saved) -> None:
    path = node.set / "database.sqlite3"
    path.write_bytes(path.read_bytes().replace(b"scientist", b"scientisT", 1))


def change_the_manifest(node: Saved) -> None:
    told = json.loads((node.set / FILE).read_text())
    told["audit"][0] += 1
    (node.set / FILE).write_text(json.dumps(told))


DAMAGE: dict[str, tuple[Callable[[Saved], Any], str]] = {
    "a value": (change_a_value, "was changed"),
    "the database": (change_the_database, "was changed"),
    "the manifest": (change_the_manifest, "not signed"),
    "a file too few": (lambda node: next((node.set / "storage").rglob("answer")).unlink(), "lacks"),
    "a file too many": (lambda node: (node.set / "storage" / "x").write_text("x"), "does not name"),
    "a link": (lambda node: (node.set / "storage" / "x").symlink_to("/etc/passwd"), "neither a file"),
    "an unfinished one": (lambda node: (node.set / FILE).unlink(), "no finished backup"),
    "other keys": (lambda node: (node.keys / "signing.key").write_bytes(bytes(32)), "not signed"),
    "a key missing": (lambda node: (node.keys / "secret.key").unlink(), "missing"),
    "storage in place": (lambda node: (node.folder / "storage" / "datasets").mkdir(parents=True), "not empty"),
    "another key in place": (
        lambda node: (
            (node.folder / "keys").mkdir(parents=True),
            (node.folder / "keys" / "secret.key").write_text("x"),
        ),
        "Another key",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_not_whole_or_not_empty_is_refused_untouched(
    what: str, saved: tuple[Saved, Kept, list[str]], tmp_path: Path
) -> None:
    node = copy_of(saved[0], tmp_path)
    damage, words = DAMAGE[what]
    damage(node)
    before = sorted(node.folder.rglob("*"))
    done = node.restore("--keys", str(node.keys))
    assert done.returncode == 1
    assert words in done.stderr
    assert sorted(node.folder.rglob("*")) == before


def test_backup_of_another_node_or_a_node_that_lives_is_refused(
    saved: tuple[Saved, Kept, list[str]], tmp_path: Path
) -> None:
    node = saved[0]
    assert "not empty" in node.restore("--keys", str(node.keys)).stderr
    other = copy_of(node, tmp_path)
    other.environment["GRID_NAME"] = "another"
    assert "settings here say another" in other.restore("--keys", str(other.keys)).stderr


@pytest.mark.parametrize(
    ("to", "keys", "words"),
    [
        ("new", "new/keys", "Keys do not belong"),
        ("new", "new", "Keys do not belong"),
        ("new/set", "new", "Keys do not belong"),
        ("vault/storage/backup", "new", "inside what is backed up"),
        ("new", "vault/keys/copy", "inside what is backed up"),
        ("backup", "new", "exists already"),
    ],
)
def test_places_where_a_backup_would_be_no_backup_are_refused(
    to: str, keys: str, words: str, saved: tuple[Saved, Kept, list[str]]
) -> None:
    node = saved[0]
    done = node.manage("backup", "--to", str(node.root / to), "--keys", str(node.root / keys))
    assert done.returncode == 1
    assert words in done.stderr
    assert not (node.root / "new").exists()
