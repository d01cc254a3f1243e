"""`python manage.py backup --to DIR --keys DIR`"""

from __future__ import annotations

import getpass
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError

from gridsite.backup.making import back_up
from gridsite.backup.manifest import BackupRefusal


class Command(BaseCommand):
    help = "Write database and storage to a new folder, and the keys to another, while the deployment goes on working."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--to", type=Path, required=True, help="A folder that does not exist yet.")
        parser.add_argument("--keys", type=Path, help="Another one, on another medium, for copies of the keys.")

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        try:
            digest = back_up(options["to"], options["keys"], operator=getpass.getuser())
        except BackupRefusal as refusal:
            raise CommandError(str(refusal)) from None
        self.stdout.write(f"Backed up to {options['to']}. sha256 of its manifest: {digest}")
        if options["keys"]:
            self.stdout.write(f"Keys: {options['keys']}. Keep them apart: who has both has this deployment.")
        else:
            self.stderr.write("The keys were not backed up (--keys): without them, this backup is worth nothing.")
