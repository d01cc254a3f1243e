"""A process that works on the ledger of a deployment, as a web process does, and dies where it's told.

`python -m tests.factories.ledger_node COMMAND ARGUMENTS...`, with the deployment in the environment; prints one line of
JSON. Run by `Node`, which keeps the deployment: its folder, and its database on SQLite or PostgreSQL.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("transaction", "committed", "charged", "attempted", "answered", "head", "delivered")
"""Where a process can be killed, in the order of one answer."""


@dataclass
class Node:
    """A deployment. `database`: its address on PostgreSQL; "" for SQLite in the folder. `module`: of its commands."""

    folder: Path
    database: str = ""
    module: str = "tests.factories.ledger_node"

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Begin a command; it ends when its standard input is closed, if it waits at all."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")} | {
            "DJANGO_SETTINGS_MODULE": "gridsite.settings",
            "GRID_ROLE": "node",
            "GRID_DIR": str(self.folder),
            "GRID_SECRET_KEY": "only-for-tests-" + "0123456789abcdef" * 4,
            "GRID_DEVELOPMENT": "true",
        }
        if self.database:
            environment["GRID_DATABASE_URL"] = self.database
        return subprocess.Popen(
            [sys.executable, "-m", self.module, *command],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *command: str) -> dict[str, Any]:
        """Run a command to its end: what it said first, and whether it was `killed`."""
        process = self.start(*command)
        said, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), command
        if (left := self.folder.with_name(f"{self.folder.name}.left")).exists():
            shutil.rmtree(self.folder)
            left.rename(self.folder)
        return dict(json.loads(said.splitlines()[0])) | {"killed": process.returncode == -signal.SIGKILL}

    def copy(self, folder: Path, *, keys: Path | None = None) -> Node:
        """A copy of folder and database. `keys`: the folder of keys that it has in place of a copy."""
        from tests.factories import databases

        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("db.sqlite3*"))
        if keys is not None:
            shutil.rmtree(folder / "keys", ignore_errors=True)
            (folder / "keys").symlink_to(keys)
        if not self.database:
            with (
                closing(sqlite3.connect(self.folder / "db.sqlite3")) as ours,
                closing(sqlite3.connect(folder / "db.sqlite3")) as theirs,
            ):
                ours.backup(theirs)
            return Node(folder, module=self.module)
        name = f"ledger_{folder.name}"
        with databases.administrator() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{urlsplit(self.database).path[1:]}"')
        return Node(folder, databases.make_database(name), self.module)


def main(command: str, *arguments: str) -> dict[str, Any]:
    import django

    django.setup()
    return dict(globals()[f"_{command}"](*arguments))


def _prepare() -> dict[str, Any]:
    from django.core.management import call_command

    from tests.factories.people import make_user
    from tests.factories.queue import publish

    call_command("migrate", verbosity=0)
    for name in ("owner", "reviewer", "scientist"):
        make_user(name, name)
    return {"dataset": str(publish(_user("owner")).pk)}


def _user(name: str = "scientist") -> Any:
    from apps.accounts.models import User

    return User.objects.get(username=name)


def _dataset() -> Any:
    from apps.datasets.models import Dataset

    return Dataset.objects.get()


def _cut(step: str, key: str) -> dict[str, Any]:
    """As `die`, and the machine's power goes: of the folder, only what is on the disk is left. A server of PostgreSQL
    has a disk of its own; what it promises is asked by `promised`."""
    from django.conf import settings
    from django.db import connection
    from django.db.backends.base.base import BaseDatabaseWrapper

    from tests.factories.power import Disk

    folder = Path(settings.GRID_DIR)
    disk = Disk(folder)
    commit = BaseDatabaseWrapper._commit

    def look() -> None:
        # Otherwise a commit is on the disk one day.
        if connection.vendor == "sqlite" and connection.connection.execute("PRAGMA synchronous").fetchone()[0] >= 2:
            disk.committed(Path(connection.settings_dict["NAME"]))

    def committing(database: BaseDatabaseWrapper) -> None:
        commit(database)
        look()

    def executing(execute: Any, *given: Any) -> Any:
        try:
            return execute(*given)
        finally:
            if not connection.in_atomic_block:
                look()

    BaseDatabaseWrapper._commit = committing
    with connection.execute_wrapper(executing):
        return _die(step, key, lambda: disk.cut(folder.with_name(f"{folder.name}.left")))


def _die(step: str, key: str, before: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Start, say what was found, answer a question, and be killed at `step`, `before` which something else happens."""
    from django.db import transaction

    from apps.budgets import ledger, outside
    from tests.factories.budgets import held, priced, question

    def reached(place: str) -> None:
        if place == step:
            before()
            os.kill(os.getpid(), signal.SIGKILL)

    print(json.dumps(_recover()), flush=True)
    publish, durable = outside.publish, outside.make_durable

    def publishing(*given: Any, **named: Any) -> None:
        reached("committed")
        publish(*given, **named)

    def making_durable(*given: Any) -> None:
        durable(*given)
        reached("head")

    outside.publish, outside.make_durable = publishing, making_durable
    asked = question(_dataset())
    with transaction.atomic():
        release = ledger.charge(_user(), asked, priced(_user(), asked, held(_dataset(), 2.0)), key=key)
        reached("transaction")
    reached("charged")
    number = ledger.attempt(release)
    reached("attempted")
    ledger.answered(release, number, data=key.encode(), dtype="uint8", shape=[len(key)])
    reached("answered")
    ledger.delivered(release)
    reached("delivered")
    return {}


