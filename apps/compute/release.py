"""The only door: every value that leaves this node leaves through here, with an audit event in the same transaction.

    pointer    a value that someone asked for by `.get()`
    private    one with noise, by `.get(epsilon=...)`: charged first, then drawn once
    approved   the answer of an approved request, on its way into the store
    stored     an answer from the store, delivered as often as asked

Each returns a `Released`, which nothing else can make and without which the wire sends no value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import QuerySet

from apps.accounts.models import User
from apps.accounts.queries import user_of_live_token
from apps.audit.actions import lock_log, record
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.budgets.states import State as Stage
from apps.compute import disclosures, drawing, spending
from apps.compute.disclosures import Earlier, Examination
from apps.compute.messages import Closed as Told
from apps.compute.messages import Draw, Evaluate, Proposal, State, Value, Weighed
from apps.compute.models import StoredAnswer
from apps.compute.spending import Wanted
from apps.compute.workers import Worker
from apps.core import metrics
from apps.core.canonical import digest
from apps.core.clock import now
from apps.core.database import in_database
from apps.core.prepared import Prepared, insert_if_new
from apps.permissions.policies import Ask, Closed, Decision, decide
from apps.permissions.policies import Input as AskInput
from gridclient.program.graph import Ref
from gridclient.wire.errors import (
    AuthenticationError,
    ConflictError,
    GetNotPermittedError,
    InternalError,
    InvalidInputError,
)
from gridclient.wire.messages import INLINE_LIMIT, TensorHeader

_KEY = object()
MOST_KNOWN = 100_000
MOST_TRIES = 50
"""How often an exact aggregate is examined anew because another answer was released meanwhile."""
_known: set[str] = set()
"""Questions whose answer is kept for certain. Of another one it is not known: it is computed, and kept if it is new."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, on which token: both are looked at again whenever something is used, stored or released.

    `scopes`: what the token may be used for; None: all.
    """

    user: UUID
    token: int
    expires: datetime
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it was computed: inline bytes, or a file."""

    kind: str
    header: TensorHeader
    data: bytes | None
    path: Path | None


class Released:
    """A value that may be sent. Made in this module only."""

    __slots__ = ("answer", "receipt", "route")

    def __init__(self, answer: Answered, route: str, *, key: object, receipt: dict[str, Any] | None = None) -> None:
        if key is not _KEY:
            raise InternalError("A value can only be released by apps.compute.release.")
        self.answer = answer
        self.receipt = receipt
        self.route = route
        metrics.released(route).inc()


async def pointer(worker: Worker, value: Ref | State, proposal: Proposal, *, caller: Caller, path: Path) -> Released:
    """Release the value behind a pointer, or a module's state, to the caller, or raise GetNotPermittedError.

    A public value (computed only from the caller's inputs, constants and earlier answers) needs no permission and
    leaves no audit row. For all others: decide and record in one transaction, then compute, then hand over.
    """
    came_along = None
    if proposal.value is not None:
        header = TensorHeader(proposal.dtype, list(proposal.shape), len(proposal.value))
        came_along = Answered(proposal.kind, header, proposal.value, None)
    if proposal.label == "public":
        return Released(came_along or await _evaluate(worker, value, proposal, path), "public", key=_KEY)
    # An exact aggregate is computed and examined before it is decided about, so that the decision, its record and the
    # kept answer are one commit. Nothing leaves when the decision is no, and the caller may compute it anyway.
    for _ in range(MOST_TRIES):
        ready = found = None
        known = await _unknown(caller, proposal)
        if known is not None:
            ready = came_along or await _evaluate(worker, value, proposal, path)
            found = await _examined(worker, proposal, known, path)
        try:
            route, answer = await in_database(_permit, caller, proposal, ready, path, found)
            break
        except _Overtaken:
            _known.discard(_question(proposal))
    else:
        raise ConflictError("Other answers about these people left meanwhile, again and again: ask once more.")
    if route == "aggregate":
        # Only now: what a transaction that failed has not kept must be computed again.
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known.add(_question(proposal))
    return Released(answer or ready or await _evaluate(worker, value, proposal, path), route, key=_KEY)


