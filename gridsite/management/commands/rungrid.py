"""`python manage.py rungrid --dir DIR --port 8000 --nodes hospital,company --ready-file FILE`"""

from __future__ import annotations

import os
import signal
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError

from gridsite.grid import Grid, GridRefusal


class Command(BaseCommand):
    help = (
        "Run a network and its nodes on this machine, for development, until SIGTERM or Ctrl-C. "
        "The account 'admin' of each is administrator and data owner in one: keep these apart where data is real."
    )
    # This process serves nothing and has no database or secret of its own.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dir", type=Path, required=True, help="Folder of the grid; one folder in it a deployment."
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="The network's port; nodes follow. 0: any free ones."
        )
        parser.add_argument("--nodes", default="hospital,company,university,public", help="Names, comma-separated.")
        parser.add_argument(
            "--database",
            default="",
            help="PostgreSQL instead of SQLite: an address with {name} for a deployment's name.",
        )
        parser.add_argument("--redis", default="", help="Redis of all deployments (GRID_REDIS_URL).")
        parser.add_argument("--ready-file", type=Path, help="Written, with addresses and sign-ins, when all are up.")

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # everything below --dir is for this account only
        names = [name.strip() for name in options["nodes"].split(",") if name.strip()]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _stop)
        try:
            with Grid(
                options["dir"], names, options["port"], database=options["database"], redis=options["redis"]
            ) as grid:
                if options["ready_file"]:
                    # Left from an earlier run, it would say "ready" too early.
                    options["ready_file"].unlink(missing_ok=True)
                grid.start()
                if options["ready_file"]:
                    grid.write_ready(options["ready_file"])
                for deployment in grid.deployments:
                    self.stdout.write(f"{deployment.role:8}{deployment.name:12}{deployment.url}")
                self.stdout.write(f"Sign-ins: {grid.credentials_file}. Ctrl-C stops the grid.")
                self.stdout.flush()
                grid.watch()
        except GridRefusal as refusal:
            raise CommandError(str(refusal)) from None


def _stop(number: int, frame: object) -> None:
    raise SystemExit(0)
