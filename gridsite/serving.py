"""What `runnode` and `runnetwork` share: arguments become environment, then checks, migrations, and the server."""

from __future__ import annotations

import json
import os
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.core.management import BaseCommand, CommandError, call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from apps.core.locks import alone
from apps.core.logs import log_all
from gridsite.deployment import MANAGE, host_and_port, is_loopback, keep_secret
from gridsite.processes import serve_by_several
from gridsite.server import listen, serve


class ServeCommand(BaseCommand):
    """Run one deployment until SIGTERM or Ctrl-C."""

    role: str
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="Port to listen on.")
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
        parser.add_argument("--dir", type=Path, help="Folder of database, storage and keys (GRID_DIR).")
        parser.add_argument("--name", help="Its name (GRID_NAME).")
        parser.add_argument("--fd", type=int, help="An inherited listening socket, instead of --port and --host.")
        parser.add_argument(
            "--processes",
            type=int,
            default=1,
            help="Web processes on the one socket. Several need PostgreSQL and Redis.",
        )
        parser.add_argument(
            "--credentials", type=Path, help="JSON: by name, the first account to make, if it is not there."
        )

    def environment(self, options: dict[str, Any]) -> dict[str, str]:
        """The variables that the arguments stand for, and defaults for those that nobody set."""
        wanted = {"GRID_ROLE": self.role}
        if options["dir"]:
            wanted["GRID_DIR"] = str(options["dir"].resolve())
        if options["name"]:
            wanted["GRID_NAME"] = options["name"]
        url = os.environ.get("GRID_URL") or f"http://{options['host']}:{options['port']}"
        wanted["GRID_URL"] = url
        if "GRID_DEVELOPMENT" not in os.environ and url.startswith("http:") and is_loopback(url):
            wanted["GRID_DEVELOPMENT"] = "true"
        if "GRID_SECRET_KEY" not in os.environ and "GRID_SECRET_KEY_FILE" not in os.environ:
            folder = Path(wanted.get("GRID_DIR", settings.GRID_DIR))
            file = Path(os.environ.get("GRID_KEYS_DIR", folder / "keys")) / "secret.key"
            keep_secret(file)
            wanted["GRID_SECRET_KEY_FILE"] = str(file)
        return wanted

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # database, storage and keys are for this account only
        wanted = self.environment(options)
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            # Settings were read before the arguments: once more, with the environment that the arguments ask for.
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
        serious = [found for found in run_checks(tags=["grid"], include_deployment_checks=True) if found.level >= ERROR]
        if serious:
            raise CommandError("\n".join(f"{found.id}: {found.msg} {found.hint or ''}" for found in serious))
        check_processes(options["processes"])
        listener = self.listener(options)
        settings.GRID_DIR.mkdir(parents=True, exist_ok=True)
        with alone("start"):
            migrate()
            if options["credentials"]:
                create_first_account(options["credentials"])
            elif not has_accounts():
                self.stdout.write(
                    "Nobody can sign in yet. Make the first account (the password is the first line of its input):\n"
                    f"  GRID_DIR={settings.GRID_DIR} python manage.py createaccount admin --roles administrator"
                )
        connections.close_all()
        self.stdout.write(f"{settings.GRID_ROLE} {settings.GRID_NAME}: {settings.GRID_URL}")
        self.stdout.flush()
        log_all()
        if options["processes"] > 1:
            serve_by_several(listener, [sys.executable, str(MANAGE), f"run{self.role}"], options["processes"])
        else:
            serve(listener, proxies=[] if settings.GRID_DEVELOPMENT else settings.GRID_PROXIES)

    def listener(self, options: dict[str, Any]) -> socket.socket:
        """The socket to serve on, before anything slow or lasting is done."""
        if options["fd"] is not None:
            return socket.socket(fileno=options["fd"])
        try:
            return listen(options["host"], options["port"])
        except OSError as error:
            raise CommandError(port_refusal(options["port"], error)) from None


def check_processes(number: int) -> None:
    """Raises CommandError where this deployment cannot be served by so many processes."""
    if number < 1:
        raise CommandError("--processes is a whole number from 1.")
    if number == 1:
        return
    if connections["default"].vendor == "sqlite":
        raise CommandError(
            "Several processes need PostgreSQL (GRID_DATABASE_URL): with SQLite they wait for each other's writes."
        )
    if not settings.GRID_REDIS_URL:
        raise CommandError("Several processes need Redis (GRID_REDIS_URL), by which they hear of each other.")


def port_refusal(port: int, error: OSError) -> str:
    """What to tell someone whose port cannot be had."""
    return f"Port {port} cannot be used ({error.strerror}). Stop what listens there, or choose another with --port."


def migrate() -> None:
    """Bring the database to the newest migration. Cheap when it is there already."""
    executor = MigrationExecutor(connections["default"])
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0, skip_checks=True)


def has_accounts() -> bool:
    """Whether anyone could sign in."""
    from apps.accounts.models import User

    return User.objects.exists()


def create_first_account(file: Path) -> None:
    """Make the account that `file` holds under this deployment's name, unless it exists."""
    from apps.accounts.actions import create_user
    from apps.accounts.models import User

    account = json.loads(file.read_text())[settings.GRID_NAME]
    if not User.objects.filter(username=account["username"]).exists():
        create_user(
            username=account["username"], password=account["password"], roles=["administrator", "owner"], by=None
        )


def trusted_pair(network_url: str) -> dict[str, str]:
    """The outbound exception for a network on this machine, whose operator is the one who names it."""
    if not network_url or not is_loopback(network_url) or "GRID_OUTBOUND_ALLOW" in os.environ:
        return {}
    return {"GRID_OUTBOUND_ALLOW": host_and_port(network_url)}
