"""The ledger's head outside the database: `ledger.head` in the keys folder, which is in no backup set.

A database that was restored from a copy, or a copy that was started beside the original, doesn't contain it: then it
would spend what was spent before. Nothing is charged from such a ledger, and no answer of it is delivered.
"""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction

from apps.audit.actions import lock_log, record
from apps.audit.verbs import Verb
from apps.budgets.chain import DOMAIN, GENESIS
from apps.budgets.models import Domain, LedgerHead, Release
from apps.core import countersigned, keys
from apps.core.heads import Head, HeadFile
from gridclient.wire.errors import ConflictError

logger = logging.getLogger(__name__)
FILE = HeadFile("ledger.head")
_on_disk: dict[Path, int] = {}
"""By file, up to which release it is known to be on the disk."""


def signed(seq: int, value: str) -> Head:
    """A head that proves by itself that this release was in the ledger."""
    return _signed(settings.GRID_KEYS_DIR, seq, value)


@lru_cache(8)
def _signed(folder: Path, seq: int, value: str) -> Head:
    """`folder`: of the key. All ledgers begin alike, and each deployment signs for itself."""
    return Head(seq, value, keys.sign(DOMAIN, value.encode()))


def problem() -> str:
    """Why the ledger doesn't contain the head that is kept outside the database; "" when it does. Two queries."""
    # In this order: the ledger may grow meanwhile, the outside head not beyond it.
    kept, last = FILE.read(), LedgerHead.objects.first()
    if last is None:
        return "its head row is missing"
    if kept is None:
        return "the head kept outside the database (ledger.head in the keys folder) is missing" if last.seq else ""
    if last.seq < kept.seq:
        named = countersigned.source(countersigned.LEDGER, kept)
        return f"it ends at release {last.seq}, but {named} names release {kept.seq}"
    if not contains(kept):
        return f"release {kept.seq} is not the one that {countersigned.source(countersigned.LEDGER, kept)} names"
    return ""


def contains(kept: Head) -> bool:
    """Whether the ledger has this release, or begins there."""
    if kept.seq == 0:
        return kept.hash == GENESIS
    return Release.objects.filter(seq=kept.seq, hash=kept.hash).exists()


def frozen_error(why: str) -> ConflictError:
    """What whoever asks is told."""
    return ConflictError(
        f"The privacy budget is frozen: {why}. Nothing is answered from it until two people open a new epoch."
    )


def check(seq: int, value: str) -> None:
    """Raise ConflictError unless a ledger that ends here may go on. The head row is locked by the caller."""
    kept = FILE.read()
    if kept is None and seq == 0:
        # Before the first charge: a process that ends after it, and before its head is outside, is told from a loss.
        FILE.advance(signed(0, GENESIS), contains=lambda head: True, durably=True)
    elif kept is None or kept.seq > seq or (kept.seq == seq and kept.hash != value):
        raise frozen_error("the ledger doesn't contain the head that is kept outside the database")


def publish(seq: int, value: str, *, since: tuple[int, str]) -> None:
    """After the commit of a charge: move the outside head, or freeze all domains. `since`: what it followed."""
    stray = FILE.advance(signed(seq, value), contains=lambda kept: kept[:2] == since or contains(kept))
    if stray is not None:
        _alarm(stray)
        freeze("the ledger doesn't contain the head that is kept outside the database")


def make_durable(seq: int, value: str) -> None:
    """Before a delivery: the outside head is at this release or beyond, and on the disk. Raises ConflictError."""
    path = FILE.path()
    if _on_disk.get(path, 0) >= seq:
        return
    if FILE.advance(signed(seq, value), contains=contains, durably=True) is not None:
        raise frozen_error("the ledger doesn't contain the head that is kept outside the database")
    _on_disk[path] = seq


def anchor(seq: int, value: str) -> None:
    """Set the outside head to this release, wherever it was: for a new epoch, whose event says what was lost."""
    FILE.anchor(signed(seq, value))
    _on_disk[FILE.path()] = seq


@cache
def _alarm(kept: Head) -> None:
    """Cached: once a process for each outside head."""
    logger.critical("The ledger does not contain the head kept outside. Run `manage.py verify_ledger`.")


@transaction.atomic
def freeze(why: str) -> None:
    """Freeze every domain that isn't frozen: which of them the lost releases were from, nobody knows."""
    lock_log()  # first, as everywhere
    for domain in Domain.objects.select_for_update().filter(frozen=""):
        domain.frozen = why[:300]
        domain.save(update_fields=["frozen"])
        record(Verb.DOMAIN_FROZEN, by=None, target=f"domain:{domain.slug}", why=domain.frozen)


def at_start() -> str:
    """Look at the ledger before it is used, and freeze it where it lacks its head. Returns what is wrong, or ""."""
    if why := problem():
        # Where there is no head at all, nothing is charged either; but keys that were not mounted may come back.
        if FILE.read() is not None:
            freeze(why)
    elif (last := Release.objects.only("seq", "hash").first()) is not None:
        # A process that ended between commit and outside head left it behind.
        make_durable(last.seq, last.hash)
    return why


def undurable() -> str:
    """Why a committed charge could be lost with the machine's power; "" when it can't.

    `charge` itself asks PostgreSQL to wait for the disk; whether the server has told it the truth is looked at here.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA synchronous")
            return "" if cursor.fetchone()[0] >= 2 else "SQLite runs with `synchronous` below FULL"
        for name in ("fsync", "full_page_writes"):
            cursor.execute(f"SHOW {name}")
            if cursor.fetchone()[0] != "on":
                return f"PostgreSQL runs with `{name}` off"
    return ""
