"""Verify the audit log: exit code 0 when it is whole, 1 with the first bad event when it is not."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from apps.audit.queries import verify


class Command(BaseCommand):
    help = "Recompute the audit log's hashes, signatures, texts and heads."

    def handle(self, *args: Any, **options: Any) -> None:
        report = verify()
        if report:
            self.stdout.write(f"The audit log is whole: {report.events} events.")
            return
        self.stderr.write(f"The audit log is NOT whole. First bad event: {report.first_bad}. {report.problem}.")
        sys.exit(1)
