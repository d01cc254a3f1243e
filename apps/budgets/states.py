"""The states of a release: what may follow what. The rows are moved by `ledger` alone."""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    CHARGED = "charged", "charged, not yet answered"
    ANSWERED = "answered", "answered, not yet delivered"
    DELIVERED = "delivered", "delivered"
    VOID = "void", "without an answer; stays charged"


NEXT: dict[State, frozenset[State]] = {
    State.CHARGED: frozenset({State.ANSWERED, State.VOID}),
    State.ANSWERED: frozenset({State.DELIVERED}),
    State.DELIVERED: frozenset(),
    State.VOID: frozenset(),
}
"""What may follow each state. Nothing gives a charge back."""
