"""Tables of both roles: the network's nodes and announcements, a node's membership, and what may be used only once."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

KEY_LENGTH = 64
"""Hex digits of an Ed25519 public key."""
KIND = "announcement"
"""What the search index calls announcements."""


class State(models.TextChoices):
    PENDING = "pending", "waits for the operator"
    APPROVED = "approved", "approved"
    REJECTED = "rejected", "rejected"
    REMOVED = "removed", "removed"


NEXT: dict[State, frozenset[State]] = {
    # A key that was let in keeps its id for ever and is removed; one that never was gives it back and is rejected.
    State.PENDING: frozenset({State.APPROVED, State.REJECTED, State.REMOVED}),
    State.REJECTED: frozenset({State.APPROVED}),
    State.APPROVED: frozenset({State.REMOVED, State.PENDING}),  # pending again: it wants another name or address
    State.REMOVED: frozenset({State.APPROVED}),
}


class Node(models.Model):
    """Network role: a node that asked to join. Its key is who it is; the network's operator decides."""

    id = models.SlugField(primary_key=True, max_length=40)
    name = models.CharField(max_length=80)
    url = models.CharField(max_length=200)
    public_key = models.CharField(max_length=KEY_LENGTH, unique=True)
    fingerprint = models.CharField(max_length=32, editable=False)
    address = models.CharField("asked from", max_length=64, editable=False)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    asked = models.DateTimeField()
    last_seen = models.DateTimeField(null=True, blank=True)
    expires = models.DateTimeField(
        "alive until", null=True, blank=True, help_text="Without a heartbeat before then, searches leave it out."
    )
    revision = models.BigIntegerField("acknowledged revision", default=0)
    findable = models.BooleanField(
        default=True, editable=False, help_text="What it announced is in the search index; not while it is long silent."
    )
    joined = models.DateTimeField("first approved", null=True, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["state", "expires"], name="node_alive"),
            models.Index(fields=["expires"], condition=Q(findable=True), name="node_findable"),
        ]
        constraints = [
            models.CheckConstraint(
                name="node_decided_unless_pending",
                condition=(Q(state="pending") & Q(decided_at=None) & Q(decided_by=None))
                | (~Q(state="pending") & ~Q(decided_at=None) & ~Q(decided_by=None)),
            ),
            models.CheckConstraint(
                name="node_member_has_joined", condition=~Q(state__in=["approved", "removed"]) | ~Q(joined=None)
            ),
            models.CheckConstraint(name="node_rejected_never_joined", condition=~Q(state="rejected") | Q(joined=None)),
        ]

    def __str__(self) -> str:
        return self.name


class Announcement(models.Model):
    """Network role: the public metadata of one listed dataset of a node, as the node last announced it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="announcements")
    dataset_id = models.UUIDField()
    metadata = models.JSONField()
    size = models.PositiveIntegerField("bytes", help_text="What keeping and indexing it costs.")
    revision = models.BigIntegerField()
    announced = models.DateTimeField("first announced")

    class Meta:
        ordering = ["-announced", "-id"]
        indexes = [models.Index(fields=["-announced", "-id"], name="announcement_newest")]
        constraints = [models.UniqueConstraint(fields=["node", "dataset_id"], name="announcement_once_per_dataset")]

    def __str__(self) -> str:
        return f"{self.metadata.get('slug', self.dataset_id)} at {self.node_id}"


class NodeHead(models.Model):
    """Network role: a head of a member's log, as the member showed it. `witness.py` says what becomes of it."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="heads")
    log = models.CharField(max_length=16)
    number = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)
    signature = models.CharField("the node's signature", max_length=128)
    seen = models.DateTimeField()
    alarm = models.BooleanField(default=False, help_text="Not beyond what was seen before: it never changes.")

    class Meta:
        ordering = ["node", "log", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["node", "log", "number", "hash"], name="nodehead_once"),
            models.CheckConstraint(name="nodehead_counts_from_one", condition=Q(number__gte=1)),
        ]

    def __str__(self) -> str:
        return f"{self.log} {self.number} of {self.node_id}"


class Membership(models.Model):
    """Node role, one row: the network this node belongs to, with the key that was pinned at first contact."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    url = models.CharField(max_length=200)
    public_key = models.CharField(max_length=KEY_LENGTH)
    fingerprint = models.CharField(max_length=32)
    pinned = models.DateTimeField()
    node_id = models.CharField("id at the network", max_length=40, blank=True)
    state = models.CharField(max_length=8, choices=State.choices, blank=True)
    problem = models.CharField(max_length=500, blank=True)
    acked_revision = models.BigIntegerField(default=0)
    frozen = models.BooleanField(
        default=False, help_text="The network showed another key: its accounts may not sign in."
    )
    offered_key = models.CharField(max_length=KEY_LENGTH, blank=True)

    class Meta:
        verbose_name_plural = "membership"
        constraints = [
            models.CheckConstraint(name="membership_single", condition=Q(id=1)),
            models.CheckConstraint(
                name="membership_frozen_by_a_key",
                condition=Q(frozen=False, offered_key="") | Q(frozen=True) & ~Q(offered_key=""),
            ),
        ]

    def __str__(self) -> str:
        return self.url


class UsedOnce(models.Model):
    """What was used and may not be used again until it has expired anyway. Only a row's existence matters."""

    class Kind(models.TextChoices):
        NONCE = "nonce", "nonce of a signed request"
        ASSERTION = "assertion", "assertion of a sign-in"
        CHALLENGE = "challenge", "challenge of a sign-in"

    kind = models.CharField(max_length=9, choices=Kind.choices)
    value = models.CharField(max_length=160)
    expires = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "used once"
        constraints = [models.UniqueConstraint(fields=["kind", "value"], name="used_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.value[:8]}"
