"""Writing the audit log: `record`, or `record_all`, called in the transaction of what it records."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, Protocol

from django.db import connection, transaction

from apps.audit import head as outside
from apps.audit.chain import DOMAIN, GENESIS, text_digest
from apps.audit.models import AuditEvent, AuditHead
from apps.audit.verbs import Verb
from apps.core import clock, keys
from apps.core.canonical import canonical
from apps.core.prepared import execute, execute_together, of_many
from gridclient.wire.errors import InternalError

logger = logging.getLogger(__name__)


class Actor(Protocol):
    """Whoever does something: the log knows no more of people."""

    @property
    def id(self) -> Any: ...

    @property
    def username(self) -> str: ...


class _Publish:
    """Moves the outside head after the commit, unless a later event of the same transaction does."""

    def __init__(self, head: outside.Head, since: tuple[int, str]) -> None:
        self.head = head
        self.since = since
        """Number and hash of the event after which this transaction's begin: the outside head is there, as a rule."""
        self.superseded = False

    def __call__(self) -> None:
        if not self.superseded and (stray := outside.advance(self.head, contains=self._contains)) is not None:
            _alarm(stray)

    def _contains(self, kept: outside.Head) -> bool:
        return (kept.seq, kept.hash) == self.since or AuditEvent.objects.filter(seq=kept.seq, hash=kept.hash).exists()


def _publish_on_commit(publish: _Publish) -> None:
    # An earlier event that shares every open savepoint with this one is committed or rolled back together with it.
    open_savepoints = set(connection.savepoint_ids)
    for savepoints, earlier, *_ in connection.run_on_commit:
        if isinstance(earlier, _Publish) and not earlier.superseded and open_savepoints <= savepoints:
            earlier.superseded, publish.since = True, min(earlier.since, publish.since)
    # Robust: what was committed is not reported as failed because a disk is full.
    transaction.on_commit(publish, robust=True)


@cache
def _alarm(kept: outside.Head) -> None:
    """Cached: once a process for each outside head, not once an event."""
    logger.critical("The audit log does not contain the head kept outside. Run `manage.py verify_audit`.")


# By hand: these four statements are on the path of every release, and the ORM would triple their price.
_LOCK_HEAD = "SELECT seq, hash FROM audit_audithead WHERE id = 1"
_ADD_EVENT = (
    "INSERT INTO audit_auditevent"
    " (seq, at, verb, actor_id, actor_name, target, payload_digest, previous, hash, signature)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_ADD_TEXT = "INSERT INTO audit_audittext (event_id, salt, body) VALUES (%s, %s, %s)"
_STEP_HEAD = "UPDATE audit_audithead SET seq = %s, hash = %s WHERE id = 1"


def _lock_head() -> tuple[int, str]:
    """Number and hash of the last event, locked until the transaction ends."""
    locked = _LOCK_HEAD + (" FOR UPDATE" if connection.features.has_select_for_update else "")
    row = execute(locked, ()).fetchone()
    if row is None:
        if AuditEvent.objects.exists():
            # Somebody has just written the first one, and the head with it.
            row = execute(locked, ()).fetchone()
            if row is not None:
                return row[0], row[1]
            raise InternalError("The audit log lost its head: nothing can be recorded. Run `manage.py verify_audit`.")
        AuditHead.objects.get_or_create(id=1, defaults={"seq": 0, "hash": GENESIS})
        row = execute(locked, ()).fetchone()
    return row[0], row[1]


def lock_log() -> None:
    """Let no other recorded change be committed before this transaction ends.

    For who must not act on what is being taken away at this moment. SQLite's transactions exclude each other anyway.
    """
    if connection.features.has_select_for_update:
        _lock_head()


class Happened(NamedTuple):
    """What an event tells: see `record`."""

    verb: Verb
    by: Actor | None
    target: str
    at: datetime | None
    payload: dict[str, Any]


def record(verb: Verb, *, by: Actor | None, target: str = "", at: datetime | None = None, **payload: Any) -> AuditEvent:
    """Append an event; it is committed or rolled back with the caller's transaction.

    `by` None is the system. `payload` holds plain JSON values and may be erased one day; `target` names the object and
    never is. Raises TransactionManagementError outside a transaction, TypeError or ValueError for a payload that JSON
    cannot say.
    """
    (event,) = record_all([Happened(verb, by, target, at, payload)])
    return event


def record_all(happened: Iterable[Happened]) -> list[AuditEvent]:
    """Append events, in this order: one at least. As `record`."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("An audit event belongs into the transaction of what it records.")
    last, previous = since = _lock_head()
    events, texts = [], []
    for each in happened:
        body, salt = canonical(each.payload).decode(), secrets.token_hex(16)
        event = AuditEvent(
            seq=last + 1,
            at=each.at or clock.now(),
            verb=each.verb.value,
            actor_id=str(each.by.id) if each.by is not None else "",
            actor_name=each.by.username if each.by is not None else "",
            target=each.target,
            payload_digest=text_digest(salt, body),
            previous=previous,
        )
        event.hash = event.computed_hash()
        event.signature = keys.sign(DOMAIN, event.hash.encode())
        last, previous = event.seq, event.hash
        events.append(event)
        texts.append((event.seq, salt, body))
    execute_together(
        [
            of_many(_ADD_EVENT, [_stored(event) for event in events]),
            of_many(_ADD_TEXT, texts),
            (_STEP_HEAD, (last, previous)),
        ]
    )
    for event in events:
        event._state.adding = False
    _publish_on_commit(_Publish(outside.Head(last, previous, events[-1].signature), since))
    return events


def _stored(event: AuditEvent) -> tuple[Any, ...]:
    return (
        event.seq,
        connection.ops.adapt_datetimefield_value(event.at),
        event.verb,
        event.actor_id,
        event.actor_name,
        event.target,
        event.payload_digest,
        event.previous,
        event.hash,
        event.signature,
    )
