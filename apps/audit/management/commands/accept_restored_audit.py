"""`python manage.py accept_restored_audit --reason "..."`"""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.queries import set_back_words
from apps.audit.restored import accept
from gridclient.wire.errors import GridError


class Command(BaseCommand):
    help = (
        "Accept that the audit log was set back, after a restore from an older backup: writes an event that names the "
        "head which is gone, and lets the log go on from there. verify_audit tells of it from then on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reason", required=True, help="Which backup, why, and who decided: kept in the log.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            event = accept(reason=options["reason"], by=None, operator=getpass.getuser())
        except GridError as error:
            raise CommandError(error.message) from None
        self.stderr.write(set_back_words(event))
        self.stderr.write("Values that were released in between left this node, although its log no longer says so.")
