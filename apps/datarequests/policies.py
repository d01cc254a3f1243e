"""Who may ask for a budget, decide on a request, withdraw it, fetch its answer; and whether that may happen now."""

from __future__ import annotations

from datetime import datetime

from apps.accounts.models import User
from apps.datarequests.models import BudgetRequest, DataRequest
from apps.datarequests.transitions import BudgetState, State, check_can_move
from apps.datasets.models import Dataset
from apps.permissions.models import Ownership, Right
from apps.permissions.policies import check_can_grant, owns, rights_on
from gridclient.wire.errors import (
    ConflictError,
    GridError,
    InternalError,
    NotFoundError,
    NotPermittedError,
    RequestDeniedError,
    RequestPendingError,
)


def check_can_decide(user: User, request: DataRequest, *, seen: datetime | None = None) -> None:
    """Raise unless `user` may approve or deny now.

    The owner of every dataset in it may, and whoever may review; never the requester. `seen` is the `updated` stamp
    of what the person looked at. Raises NotPermittedError, or ConflictError for a request that changed since.
    """
    if request.requester_id == user.pk:
        raise NotPermittedError("Nobody decides on a request of their own; someone else must.")
    if not user.has("requests.review") and not _owns_all(user, request):
        raise NotPermittedError("The owner of every dataset in a request decides on it, or a reviewer.")
    check_can_move(request, State.APPROVED)
    if seen is not None and seen != request.updated:
        raise ConflictError("This request changed after you looked at it. Look at it again.", state=request.state)


def check_can_approve(user: User, request: DataRequest, *, seen: datetime | None = None) -> None:
    """Raise unless `user` may decide, and the account that would receive the answer is still in use."""
    check_can_decide(user, request, seen=seen)
    if not request.requester.is_active:
        raise ConflictError("The requester's account is no longer active; this request can only be denied.")


def can_decide(user: User, request: DataRequest) -> bool:
    """Whether `check_can_decide` would pass."""
    try:
        check_can_decide(user, request)
    except GridError:
        return False
    return True


def can_approve(user: User, request: DataRequest) -> bool:
    """Whether `check_can_approve` would pass."""
    try:
        check_can_approve(user, request)
    except GridError:
        return False
    return True


def check_can_withdraw(user: User, request: DataRequest) -> None:
    """Raise NotPermittedError for anyone but the requester, ConflictError when it was decided already."""
    if request.requester_id != user.pk:
        raise NotPermittedError("Only the person who made a request can withdraw it.")
    check_can_move(request, State.WITHDRAWN)


def check_can_fetch(user: User, request: DataRequest) -> None:
    """Raise unless the stored answer may go to `user`: it is the requester's alone."""
    if request.requester_id != user.pk:
        raise NotPermittedError("The answer of a request goes to the person who made it, and to nobody else.")
    match State(request.state):
        case State.SUBMITTED:
            raise RequestPendingError("Nobody has decided on this request yet. Ask again later.", state=request.state)
        case State.DENIED:
            reason = request.decision_reason
            raise RequestDeniedError(f"This request was denied: {reason}", reason=reason)
        case State.WITHDRAWN:
            raise ConflictError("You have withdrawn this request; submit it again to ask anew.", state=request.state)
    if request.answered_at is None and request.failure:
        raise InternalError(request.failure)
    if request.answered_at is None:
        raise RequestPendingError("This request is approved; its answer is being computed.", state=request.state)


def check_can_ask_for_budget(user: User, dataset: Dataset) -> None:
    """Raise NotFoundError where the dataset doesn't exist for this person, NotPermittedError for its owner."""
    if Right.DISCOVER not in rights_on(user, dataset):
        raise NotFoundError("There is no such dataset.")
    if owns(user, dataset):
        raise NotPermittedError("You own this dataset: as its owner you ask it without a grant, and nobody decides.")


def check_can_decide_budget(user: User, request: BudgetRequest) -> None:
    """Raise for anyone but the dataset's owner, and for who asked; ConflictError for what is settled."""
    if request.requester_id == user.pk:
        raise NotPermittedError("Nobody decides on a request of their own; someone else must.")
    check_can_grant(user, request.dataset)
    _check_open(request)


def check_can_approve_budget(user: User, request: BudgetRequest) -> None:
    """Raise unless `user` may decide, and the account that would have the budget is still in use."""
    check_can_decide_budget(user, request)
    if not request.requester.is_active:
        raise ConflictError("The requester's account is no longer active; this request can only be denied.")


def check_can_withdraw_budget(user: User, request: BudgetRequest) -> None:
    """Raise NotPermittedError for anyone but the requester, ConflictError for what is settled."""
    if request.requester_id != user.pk:
        raise NotPermittedError("Only the person who made a request can withdraw it.")
    _check_open(request)


def _check_open(request: BudgetRequest) -> None:
    if request.state != BudgetState.SUBMITTED:
        raise ConflictError(f"This request is {request.state}, and stays so. Look at it again.", state=request.state)


def _owns_all(user: User, request: DataRequest) -> bool:
    datasets = set(request.inputs.values_list("dataset_id", flat=True))
    owned = set(Ownership.objects.filter(owner=user, dataset__in=datasets).values_list("dataset_id", flat=True))
    return bool(datasets) and datasets == owned
