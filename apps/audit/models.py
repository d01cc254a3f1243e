"""The tables of the audit log. Triggers (migration 0002) keep them append-only."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.db.models import Q

from apps.audit.chain import event_hash


class AuditEvent(models.Model):
    """One thing that happened. `hash` covers every other column but `signature`, and the hash before it."""

    seq = models.PositiveBigIntegerField(primary_key=True)
    at = models.DateTimeField()
    verb = models.CharField(max_length=40)
    # Copies, no foreign keys: an event says what was true then, whatever becomes of the account.
    actor_id = models.CharField(max_length=64, blank=True)
    actor_name = models.CharField(max_length=150, blank=True)
    target = models.TextField(blank=True)
    payload_digest = models.CharField(max_length=64)
    previous = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)
    signature = models.CharField(max_length=128)

    class Meta:
        ordering = ["-seq"]
        indexes = [
            models.Index(fields=["verb", "-seq"], name="audit_verb"),
            models.Index(fields=["actor_id", "-seq"], name="audit_actor"),
            models.Index(fields=["at"], name="audit_at"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(seq__gte=1), name="audit_counts_from_one"),
            # A fork of the chain: two events after the same one.
            models.UniqueConstraint(fields=["previous"], name="audit_one_successor"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.verb} {self.target}".rstrip()

    @property
    def payload(self) -> dict[str, Any] | None:
        """The event's text as plain JSON values; None once it was erased."""
        text: AuditText | None = getattr(self, "text", None)
        return text.payload if text is not None else None

    def computed_hash(self) -> str:
        """What `hash` must be."""
        return event_hash(
            self.seq,
            self.at,
            self.verb,
            self.actor_id,
            self.actor_name,
            self.target,
            self.payload_digest,
            self.previous,
        )


class AuditText(models.Model):
    """An event's payload: apart from the chain, which holds only its digest, so that it can be erased."""

    event = models.OneToOneField(AuditEvent, on_delete=models.PROTECT, primary_key=True, related_name="text")
    # Random: without it, a short text could be guessed from its digest after it was erased.
    salt = models.CharField(max_length=32)
    # Canonical JSON as text: jsonb would rewrite numbers, and the digest would no longer fit.
    body = models.TextField()

    def __str__(self) -> str:
        return f"text of event {self.event_id}"

    @property
    def payload(self) -> dict[str, Any]:
        """The payload as plain JSON values."""
        return dict(json.loads(self.body))


class AuditHead(models.Model):
    """The last event: one row, locked by whoever adds the next, so that the chain cannot fork."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seq = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="audit_one_head")]

    def __str__(self) -> str:
        return f"head at {self.seq}"
