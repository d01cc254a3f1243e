"""`python manage.py doctor`"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from django.core.management import BaseCommand

from gridsite.diagnosis import diagnose
from gridsite.health import Problem


class Command(BaseCommand):
    help = "Say what is wrong with this deployment and what to do about it. Exit code 1 when something is."
    # It says the same, with everything else.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        found = asyncio.run(diagnose())
        width = max(map(len, found))
        problems = 0
        for name, outcome in found.items():
            if isinstance(outcome, Problem):
                problems += 1
                self.stdout.write(f"WRONG  {name:{width}}  {outcome.words}")
                self.stdout.write(f"       {'':{width}}  {outcome.advice}")
            else:
                self.stdout.write(f"ok     {name:{width}}  {outcome}")
        if problems:
            self.stdout.write(f"{problems} of {len(found)} are wrong.")
            sys.exit(1)
