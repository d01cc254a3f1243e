"""The privacy ledger before its network: which head it shows, and what follows from one that it lacks.

Database and keys folder of yesterday, put back together, fit each other; the network has seen further. The lost head
becomes the head outside the database again and all domains are frozen, as if the folder had never been put back.

The way out is the same, too: two people open a new epoch of each domain. The first of them writes the lost head down
in the audit log, so that the network may repeat it for ever. One who restores a database from before that finds
himself frozen again. A network can hold a node to what the node itself has signed, and to nothing else; what it does
not say, or says no more, lifts nothing.
"""

from __future__ import annotations

import logging
from functools import cache

from apps.audit.countersigned import written_off
from apps.audit.verbs import Verb
from apps.budgets import outside
from apps.budgets.models import Release
from apps.core.countersigned import LEDGER, Log
from apps.core.heads import Head

logger = logging.getLogger(__name__)


def newest() -> Head | None:
    """The last release's, signed."""
    last = Release.objects.only("seq", "hash").first()
    return None if last is None else outside.signed(last.seq, last.hash)


def heed(head: Head) -> None:
    """Hold the ledger to a head that this node signed and the network has seen; by its hash, as the audit log."""
    if Release.objects.filter(hash=head.hash).exists() or written_off(Verb.LEDGER_SET_BACK, head):
        return
    present = outside.FILE.read()
    if present is None or outside.contains(present):
        outside.FILE.anchor(head)
    why = outside.problem()
    _alarm(head, why)
    outside.freeze(why)


@cache
def _alarm(head: Head, why: str) -> None:
    """Cached: once a process for each head, not with each heartbeat."""
    logger.critical("The privacy ledger was set back: %s. Run `manage.py verify_ledger`.", why)


LOG = Log(LEDGER, newest, heed)
