"""Requests: for one exact value, and for a budget of private answers; why, the decision, and what it led to.

The program of the first and its constants are kept whole as long as it may run, so that it runs at approval without the
client or its session; its hash and its words stay for ever. Files live in `GRID_STORAGE_DIR/requests/<id>/`:
`constants.safetensors` (public inputs; until it is answered or will never be) and `answer`.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.core.clock import now
from apps.datarequests.files import CONSTANTS
from apps.datarequests.transitions import BudgetState, State
from apps.permissions.models import NANO

REASON_LIMIT = 2_000
MAX_FAILURES = 2
"""An approved program runs once when it was approved and, if that failed, once more at a later start."""

MAY_RUN = Q(state=State.SUBMITTED) | Q(state=State.APPROVED, answered_at=None, failures__lt=MAX_FAILURES)

_OPEN = Q(decided_by=None, decided_at=None, decision_reason="")
_DECIDED = Q(decided_by__isnull=False, decided_at__isnull=False) & ~Q(decision_reason="")
_UNANSWERED = Q(answered_at=None, answer_kind="", answer_header__isnull=True)
_ANSWERED = Q(answered_at__isnull=False, answer_header__isnull=False) & ~Q(answer_kind="")


class DataRequest(models.Model):
    """`state` is written by `transitions.move` alone; `updated` grows with each of its writes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="requests")
    state = models.CharField(max_length=16, choices=State.choices, default=State.SUBMITTED)
    reason = models.TextField(max_length=REASON_LIMIT)
    program_hash = models.CharField(max_length=64)
    # Empty once it will not run again.
    program = models.BinaryField()
    # Of the program and its constants, as long as it may still run; the requester's share of the disk is counted in it.
    held_bytes = models.PositiveBigIntegerField(default=0, editable=False)
    words = models.TextField("program in words")
    kind = models.CharField(max_length=8, choices=[("tensor", "tensor"), ("table", "table"), ("state", "state")])
    dtype = models.CharField(max_length=16, blank=True)
    shape = models.JSONField(default=list)
    label = models.CharField(max_length=16)
    # Of a state: the module's id in the program, and what its tensors are called, in the order of the results.
    module = models.CharField(max_length=64, blank=True, default="")
    names = models.JSONField(default=list, blank=True)
    created = models.DateTimeField(default=now)
    updated = models.DateTimeField(default=now)

    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="decisions"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.TextField(max_length=REASON_LIMIT, blank=True)

    answered_at = models.DateTimeField(null=True, blank=True)
    answer_kind = models.CharField(max_length=8, blank=True)
    answer_header = models.JSONField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    failure = models.TextField(blank=True)
    failures = models.PositiveSmallIntegerField(default=0)

    class Meta:
        verbose_name = "request"
        ordering = ["created", "id"]
        indexes = [
            models.Index(fields=["state", "created"], name="request_by_state"),
            models.Index(fields=["requester", "state"], name="request_by_requester"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=State.values), name="request_state_known"),
            models.CheckConstraint(condition=~Q(reason=""), name="request_has_reason"),
            models.CheckConstraint(
                condition=(Q(state__in=[State.SUBMITTED, State.WITHDRAWN]) & _OPEN)
                | (Q(state__in=[State.APPROVED, State.DENIED, State.DELIVERED]) & _DECIDED),
                name="request_decided_with_who_when_why",
            ),
            models.CheckConstraint(
                condition=(~Q(state=State.DELIVERED) & _UNANSWERED)
                | (Q(state__in=[State.APPROVED, State.DELIVERED]) & _ANSWERED),
                name="request_answered_only_when_approved",
            ),
            models.CheckConstraint(
                condition=Q(state=State.DELIVERED, delivered_at__isnull=False)
                | (~Q(state=State.DELIVERED) & Q(delivered_at=None)),
                name="request_delivered_with_when",
            ),
        ]

    def __str__(self) -> str:
        return f"request {self.id}"

    @property
    def may_run(self) -> bool:
        """`MAY_RUN` for this one: whether its program and constants are kept."""
        open_ = self.state == State.APPROVED and self.answered_at is None and self.failures < MAX_FAILURES
        return open_ or self.state == State.SUBMITTED

    @property
    def folder(self) -> Path:
        """Where this request's files are."""
        return Path(settings.GRID_STORAGE_DIR) / "requests" / str(self.pk)

    @property
    def constants_file(self) -> Path | None:
        """The program's constants, or None when it has none."""
        file = self.folder / CONSTANTS
        return file if file.exists() else None

    @property
    def answer_file(self) -> Path:
        """The stored answer: raw little-endian bytes of a tensor, an Arrow stream, or a safetensors file of a state."""
        return self.folder / "answer"


class RequestInput(models.Model):
    """A data version that the program reads; `columns` None means all of them."""

    request = models.ForeignKey(DataRequest, on_delete=models.CASCADE, related_name="inputs")
    dataset = models.ForeignKey("datasets.Dataset", on_delete=models.PROTECT, related_name="request_inputs")
    version = models.PositiveIntegerField()
    columns = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["request", "dataset", "version"], name="request_input_once"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset} version {self.version}"


class BudgetRequest(models.Model):
    """Somebody asks the owner of a dataset for a `release` grant with an epsilon; `grant`: what was given."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="budget_requests")
    dataset = models.ForeignKey("datasets.Dataset", on_delete=models.PROTECT, related_name="budget_requests")
    epsilon_nano = models.PositiveBigIntegerField()
    reason = models.TextField(max_length=REASON_LIMIT)
    state = models.CharField(max_length=16, choices=BudgetState.choices, default=BudgetState.SUBMITTED)
    created = models.DateTimeField(default=now)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision = models.TextField(max_length=REASON_LIMIT, blank=True)
    grant = models.OneToOneField(
        "permissions.Grant", on_delete=models.PROTECT, null=True, blank=True, related_name="budget_request"
    )

    class Meta:
        verbose_name = "budget request"
        ordering = ["created", "id"]
        indexes = [models.Index(fields=["state", "created"], name="budget_request_by_state")]
        constraints = [
            models.UniqueConstraint(
                fields=["requester", "dataset"],
                condition=Q(state=BudgetState.SUBMITTED),
                name="budget_request_open_once",
            ),
            models.CheckConstraint(condition=Q(epsilon_nano__gte=1) & ~Q(reason=""), name="budget_request_says_what"),
            models.CheckConstraint(
                condition=Q(state__in=["submitted", "withdrawn"], decided_by=None, decided_at=None, decision="")
                | (
                    Q(state__in=["approved", "denied"], decided_by__isnull=False, decided_at__isnull=False)
                    & ~Q(decision="")
                ),
                name="budget_request_decided_with_why",
            ),
            models.CheckConstraint(
                condition=Q(state="approved", grant__isnull=False) | (~Q(state="approved") & Q(grant=None)),
                name="budget_request_approved_with_grant",
            ),
        ]

    def __str__(self) -> str:
        return f"budget request {self.id}"

    @property
    def epsilon(self) -> float:
        """What is asked for."""
        return self.epsilon_nano / NANO
