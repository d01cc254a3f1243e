"""Reading the audit log: who may see it, and whether it is whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from django.db.models import QuerySet

from apps.audit import head as outside
from apps.audit.chain import DOMAIN, GENESIS, event_hash, text_digest
from apps.audit.models import AuditEvent, AuditHead
from apps.audit.verbs import Verb
from apps.core import clock, countersigned, keys


class Reader(Protocol):
    """A user, as far as this room knows one."""

    def has(self, capability: str, /) -> bool: ...


@dataclass(frozen=True)
class AuditReport:
    """What `verify` found; true when the log is whole. `first_bad` is the number of the first event that is not.

    `problem` is also there for a whole log that was once set back: that is told for ever.
    """

    ok: bool
    events: int
    first_bad: int | None
    problem: str
    verified_at: datetime

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "verified_at": self.verified_at.isoformat()}


class _Broken(Exception):
    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq = seq
        self.problem = problem


def events_visible_to(user: Reader | None) -> QuerySet[AuditEvent]:
    """All events for who may read the log, none for anybody else; newest first, texts included."""
    if user is not None and (user.has("audit.read") or user.has("everything.read")):
        return AuditEvent.objects.select_related("text")
    return AuditEvent.objects.none()


def head_problem() -> str:
    """Why the log does not contain the head that is kept outside the database; "" when it does. Costs two queries.

    Enough to see a database that was set back; whether all events are whole is for `verify`.
    """
    # In this order: the log may grow meanwhile, the outside head not beyond it.
    kept, last = outside.read(), AuditHead.objects.first()
    if kept is None:
        # A log that was locked before anything was written to it has a row, and no event to lose.
        written = last is not None and last.seq > 0
        return "the head kept outside the database (audit.head in the keys folder) is missing" if written else ""
    if last is None or last.seq < kept.seq:
        named = countersigned.source(countersigned.AUDIT, kept)
        return f"it ends at event {last.seq if last else 0}, but {named} names event {kept.seq}"
    if not contains(kept):
        return f"event {kept.seq} is not the one that {countersigned.source(countersigned.AUDIT, kept)} names"
    return ""


def contains(head: outside.Head) -> bool:
    """Whether the log has this event."""
    return AuditEvent.objects.filter(seq=head.seq, hash=head.hash).exists()


_COLUMNS = (
    "seq", "at", "verb", "actor_id", "actor_name", "target", "payload_digest", "previous", "hash", "signature",
    "text__salt", "text__body",
)  # fmt: skip


def verify(now: datetime | None = None, *, outside_head: bool = True) -> AuditReport:
    """Recompute the whole log: hashes, signatures, texts that are still there, both heads.

    `outside_head=False` leaves the head outside the database out of account: is the log whole by itself?
    Streams: memory does not grow with the log, nothing is locked, and events may be added meanwhile.
    """
    count = 0
    try:
        for count in _verified_events(outside_head):  # noqa: B007  (the last number is the count)
            pass
    except _Broken as broken:
        return AuditReport(False, max(broken.seq - 1, 0), broken.seq, broken.problem, now or clock.now())
    told = " ".join(set_back_words(event) for event in set_backs())
    return AuditReport(True, count, None, told, now or clock.now())


def set_backs() -> QuerySet[AuditEvent]:
    """The events that say that the log was set back to an older copy, and accepted; oldest first."""
    return AuditEvent.objects.filter(verb=Verb.AUDIT_SET_BACK).order_by("seq")


def set_back_words(event: AuditEvent) -> str:
    """What one of them says. From its target, which is never erased."""
    lost = event.target.partition(":")[2].partition(":")[0]
    return (
        f"At event {event.seq} ({event.at:%Y-%m-%d %H:%M} UTC) an operator accepted a log that had been set back: "
        f"events of the log as it was, which had at least {lost}, are lost."
    )


def _verified_events(outside_head: bool) -> Any:
    """Yield the number of each event that is good; raise `_Broken` at the first thing that is not."""
    # In this order: each lies on the chain of what is read after it, however many events are added meanwhile.
    kept, before, public = outside.read(), AuditHead.objects.first(), keys.public_key()
    marks: dict[int, list[tuple[str, str]]] = {}
    if kept is not None and outside_head:
        marks.setdefault(kept.seq, []).append((kept.hash, countersigned.source(countersigned.AUDIT, kept)))
    if before is not None:
        marks.setdefault(before.seq, []).append((before.hash, "the head row"))
    seq, previous = 0, GENESIS
    rows = AuditEvent.objects.order_by("seq").values_list(*_COLUMNS)
    for (
        found,
        at,
        verb,
        actor_id,
        actor_name,
        target,
        digest,
        claimed_previous,
        claimed,
        signature,
        salt,
        body,
    ) in rows.iterator(chunk_size=1000):
        seq += 1
        if found != seq:
            raise _Broken(seq, f"event {seq} is missing")
        if claimed_previous != previous:
            raise _Broken(seq, f"event {seq} does not follow event {seq - 1}")
        if event_hash(seq, at, verb, actor_id, actor_name, target, digest, previous) != claimed:
            raise _Broken(seq, f"event {seq} was changed: its hash does not fit")
        if not keys.verify(public, DOMAIN, claimed.encode(), signature):
            raise _Broken(seq, f"event {seq} is not signed by this deployment's key")
        if body is not None and not _fits(salt, body, digest):
            raise _Broken(seq, f"the text of event {seq} was changed")
        for expected, what in marks.pop(seq, ()):
            if expected != claimed:
                raise _Broken(seq, f"event {seq} is not the one that {what} names")
        previous = claimed
        yield seq
    _check_end(seq, previous, kept is not None or not outside_head, before, marks)


def _fits(salt: str, body: str, digest: str) -> bool:
    try:
        return text_digest(salt, body) == digest
    except ValueError:
        return False


def _check_end(
    seq: int, last: str, kept: bool, before: AuditHead | None, marks: dict[int, list[tuple[str, str]]]
) -> None:
    marks.pop(0, None)  # a head before the first event
    if marks:
        further = min(marks)
        raise _Broken(seq + 1, f"the log ends at event {seq}, but {marks[further][0][1]} names event {further}")
    if not seq:
        return
    if not kept:
        raise _Broken(seq, "the head kept outside the database (audit.head in the keys folder) is missing")
    after = AuditHead.objects.first()
    if before is None or after is None:
        raise _Broken(seq, "the head row is missing")
    if after.seq < seq or (after.seq == seq and after.hash != last):
        raise _Broken(after.seq + 1, f"the log goes on after event {after.seq}, which the head row names as the last")
