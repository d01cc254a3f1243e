"""The states of a request: one table of transitions, one writer of `state`, one picture for the docs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models

from gridclient.wire.errors import ConflictError

if TYPE_CHECKING:
    from apps.datarequests.models import BudgetRequest, DataRequest


class State(models.TextChoices):
    SUBMITTED = "submitted", "waiting for a decision"
    APPROVED = "approved", "approved"
    DENIED = "denied", "denied"
    WITHDRAWN = "withdrawn", "withdrawn by the requester"
    DELIVERED = "delivered", "approved and delivered"


NEXT: dict[State, frozenset[State]] = {
    State.SUBMITTED: frozenset({State.APPROVED, State.DENIED, State.WITHDRAWN}),
    State.APPROVED: frozenset({State.DELIVERED}),
    State.DENIED: frozenset(),
    State.WITHDRAWN: frozenset(),
    State.DELIVERED: frozenset(),
}
"""What may follow each state. A state that nothing follows is final."""

BY = {
    State.APPROVED: "an owner or reviewer approves",
    State.DENIED: "an owner or reviewer denies",
    State.WITHDRAWN: "the requester withdraws",
    State.DELIVERED: "the requester receives the stored answer",
}
"""Whose act leads into each state, for the picture."""


class BudgetState(models.TextChoices):
    """Of a request for a budget: whatever follows the first is final."""

    SUBMITTED = "submitted", "waiting for a decision"
    APPROVED = "approved", "approved"
    DENIED = "denied", "denied"
    WITHDRAWN = "withdrawn", "withdrawn by the requester"


def check_can_move(request: DataRequest, state: State) -> None:
    """Raise ConflictError, with the present state in `details`, unless `state` may follow."""
    if state not in NEXT[State(request.state)]:
        raise ConflictError(
            f"This request is {request.state}; it cannot become {state} any more. Look at it again.",
            state=request.state,
        )


def move(request: DataRequest, state: State, *, now: datetime, **fields: Any) -> None:
    """Write `state` together with the fields that belong to it. The row is locked by the caller's transaction."""
    check_can_move(request, state)
    request.state = state
    request.updated = now
    for name, value in fields.items():
        setattr(request, name, value)
    request.save(update_fields=["state", "updated", *fields])


def settle(request: BudgetRequest, state: BudgetState, **fields: Any) -> None:
    """Write the final state of a request for a budget. Raises ConflictError where it has one."""
    if request.state != BudgetState.SUBMITTED:
        raise ConflictError(f"This request is {request.state} already.", state=request.state)
    request.state = state
    for name, value in fields.items():
        setattr(request, name, value)
    request.save(update_fields=["state", *fields])


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.SUBMITTED.value}: a scientist asks"]
    for state, followers in NEXT.items():
        lines += [f"    {state.value} --> {next_.value}: {BY[next_]}" for next_ in State if next_ in followers]
        if not followers:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines) + "\n"
