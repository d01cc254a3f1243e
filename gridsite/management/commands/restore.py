"""`python manage.py restore --from DIR --keys DIR`"""

from __future__ import annotations

import getpass
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError

from gridsite.backup.manifest import BackupRefusal
from gridsite.backup.restoring import restore


class Command(BaseCommand):
    help = (
        "Put a backup back into an empty deployment. Exit code 1 where its audit log lacks events that were recorded."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="source", type=Path, required=True, help="The folder of a backup.")
        parser.add_argument("--keys", type=Path, help="The folder of its keys; without it, they are in their place.")

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        try:
            restored = restore(options["source"], options["keys"], operator=getpass.getuser())
        except BackupRefusal as refusal:
            raise CommandError(str(refusal)) from None
        files = len(restored.manifest.files)
        self.stdout.write(f"Restored what {restored.manifest.name} was at {restored.manifest.made}: {files} files.")
        self.stderr.write(
            "Tokens that were revoked, accounts that were closed and grants that were taken back since then hold "
            "again: do it once more before people come in."
        )
        if restored.report:
            self.stdout.write(f"The audit log is whole: {restored.report.events} events.")
            return
        self.stderr.write(
            f"The audit log goes no further than the backup: {restored.report.problem}.\n"
            "Write that down, and let the log go on from here, with:\n"
            '  python manage.py accept_restored_audit --reason "..."'
        )
        sys.exit(1)
