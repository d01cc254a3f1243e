"""Requests as far as a person may see them, the stored answers, and what still has to run. Oldest first."""

from __future__ import annotations

from collections.abc import Iterable, Set
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import User
from apps.compute.release import Answered
from apps.datarequests.models import MAX_FAILURES, BudgetRequest, DataRequest, RequestInput
from apps.datarequests.transitions import BudgetState, State
from apps.permissions.queries import datasets_visible_to
from gridclient.wire.errors import InternalError
from gridclient.wire.messages import INLINE_LIMIT, TensorHeader

HIDDEN = "This program also reads a dataset that is not for you; a reviewer decides on it."


def requests_visible_to(user: User) -> QuerySet[DataRequest]:
    """Mine and those on datasets that I own; all of them for reviewers and for who may see everything."""
    found = DataRequest.objects.select_related("requester", "decided_by").prefetch_related("inputs__dataset")
    # Megabytes that only the runner reads.
    found = found.defer("program")
    if user.has("requests.review") or user.has("everything.read"):
        return found
    on_mine = RequestInput.objects.filter(request=OuterRef("pk"), dataset__ownership__owner=user)
    return found.filter(Q(requester=user) | Exists(on_mine))


def requests_i_may_decide(user: User) -> QuerySet[DataRequest]:
    """The undecided ones that `policies.check_can_decide` would let this user decide."""
    found = requests_visible_to(user).filter(state=State.SUBMITTED).exclude(requester=user)
    if user.has("requests.review"):
        return found
    inputs = RequestInput.objects.filter(request=OuterRef("pk"))
    owned = inputs.filter(dataset__ownership__owner=user)
    foreign = inputs.exclude(dataset__ownership__owner=user)
    return found.filter(Exists(owned), ~Exists(foreign))


def budget_requests_visible_to(user: User) -> QuerySet[BudgetRequest]:
    """Mine and those on datasets that I own; all of them for who may see everything."""
    found = BudgetRequest.objects.select_related("requester", "decided_by", "dataset", "grant")
    if user.has("everything.read"):
        return found
    return found.filter(Q(requester=user) | Q(dataset__ownership__owner=user))


def budget_requests_i_may_decide(user: User) -> QuerySet[BudgetRequest]:
    """The undecided ones on datasets that I own."""
    found = budget_requests_visible_to(user).filter(state=BudgetState.SUBMITTED, dataset__ownership__owner=user)
    return found.exclude(requester=user)


def unanswered(*, again: bool = False) -> QuerySet[DataRequest]:
    """Approved and without an answer. Those that failed before are among them only for another start (`again`)."""
    most = MAX_FAILURES if again else 1
    return DataRequest.objects.filter(state=State.APPROVED, answered_at=None, failures__lt=most)


def answer_of(request: DataRequest) -> Answered:
    """The stored answer: inline when small, else its file. The caller has asked `check_can_fetch`."""
    if request.answer_header is None:
        raise InternalError("This request has no answer.")
    header = TensorHeader(**request.answer_header)
    if header.nbytes <= INLINE_LIMIT:
        return Answered(request.answer_kind, header, request.answer_file.read_bytes(), None)
    return Answered(request.answer_kind, header, None, request.answer_file)


def visible_inputs(user: User, requests: Iterable[DataRequest]) -> set[UUID]:
    """Ids of the input datasets that `user` may know of: those of others may be in a program beside one's own."""
    requests = list(requests)
    named = {entry.dataset_id for row in requests for entry in row.inputs.all()}
    if user.has("requests.review") or user.has("everything.read"):
        return named
    mine = {entry.dataset_id for row in requests if row.requester_id == user.pk for entry in row.inputs.all()}
    return mine | set(datasets_visible_to(user).filter(pk__in=named - mine).values_list("pk", flat=True))


def words_for(request: DataRequest, visible: Set[UUID]) -> str:
    """The program in words, or a fixed text for a reader who may not know of all the datasets in it."""
    if all(entry.dataset_id in visible for entry in request.inputs.all()):
        return request.words
    return HIDDEN
