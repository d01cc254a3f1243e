"""What this room keeps: exact aggregates that were released, and what is alive right now."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

MAX_REASON = 500


class StoredAnswer(models.Model):
    """An exact aggregate: computed once per data version, answered from here ever after.

    The key names question and data version; a second answer to one key cannot exist.
    """

    key = models.CharField(max_length=64, unique=True, editable=False)
    dataset = models.ForeignKey("datasets.Dataset", on_delete=models.CASCADE, related_name="+")
    version = models.PositiveIntegerField()
    question = models.CharField(max_length=400)
    dtype = models.CharField(max_length=16)
    shape = models.JSONField()
    data = models.BinaryField()
    # The digest of the people behind it; "" where it was kept before these were compared: it must be examined yet.
    crowds = models.CharField(max_length=64, blank=True, default="", editable=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "released aggregate"
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.question


class KeptAnswers(models.Model):
    """How many bytes the ledger keeps for good of an account's private answers."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, primary_key=True, related_name="+")
    nbytes = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return f"{self.nbytes} bytes of {self.user_id}"


class Disclosure(models.Model):
    """An exact answer that left this node outside any privacy budget: what, to whom, by which right. Never removed.

    One row for each account, route and question about a dataset version; it outlives the dataset. `crowds` is the
    digest of the sets of people behind it, kept as a file for the comparison with later answers; "" where the route
    gives more than sets of people could tell ("read", "train").
    """

    key = models.CharField(max_length=64, unique=True, editable=False)
    dataset = models.UUIDField(editable=False)
    dataset_slug = models.CharField(max_length=80, editable=False)
    version = models.PositiveIntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    route = models.CharField(max_length=16)
    question = models.CharField(max_length=400)
    columns = models.JSONField(null=True)
    program_hash = models.CharField(max_length=64)
    crowds = models.CharField(max_length=64, blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-id"]
        indexes = [models.Index(fields=["dataset", "-created"], name="disclosure_of_dataset")]
        constraints = [
            models.CheckConstraint(
                condition=Q(route__in=["aggregate", "approved", "train", "read"]), name="disclosure_route_known"
            ),
            models.CheckConstraint(
                condition=~Q(crowds="") | ~Q(route="aggregate"), name="disclosure_of_an_aggregate_has_crowds"
            ),
        ]

    def __str__(self) -> str:
        return self.question


class WebProcess(models.Model):
    """A process that serves this node. It writes the row every few seconds; one that stops writing is gone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(max_length=64)
    pid = models.PositiveIntegerField()
    started = models.DateTimeField()
    seen = models.DateTimeField()
    # Its load, its workers and the last errors of its log, as `compute.live` writes them. Nothing private is in it.
    report = models.JSONField(default=dict)

    class Meta:
        ordering = ["started"]

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


class LiveSession(models.Model):
    """A session that is open in some process of this node, until it ends. Its values are nowhere near here."""

    id = models.UUIDField(primary_key=True, editable=False)
    process = models.ForeignKey(WebProcess, on_delete=models.CASCADE, related_name="sessions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    # The client's own word for itself, with nothing in it that does not show.
    client = models.CharField(max_length=64, blank=True)
    opened = models.DateTimeField()
    # Since when it waits for its client to come back; None: the client is here.
    waits_since = models.DateTimeField(null=True)
    asks = models.PositiveIntegerField(default=0)
    # The code of the last error that its client was told, and when.
    last_error = models.CharField(max_length=40, blank=True)
    last_error_at = models.DateTimeField(null=True)
    # Written by `actions.stop_session` only; the process that has the session reads them.
    stopped_at = models.DateTimeField(null=True)
    stopped_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="+")
    stop_reason = models.TextField(max_length=MAX_REASON, blank=True)

    class Meta:
        verbose_name = "session"
        ordering = ["-opened"]
        constraints = [
            models.CheckConstraint(
                condition=Q(stopped_at=None, stopped_by=None, stop_reason="")
                | (Q(stopped_at__isnull=False, stopped_by__isnull=False) & ~Q(stop_reason="")),
                name="session_stopped_by_somebody_with_a_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{str(self.pk)[:8]} of {self.user.username}"

    @property
    def state(self) -> str:
        """In a word."""
        if self.stopped_at is not None:
            return "stopping"
        return "connected" if self.waits_since is None else "waiting"

    @property
    def worker(self) -> dict[str, Any] | None:
        """Its worker as its process last saw it; None where it needed none yet, or it has ended."""
        return next((each for each in self.process.report["workers"] if each["session"] == str(self.pk)), None)
