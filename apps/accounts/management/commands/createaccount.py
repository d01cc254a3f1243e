"""Make an account from the machine itself: the way to the first administrator."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.accounts.actions import create_user
from gridclient.wire.errors import GridError


class Command(BaseCommand):
    help = "Make an account. The password is read from a file or from standard input, never from the command line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument(
            "--roles", default="", help="Comma-separated: owner, scientist, reviewer, auditor, administrator."
        )
        parser.add_argument(
            "--password-file", type=Path, help="Holds the password; default: the first line of standard input."
        )

    def handle(self, *args: Any, username: str, roles: str, password_file: Path | None, **options: Any) -> None:
        wanted = [role.strip() for role in roles.split(",") if role.strip()]
        try:
            text = password_file.read_text() if password_file is not None else _asked()
            user = create_user(username=username, password=text.rstrip("\r\n"), roles=wanted, by=None)
        except OSError as error:
            raise CommandError(f"The password file can't be read: {error.strerror}.") from None
        except GridError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"Made the account {user.username}.")


def _asked() -> str:
    """A password typed unseen at a terminal, or the first line that a script hands over."""
    return getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline()
