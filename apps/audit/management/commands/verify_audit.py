"""Verify the audit log: exit code 0 when it is whole (and where it was once set back), 1 when it is not."""

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
            if report.problem:
                self.stderr.write(f"BUT: {report.problem}")
            return
        self.stderr.write(f"The audit log is NOT whole. First bad event: {report.first_bad}. {report.problem}.")
        if verify(outside_head=False):
            self.stderr.write(
                "By itself it is whole. If an older backup was restored, write that down and go on with: "
                'python manage.py accept_restored_audit --reason "..."'
            )
        sys.exit(1)
