"""Files that a process left behind when it ended in the middle of something."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings

from apps.core import clock
from apps.datarequests.files import CONSTANTS, remove_constants
from apps.datarequests.models import MAY_RUN, DataRequest


def remove_orphans(*, older_than: timedelta = timedelta(hours=1), now: datetime | None = None) -> int:
    """Remove folders of requests that were never committed, and constants of those that will not run again.

    How many that were. For the start of a process; younger folders stay: another process may be about to commit.
    """
    before = ((now or clock.now()) - older_than).timestamp()
    storage = Path(settings.GRID_STORAGE_DIR) / "requests"
    found = [folder for folder in storage.glob("*") if folder.stat().st_mtime < before]
    known = {str(key) for key in DataRequest.objects.values_list("pk", flat=True)}
    running = {str(key) for key in DataRequest.objects.filter(MAY_RUN).values_list("pk", flat=True)}
    removed = 0
    for folder in found:
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        elif folder.name not in running and (folder / CONSTANTS).exists():
            remove_constants(folder)
            removed += 1
    return removed
