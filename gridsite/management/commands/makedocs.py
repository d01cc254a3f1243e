"""`python manage.py makedocs [--check]`"""

from __future__ import annotations

import difflib
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from gridsite.reference.pages import pages


class Command(BaseCommand):
    help = "Write the generated pages of docs/reference, or with --check say what differs from them."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="Write nothing; fail when a page is out of date.")

    def handle(self, *args: Any, **options: Any) -> None:
        folder = settings.BASE_DIR / "docs" / "reference"
        wanted = {folder / path: text for path, text in pages().items()}
        present = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
        stale = [path for path in wanted if present.get(path) != wanted[path]] + [p for p in present if p not in wanted]
        if not options["check"]:
            for path, text in wanted.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            for path in present.keys() - wanted.keys():
                path.unlink()
            return
        for path in stale:
            before, after = present.get(path, ""), wanted.get(path, "")
            name = str(path.relative_to(settings.BASE_DIR))
            diff = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="", n=1)
            self.stdout.write("\n".join(line[:160] for line in diff))
        if stale:
            raise CommandError("Generated pages are out of date: run `make docs`.")
