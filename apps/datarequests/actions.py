"""The verbs of the queue. Each checks, writes the row and the audit event in one transaction."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.core import clock
from apps.core.wake import wake
from apps.datarequests import policies
from apps.datarequests.files import CONSTANTS, place, remove_constants
from apps.datarequests.models import MAX_FAILURES, DataRequest, RequestInput
from apps.datarequests.texts import checked_reason
from apps.datarequests.transitions import State, move
from apps.datasets.models import Dataset
from apps.permissions.actions import give_once
from apps.permissions.policies import check_can_compute
from apps.permissions.queries import datasets_visible_to
from gridclient.wire.errors import InvalidInputError, LimitExceededError, NotFoundError
from gridclient.wire.messages import TensorHeader

MAX_OPEN = 100
"""Most requests of one person that wait for a decision."""
MAX_CONSTANTS = 64 * 2**20
"""Most bytes of one request's constants, as a file: names and shapes of a million small ones weigh more than they."""


class Input(Protocol):
    """A data version that a program reads, as the label reader names it."""

    @property
    def dataset(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def columns(self) -> list[str] | None: ...


@transaction.atomic
def submit(
    *,
    requester: User,
    reason: str,
    program: bytes,
    words: str,
    program_hash: str,
    inputs: Iterable[Input],
    kind: str,
    dtype: str,
    shape: list[int],
    label: str,
    module: str = "",
    names: Sequence[str] = (),
    constants_file: Path | None,
    by: User,
    now: datetime | None = None,
) -> DataRequest:
    """Put a program into the queue. `constants_file` (safetensors, or None) is moved into the request's folder.

    Raises InvalidInputError, NotFoundError, NotPermittedError, LimitExceededError (too many that are undecided, or
    too many bytes).
    """
    now = now or clock.now()
    reason = checked_reason(reason)
    found = _inputs(requester, inputs)
    # Locked, so that two submissions at once cannot both be the hundredth.
    User.objects.select_for_update(no_key=True).get(pk=requester.pk)
    if DataRequest.objects.filter(requester=requester, state=State.SUBMITTED).count() >= MAX_OPEN:
        raise LimitExceededError(
            f"You have {MAX_OPEN} requests that nobody has decided on yet; withdraw one first.", limit=MAX_OPEN
        )
    held_bytes = len(program) + _nbytes(constants_file)
    _check_share(requester, held_bytes)
    request = DataRequest.objects.create(
        requester=requester,
        reason=reason,
        program_hash=program_hash,
        program=program,
        held_bytes=held_bytes,
        words=words,
        kind=kind,
        dtype=dtype,
        shape=shape,
        label=label,
        module=module,
        names=list(names),
        created=now,
        updated=now,
    )
    for (dataset, version), columns in found.items():
        RequestInput.objects.create(request=request, dataset=dataset, version=version, columns=columns)
    record(Verb.REQUEST_SUBMITTED, by=by, target=_target(request), **_facts(request), reason=reason)
    if constants_file is not None:
        try:
            place(constants_file, request.folder / CONSTANTS)
        except BaseException:
            shutil.rmtree(request.folder, ignore_errors=True)
            raise
    return request


@transaction.atomic
def approve(
    request: DataRequest, *, reason: str, by: User, seen: datetime | None = None, now: datetime | None = None
) -> DataRequest:
    """Approve: a one-time grant for this program and these versions, and the runner is woken. Returns at once."""
    now = now or clock.now()
    reason = checked_reason(reason)
    request = _locked(request.pk)
    policies.check_can_approve(by, request, seen=seen)
    give_once(
        datasets=[entry.dataset for entry in request.inputs.select_related("dataset")],
        user=request.requester,
        program_hash=request.program_hash,
        request_id=request.pk,
        by=by,
    )
    move(request, State.APPROVED, now=now, decided_by=by, decided_at=now, decision_reason=reason)
    record(Verb.REQUEST_APPROVED, by=by, target=_target(request), **_facts(request), reason=reason)
    wake("requests")
    return request


@transaction.atomic
def deny(
    request: DataRequest, *, reason: str, by: User, seen: datetime | None = None, now: datetime | None = None
) -> DataRequest:
    """Deny, with a reason that the requester reads."""
    now = now or clock.now()
    reason = checked_reason(reason)
    request = _locked(request.pk)
    policies.check_can_decide(by, request, seen=seen)
    move(request, State.DENIED, now=now, decided_by=by, decided_at=now, decision_reason=reason)
    _let_go(request)
    record(Verb.REQUEST_DENIED, by=by, target=_target(request), program=request.program_hash, reason=reason)
    return request


@transaction.atomic
def withdraw(request: DataRequest, *, by: User, now: datetime | None = None) -> DataRequest:
    """Take back a request that nobody has decided on."""
    request = _locked(request.pk)
    policies.check_can_withdraw(by, request)
    move(request, State.WITHDRAWN, now=now or clock.now())
    _let_go(request)
    record(Verb.REQUEST_WITHDRAWN, by=by, target=_target(request), program=request.program_hash)
    return request


@transaction.atomic
def store_answer(
    request: DataRequest, *, header: TensorHeader, kind: str, path: Path, now: datetime | None = None
) -> bool:
    """Keep the answer in file `path` (it is moved). False when one is kept already: the first stays for ever."""
    request = _locked(request.pk)
    if request.state != State.APPROVED or request.answered_at is not None:
        return False
    # The file is there before the row says so; a crash in between leaves an unanswered request that runs again.
    place(path, request.answer_file)
    request.answered_at = now or clock.now()
    request.answer_kind = kind
    request.answer_header = {"dtype": header.dtype, "shape": list(header.shape), "nbytes": header.nbytes}
    request.failure = ""
    request.save(update_fields=["answered_at", "answer_kind", "answer_header", "failure"])
    _let_go(request)
    record(
        Verb.REQUEST_ANSWERED,
        by=None,
        target=_target(request),
        program=request.program_hash,
        kind=kind,
        **request.answer_header,
    )
    return True


@transaction.atomic
def mark_failed(request: DataRequest, text: str) -> None:
    """Note that the approved program did not run to its end. `text` is a fixed one: it says nothing of values."""
    request = _locked(request.pk)
    if request.answered_at is None:
        request.failure = text
        request.failures += 1
        request.save(update_fields=["failure", "failures"])
        if request.failures >= MAX_FAILURES:
            _let_go(request)


@transaction.atomic
def delivered(request: DataRequest, *, to: User, now: datetime | None = None) -> AuditEvent:
    """Record that the stored answer goes to its requester: every time, though the state changes only once."""
    now = now or clock.now()
    request = _locked(request.pk)
    policies.check_can_fetch(to, request)
    if request.state == State.APPROVED:
        move(request, State.DELIVERED, now=now, delivered_at=now)
    return record(Verb.REQUEST_DELIVERED, by=to, target=_target(request), **_facts(request))


def _inputs(user: User, inputs: Iterable[Input]) -> dict[tuple[Dataset, int], list[str] | None]:
    """The private data that a program reads, each version once. The requester must be able to compute on all of it."""
    found: dict[tuple[Dataset, int], list[str] | None] = {}
    for entry in inputs:
        dataset = datasets_visible_to(user).filter(pk=UUID(entry.dataset)).first()
        if dataset is None or not dataset.versions.filter(number=entry.version).exists():
            raise NotFoundError("There is no such dataset or version.")
        check_can_compute(user, dataset)
        key = (dataset, entry.version)
        both = found.get(key, [])
        found[key] = None if both is None or entry.columns is None else sorted({*both, *entry.columns})
    if not found:
        raise InvalidInputError("This value depends on no private data: take it with .get().")
    return found


def _nbytes(constants_file: Path | None) -> int:
    """Size of the constants. Raises LimitExceededError."""
    nbytes = constants_file.stat().st_size if constants_file is not None and constants_file.exists() else 0
    if nbytes > MAX_CONSTANTS:
        raise LimitExceededError(
            f"The constants of this program take {nbytes} bytes; a request takes at most {MAX_CONSTANTS}.",
            limit=MAX_CONSTANTS,
        )
    return nbytes


def _check_share(requester: User, more: int) -> None:
    """Raise LimitExceededError where the requester's open requests would hold too many bytes. The user is locked."""
    held = DataRequest.objects.filter(requester=requester).aggregate(total=Sum("held_bytes"))["total"] or 0
    limit = settings.GRID_MAX_REQUEST_BYTES
    if held + more > limit:
        raise LimitExceededError(
            f"Your open requests hold {held} bytes of programs and constants, and this one {more} more; together they"
            f" may hold {limit}. Wait for a decision, or withdraw one.",
            limit=limit,
        )


def _let_go(request: DataRequest) -> None:
    """This request will not run again: its program goes, and its constants once that is committed.

    Hash, words and the stored answer stay.
    """
    request.program = b""
    request.held_bytes = 0
    request.save(update_fields=["program", "held_bytes"])
    folder = request.folder
    transaction.on_commit(lambda: remove_constants(folder))


def _locked(key: UUID) -> DataRequest:
    return DataRequest.objects.select_for_update(no_key=True).get(pk=key)


def _target(request: DataRequest) -> str:
    return f"request:{request.pk}"


def _facts(request: DataRequest) -> dict[str, Any]:
    """What the audit log says about a request wherever it is submitted, approved or delivered."""
    inputs: Sequence[RequestInput] = list(request.inputs.all())
    return {
        "requester": str(request.requester_id),
        "program": request.program_hash,
        "inputs": [[str(entry.dataset_id), entry.version, entry.columns] for entry in inputs],
        "kind": request.kind,
        "dtype": request.dtype,
        "shape": request.shape,
        "label": request.label,
    }