def _recover() -> dict[str, Any]:
    """Start after a crash: what is found, and what becomes of it."""
    from apps.budgets import ledger, outside
    from apps.budgets.models import Release

    seen = _look()
    seen["problem"] = outside.at_start()
    for release in ledger.unanswered():
        ledger.answered(release, ledger.attempt(release), data=b"second", dtype="uint8", shape=[6])
    for release in Release.objects.exclude(state="void"):
        ledger.delivered(release)
    return seen | {"after": _look()}


def _look() -> dict[str, Any]:
    from apps.budgets import outside
    from apps.budgets.models import Domain, Release
    from apps.budgets.verification import verify
    from tests.factories.budgets import queries_pot

    rows = {row.key: [row.state, bytes(row.data or b"").decode()] for row in Release.objects.all()}
    report = verify()
    return {
        "releases": rows, "spent": queries_pot().spent, "cap": queries_pot().cap, "whole": report.problem,
        "frozen": Domain.objects.get().frozen, "head": head.seq if (head := outside.FILE.read()) else 0,
    }  # fmt: skip


def _start() -> dict[str, Any]:
    from apps.budgets import outside

    return {"problem": outside.at_start()} | _look()


def _charge(key: str, wait: str = "") -> dict[str, Any]:
    """Charge one answer, or be refused; with `wait`, live on until the standard input is closed."""
    from gridclient.wire.errors import GridError
    from tests.factories.budgets import ask

    try:
        ask(_user(), _dataset(), key)
        said = {"refused": ""}
    except GridError as error:
        said = {"refused": error.message}
    if wait:
        print(json.dumps(said), flush=True)
        sys.stdin.read()
    return said


def _race(name: str, threads: str) -> dict[str, Any]:
    """So many threads charge one answer each, all at once; how many did, and how many were told that it is used up."""
    from django.db import connections

    from gridclient.wire.errors import BudgetExhaustedError
    from tests.factories.budgets import ask

    user, dataset = _user(), _dataset()

    def one(number: int) -> bool:
        try:
            ask(user, dataset, f"{name} {number}")
        except BudgetExhaustedError:
            return False
        finally:
            connections.close_all()
        return True

    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(int(threads)) as pool:
        outcomes = list(pool.map(one, range(int(threads))))
    return {"charged": sum(outcomes), "refused": len(outcomes) - sum(outcomes)}


def _epoch() -> dict[str, Any]:
    """Two people open a new epoch."""
    from apps.budgets import actions
    from apps.budgets.models import Domain

    proposal = actions.propose_epoch(Domain.objects.get(), reason="A backup was put back.", by=_user("owner"))
    actions.confirm_epoch(proposal, by=_user("reviewer"))
    return _look()


def _heartbeat() -> dict[str, Any]:
    """Say what a network is told of the logs, read its key and its answer from a line, and heed it."""
    import msgspec

    from apps.audit.queries import verify
    from apps.core import keys
    from apps.network import heads
    from apps.network.messages import SeenHead
    from gridsite.lifespan import LOGS

    shown = msgspec.to_builtins(heads.shown(LOGS))
    print(json.dumps({"key": keys.public_key(), "heads": shown}), flush=True)
    network, seen = json.loads(sys.stdin.readline())
    heads.heed(LOGS, msgspec.convert(seen, list[SeenHead]), network=network)
    return _look() | {"audit": verify().problem}


def _promised() -> dict[str, Any]:
    """What the database promises of a commit, inside the transactions of a charge and of its answer."""
    from django.db import connection, transaction

    from apps.budgets import ledger
    from tests.factories.budgets import ask

    def synchronous() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous" if connection.vendor == "sqlite" else "SHOW synchronous_commit")
            return cursor.fetchone()[0]

    with transaction.atomic():
        release = ask(_user(), _dataset(), "k")
        charge = synchronous()
    number = ledger.attempt(release)
    with transaction.atomic():
        ledger.answered(release, number, data=b"1", dtype="uint8", shape=[1])
        return {"charge": charge, "answer": synchronous()}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)
