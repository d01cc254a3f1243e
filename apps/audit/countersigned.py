"""The audit log before its network: which head it shows, and what follows from one that it lacks.

A lost head becomes the head outside the database again, whatever stood there: from then on all is as if the keys
folder had never been put back, and `restored.accept` is the way out. The event that it writes names the lost head, and
the network may repeat that one for ever.
"""

from __future__ import annotations

import logging
from functools import cache

from apps.audit import head as outside
from apps.audit.chain import DOMAIN
from apps.audit.models import AuditEvent
from apps.audit.queries import contains, head_problem
from apps.audit.verbs import Verb
from apps.core import keys
from apps.core.countersigned import AUDIT, Log

logger = logging.getLogger(__name__)


def newest() -> outside.Head | None:
    """The last event's, signed."""
    last = AuditEvent.objects.only("seq", "hash").first()
    return None if last is None else outside.Head(last.seq, last.hash, keys.sign(DOMAIN, last.hash.encode()))


def written_off(verb: Verb, head: outside.Head) -> bool:
    """Whether an event of this kind says that the head is lost. By its target, which is never erased."""
    return AuditEvent.objects.filter(verb=verb, target__startswith="head:", target__endswith=f":{head.hash}").exists()


def heed(head: outside.Head) -> None:
    """Hold the log to a head that this node signed and the network has seen.

    By its hash, which covers its number; the node's signature covers the hash only, so that a network could name
    another number.
    """
    if AuditEvent.objects.filter(hash=head.hash).exists() or written_off(Verb.AUDIT_SET_BACK, head):
        return
    present = outside.read()
    if present is None or contains(present):
        outside.anchor(head)
    _alarm(head, head_problem())


@cache
def _alarm(head: outside.Head, why: str) -> None:
    """Cached: once a process for each head, not with each heartbeat."""
    logger.critical("The audit log was set back: %s. Run `manage.py verify_audit`.", why)


LOG = Log(AUDIT, newest, heed)