async def private(
    worker: Worker, value: Ref, weighed: Weighed, wanted: Wanted, *, caller: Caller, key: str, path: Path
) -> Released:
    """Release a private answer: charged and audited first, drawn once, kept, then handed over as often as asked.

    Under the same `key` it is the same answer, charged once. It leaves at a time that follows from public metadata. A
    worker that fails or overruns looks like any outage, and what was charged stays charged.
    """
    begun = asyncio.get_running_loop().time()
    sealed = path.with_name(f"{path.name}-sealed")
    bill = await drawing.paid(
        worker, value, weighed, wanted, token=caller.token, key=key or uuid4().hex, path=sealed, begun=begun
    )
    if bill.release.state == Stage.CHARGED:
        question = Draw(0, value, bill.unit, weighed.clips, str(path), bill.receipt["epsilon"], bill.record)
        try:
            await drawing.draw(worker, question, bill.release)
        finally:
            await drawing.not_before(begun, spending.expected(weighed, bill.people))
    kept = await drawing.taken(bill.release)
    answer = await in_database(_inline_or_file, bytes(kept.data or b""), kept.dtype, kept.shape or [], path)
    return Released(answer, "release", key=_KEY, receipt=bill.receipt)


async def approved(worker: Worker, value: Ref | State, proposal: Proposal, *, user: User, path: Path) -> Answered:
    """Compute what an owner approved. The one-time grant is checked again, for this program and no other."""
    await in_database(_check_approval, user, proposal)
    behind = disclosures.behind(proposal)
    known = await in_database(lambda: [disclosures.earlier(closed) for closed in behind])
    found = [
        await disclosures.examined(worker, proposal.ask, *each, path.with_name(f"{path.name}-crowds-{number}"))
        for number, each in enumerate(zip(behind, known, strict=True))
    ]
    answer = await _evaluate(worker, value, proposal, path)
    crowds = await asyncio.to_thread(disclosures.keep, found)
    await in_database(_disclose_approved, user, proposal, crowds)
    return answer


async def stored(load: Callable[[], tuple[Answered, AuditEvent]]) -> Released:
    """Release an answer from the store. `load` runs in a transaction and hands over the audit event of the delivery."""

    def load_and_record() -> Answered:
        with transaction.atomic():
            answer, event = load()
            if event.verb != Verb.REQUEST_DELIVERED:
                raise InternalError("A delivery without its audit event was stopped.")
            return answer

    return Released(await in_database(load_and_record), "approved", key=_KEY)


def _ask(proposal: Proposal) -> Ask:
    closed = proposal.closed
    return Ask(
        label=proposal.label,
        inputs=[AskInput(i.dataset, i.version, i.columns) for i in proposal.inputs],
        closed=None if closed is None else _closed(closed),
        program_hash=proposal.program_hash,
        trained=proposal.trained,
        untrained=proposal.untrained,
    )


def _closed(told: Told) -> Closed:
    return Closed(told.kind, told.dataset, told.version, list(told.columns), list(told.others), told.by)


class _Overtaken(Exception):
    """Another answer was released since this one was examined, or it was not examined at all."""


async def _unknown(caller: Caller, proposal: Proposal) -> Earlier | None:
    """What an exact aggregate must be compared with first; None where it needn't be, or isn't one."""
    if proposal.closed is None or _question(proposal) in _known:
        return None
    return await in_database(_to_examine, caller, proposal, proposal.closed)


def _to_examine(caller: Caller, proposal: Proposal, closed: Told) -> Earlier | None:
    """Raises GetNotPermittedError where no check could change that."""
    decision = decide(user_of_live_token(caller.token), _ask(proposal), checked=True, now=now())
    if decision.route != "aggregate" or any(row.crowds for row in _kept(_question(proposal))):
        return None
    return disclosures.earlier(closed)


async def _examined(worker: Worker, proposal: Proposal, known: Earlier, path: Path) -> Examination:
    if proposal.closed is None:
        raise InternalError("Only an answer of the closed set is examined.")
    file = path.with_name(f"{path.name}-crowds")
    found = await disclosures.examined(worker, proposal.ask, proposal.closed, known, file)
    if not found.failed:
        await asyncio.to_thread(disclosures.keep, [found])
    return found


def _permit(
    caller: Caller, proposal: Proposal, ready: Answered | None, path: Path, found: Examination | None = None
) -> tuple[str, Answered | None]:
    """Decide and record; by which route it leaves, and the kept answer where it is an aggregate.

    A refusal by a check is recorded too, for the owner; the caller is told no more than without it.
    """
    with transaction.atomic():
        lock_log()  # whoever took a right away, and was told so, may rely on it
        user = user_of_live_token(caller.token)
        if found is not None and disclosures.newest(found.closed) != found.last:
            raise _Overtaken
        try:
            decision = decide(user, _ask(proposal), checked=found is None or not found.failed, now=now())
        except GetNotPermittedError as error:
            if found is None or not found.failed:
                raise
            refusal = error
            record(Verb.AGGREGATE_WITHHELD, by=user, target=_target(proposal), checks=found.failed)
        else:
            return _released(user, decision, proposal, ready, path, found)
    raise refusal


