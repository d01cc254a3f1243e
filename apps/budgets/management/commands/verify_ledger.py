"""Verify the privacy ledger: exit code 0 when it is whole, 1 when it is not."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from apps.budgets.outside import undurable
from apps.budgets.verification import verify


class Command(BaseCommand):
    help = "Recompute the ledger's hashes, prices, sums and heads, and see whether the audit log tells of each release."

    def handle(self, *args: Any, **options: Any) -> None:
        report = verify()
        if report:
            self.stdout.write(f"The ledger is whole: {report.releases} releases.")
        else:
            self.stderr.write(f"The ledger is NOT whole, from release {report.releases} on: {report.problem}.")
        if report.frozen:
            self.stderr.write(
                f"Frozen: {', '.join(report.frozen)}. Nothing is answered from these domains until one person proposes "
                "a new epoch of each, and another confirms it."
            )
        if problem := undurable():
            self.stderr.write(f"BUT: {problem}: a power cut may give back what was spent.")
        if not report:
            sys.exit(1)
