"""Asking the owner of a dataset for a budget. Each verb writes the row and the audit event in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import clock
from apps.datarequests import policies
from apps.datarequests.models import BudgetRequest
from apps.datarequests.texts import checked_reason
from apps.datarequests.transitions import BudgetState, settle
from apps.datasets.models import Dataset
from apps.permissions.actions import LEAST_EPSILON, MOST_EPSILON, give
from apps.permissions.models import NANO, Right
from gridclient.wire.errors import ConflictError, InvalidInputError


@transaction.atomic
def ask_for_budget(
    dataset: Dataset, *, epsilon: float, reason: str, by: User, now: datetime | None = None
) -> BudgetRequest:
    """Ask for a `release` grant with this allowance.

    Raises InvalidInputError, NotFoundError where the dataset isn't for this person, NotPermittedError for its owner,
    ConflictError where an earlier one waits.
    """
    policies.check_can_ask_for_budget(by, dataset)
    reason = checked_reason(reason)
    if not LEAST_EPSILON <= epsilon <= MOST_EPSILON:
        raise InvalidInputError(
            f"epsilon is an allowance from {LEAST_EPSILON:g} to {MOST_EPSILON:g}, for example 1.0.", field="epsilon"
        )
    # Locked, so that two calls at once cannot both be the only one.
    User.objects.select_for_update(no_key=True).get(pk=by.pk)
    if BudgetRequest.objects.filter(requester=by, dataset=dataset, state=BudgetState.SUBMITTED).exists():
        raise ConflictError(f"You have asked for a budget of {dataset.slug} already; wait for it, or withdraw it.")
    request = BudgetRequest.objects.create(
        requester=by, dataset=dataset, epsilon_nano=round(epsilon * NANO), reason=reason, created=now or clock.now()
    )
    _record(Verb.BUDGET_REQUESTED, request, by=by, epsilon=request.epsilon, reason=reason)
    return request


@transaction.atomic
def approve_budget(
    request: BudgetRequest, *, reason: str, epsilon: float | None = None, by: User, now: datetime | None = None
) -> BudgetRequest:
    """Give the grant, with the epsilon that was asked for or a smaller one. Raises as `policies` says."""
    reason, now = checked_reason(reason), now or clock.now()
    request = _locked(request.pk)
    policies.check_can_approve_budget(by, request)
    epsilon = request.epsilon if epsilon is None else epsilon
    if not LEAST_EPSILON <= epsilon <= request.epsilon:
        raise InvalidInputError(
            f"epsilon is from {LEAST_EPSILON:g} to the {request.epsilon:g} that was asked for.", field="epsilon"
        )
    request.grant = give(
        request.dataset, to=request.requester, right=Right.RELEASE, epsilon=epsilon, reason=reason, by=by, now=now
    )
    _decide(request, BudgetState.APPROVED, reason=reason, by=by, now=now)
    _record(Verb.BUDGET_APPROVED, request, by=by, epsilon=epsilon, grant=request.grant.pk, reason=reason)
    return request


@transaction.atomic
def deny_budget(request: BudgetRequest, *, reason: str, by: User, now: datetime | None = None) -> BudgetRequest:
    """Deny, with a reason that the requester reads."""
    reason = checked_reason(reason)
    request = _locked(request.pk)
    policies.check_can_decide_budget(by, request)
    _decide(request, BudgetState.DENIED, reason=reason, by=by, now=now or clock.now())
    _record(Verb.BUDGET_DENIED, request, by=by, reason=reason)
    return request


@transaction.atomic
def withdraw_budget(request: BudgetRequest, *, by: User) -> BudgetRequest:
    """Take back a request that nobody has decided on."""
    request = _locked(request.pk)
    policies.check_can_withdraw_budget(by, request)
    settle(request, BudgetState.WITHDRAWN)
    _record(Verb.BUDGET_WITHDRAWN, request, by=by)
    return request


def _decide(request: BudgetRequest, state: BudgetState, *, reason: str, by: User, now: datetime) -> None:
    settle(request, state, decided_by=by, decided_at=now, decision=reason, grant=request.grant)


def _locked(key: UUID) -> BudgetRequest:
    rows = BudgetRequest.objects.select_for_update(of=("self",), no_key=True)
    return rows.select_related("dataset", "requester").get(pk=key)


def _record(verb: Verb, request: BudgetRequest, *, by: User, **facts: Any) -> None:
    target = f"budget-request:{request.pk}"
    record(verb, by=by, target=target, dataset=str(request.dataset_id), requester=str(request.requester_id), **facts)
