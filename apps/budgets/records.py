"""Sealed records: what a release costs each person, in files that only workers read. Here they are carried.

A record is on the disk before the charge that names it is committed, and lasts as long as the ledger. One whose charge
was never committed is nobody's: it counts for nothing, and a start removes it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db import transaction

from apps.audit.actions import lock_log
from apps.budgets.models import Release
from apps.core.durable import sync

FOLDER, RECORDS = "individual", "records"
"""Of the storage, with a folder for each pot; and of that, beside what workers make of the records."""


class Sealed(NamedTuple):
    """A record that a worker wrote: its sha256, and where. `pot`, `worst`: what it was made for; `header`: of the pot
    when it was made.

    `tested`: whoever had too little left is left out. `alone`: nothing else may have been charged since.
    """

    digest: str
    file: Path
    pot: int
    worst: int
    header: int
    tested: bool
    alone: bool


def folder(pot: int) -> Path:
    """Of a pot: its records, and what is made of them."""
    return Path(settings.GRID_STORAGE_DIR) / FOLDER / str(pot)


def place(pot: int, digest: str) -> Path:
    """Where the record of a release from a pot is."""
    return folder(pot) / RECORDS / digest


def there(sealed: Sealed) -> bool:
    """Whether the record is there to be kept, under its name or not yet."""
    return sealed.file.exists() or place(sealed.pot, sealed.digest).exists()


def keep(pot: int, sealed: Sealed) -> None:
    """In the transaction of the charge, with the log locked: give a durable record its name, durably."""
    records = folder(pot) / RECORDS
    if not records.exists():
        records.mkdir(mode=0o700, parents=True)
        for above in (records.parent, records.parent.parent, records.parent.parent.parent):
            sync(above)
    # A transaction that failed for somebody else's sake has named it before.
    if not (records / sealed.digest).exists():
        os.replace(sealed.file, records / sealed.digest)
    sync(records)


def fits(pot: int, digest: str) -> bool:
    """Whether the record is there, and is the one that was named. Its content is not looked at."""
    try:
        with place(pot, digest).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return False


@transaction.atomic
def remove_orphans() -> int:
    """Remove the records that no release names; how many. For the start of a process, on a ledger that is whole.

    Whoever charges holds the log from the moment when its record has a name until the commit: none of those is here.
    """
    lock_log()
    known = set(Release.objects.exclude(record="").values_list("record", flat=True))
    found = [file for file in folder(0).parent.glob(f"*/{RECORDS}/*") if file.name not in known]
    for file in found:
        file.unlink()
    return len(found)