def _released(
    user: User, decision: Decision, proposal: Proposal, ready: Answered | None, path: Path, found: Examination | None
) -> tuple[str, Answered | None]:
    record(
        Verb.VALUE_RELEASED,
        by=user,
        target=_target(proposal),
        route=decision.route,
        grant=str(decision.grant.pk) if decision.grant else None,
        program=proposal.program_hash,
        label=proposal.label,
        kind=proposal.kind,
        dtype=proposal.dtype,
        shape=list(proposal.shape),
    )
    if decision.route != "aggregate":
        if decision.grant is not None:  # what an owner does with their own data is disclosed to nobody
            disclosures.disclose(proposal, decision.route, {}, by=user)
        return decision.route, None
    answer = ready if ready is not None and found is not None and _keep(proposal, ready, found) else None
    kept = None if answer is not None else next(iter(_kept(_question(proposal))), None)
    crowds = found.crowds if found is not None else kept.crowds if kept is not None else ""
    if not crowds:
        raise _Overtaken
    _disclose_aggregate(user, proposal, crowds)
    if answer is None and kept is not None:
        return decision.route, _answered(kept, path)
    return decision.route, answer


def _disclose_aggregate(user: User, proposal: Proposal, crowds: str) -> None:
    closed = proposal.closed
    if closed is None:
        raise InternalError("Only an answer of the closed set is an exact aggregate.")
    question = disclosures.in_words(closed)
    disclosures.disclose(proposal, "aggregate", {(closed.dataset, closed.version): crowds}, by=user, question=question)


@transaction.atomic
def _disclose_approved(user: User, proposal: Proposal, crowds: Mapping[tuple[str, int], str]) -> None:
    lock_log()  # the numbers of disclosures grow in the order of their commits
    disclosures.disclose(proposal, "approved", crowds, by=user)


def _target(proposal: Proposal) -> str:
    return " ".join(f"dataset:{i.dataset}@{i.version}" for i in proposal.inputs)


@Prepared
def _kept(key: str) -> QuerySet[StoredAnswer]:
    return StoredAnswer.objects.filter(key=key).order_by()


def _question(proposal: Proposal) -> str:
    """What the stored answer is kept under: the question and the data version, not the way it was programmed."""
    closed = proposal.closed
    if closed is None:
        raise InternalError("Only an answer of the closed set is kept.")
    named: list[Any] = [
        closed.kind,
        closed.dataset,
        closed.version,
        list(closed.columns),
        *([list(closed.others), closed.by] if closed.others or closed.by else []),
        proposal.dtype,
        list(proposal.shape),
    ]
    return digest(named)


def _keep(proposal: Proposal, answer: Answered, found: Examination) -> bool:
    """Store the first answer. False where one was there: a second one, computed at the same time, is dropped."""
    closed = proposal.closed
    if closed is None:
        raise InternalError("Only an answer of the closed set is kept.")
    row = StoredAnswer(
        key=_question(proposal),
        dataset_id=UUID(closed.dataset),
        version=closed.version,
        question=disclosures.in_words(closed)[:400],
        dtype=answer.header.dtype,
        shape=list(answer.header.shape),
        data=answer.data if answer.path is None else answer.path.read_bytes(),
        crowds=found.crowds,
    )
    if insert_if_new(row):
        return True
    StoredAnswer.objects.filter(key=row.key, crowds="").update(crowds=found.crowds)
    return False


def _answered(row: StoredAnswer, path: Path) -> Answered:
    """A kept answer; what is too long for a batch, as the file `path`."""
    return _inline_or_file(bytes(row.data), row.dtype, row.shape, path)


def _inline_or_file(data: bytes, dtype: str, shape: list[int], path: Path) -> Answered:
    header = TensorHeader(dtype, shape, len(data))
    if len(data) <= INLINE_LIMIT:
        return Answered("tensor", header, data, None)
    path.write_bytes(data)
    return Answered("tensor", header, None, path)


def _check_approval(user: User, proposal: Proposal) -> None:
    if not user.is_active:
        raise AuthenticationError("The requester's account is no longer active.")
    decide(user, _ask(proposal), now=now())


async def _evaluate(worker: Worker, value: Ref | State, proposal: Proposal, path: Path) -> Answered:
    reply = await worker.ask(Evaluate(proposal.ask, value, str(path)))
    if not isinstance(reply, Value):
        raise InvalidInputError("This value cannot be computed.")
    return Answered(reply.kind, reply.header, reply.data, None if reply.data is not None else path)
