"""Who owns a dataset, and who was given which right on it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.accounts.models import Team
from apps.core.clock import now
from apps.datasets.models import Dataset

NANO = 10**9
"""Epsilon is stored in billionths: SQLite turns decimals into floats."""


class Right(models.TextChoices):
    """Each is given by itself. `read` includes all others; `release`, `aggregate` and `train` include `compute`, not
    each other; seeing comes with any of them."""

    DISCOVER = "discover", "discover"
    COMPUTE = "compute", "compute"
    RELEASE = "release", "release"
    AGGREGATE = "aggregate", "aggregate"
    TRAIN = "train", "train"
    READ = "read", "read"


_SEEN = frozenset({Right.DISCOVER, Right.COMPUTE})
INCLUDES: dict[str, frozenset[str]] = {
    Right.DISCOVER: frozenset({Right.DISCOVER}),
    Right.COMPUTE: _SEEN,
    Right.RELEASE: _SEEN | {Right.RELEASE},
    Right.AGGREGATE: _SEEN | {Right.AGGREGATE},
    Right.TRAIN: _SEEN | {Right.TRAIN},
    Right.READ: frozenset(Right),
}
"""By right, what holding it allows."""


class Ownership(models.Model):
    """Who published a dataset and decides about it."""

    dataset = models.OneToOneField(Dataset, on_delete=models.CASCADE, related_name="ownership")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="owned")

    class Meta:
        verbose_name_plural = "ownership"


class Grant(models.Model):
    """A right on a dataset for an account or a team. With a program hash: for that one program, after an approval.

    `programs`: the hashes of the programs that a `train` grant is for; None: any. `epsilon`: the allowance of a
    `release` grant in billionths, None: what every analyst has by default.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="grants")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="grants"
    )
    team = models.ForeignKey(Team, on_delete=models.PROTECT, null=True, blank=True, related_name="grants")
    right = models.CharField(max_length=16, choices=Right.choices)
    columns = models.JSONField(null=True, blank=True)
    programs = models.JSONField(null=True, blank=True)
    epsilon = models.PositiveBigIntegerField(null=True, blank=True)
    expires = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(max_length=2_000)
    given_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created = models.DateTimeField(default=now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)
    program_hash = models.CharField(max_length=64, blank=True, default="")
    request_id = models.UUIDField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created", "-id"]
        indexes = [models.Index(fields=["dataset", "revoked_at"], name="grant_live")]
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, team__isnull=True) | Q(user__isnull=True, team__isnull=False),
                name="grant_to_one_receiver",
            ),
            models.CheckConstraint(condition=Q(right__in=Right.values), name="grant_right_known"),
            models.CheckConstraint(condition=~Q(reason=""), name="grant_has_reason"),
            models.CheckConstraint(
                condition=Q(programs__isnull=True) | Q(right=Right.TRAIN), name="grant_programs_only_train"
            ),
            models.CheckConstraint(
                condition=Q(epsilon__isnull=True) | Q(right=Right.RELEASE, epsilon__gt=0),
                name="grant_epsilon_only_release",
            ),
            models.CheckConstraint(
                condition=Q(program_hash="", request_id__isnull=True)
                | (~Q(program_hash="") & Q(request_id__isnull=False, user__isnull=False)),
                name="grant_once_names_request",
            ),
        ]

    @property
    def allowance(self) -> float | None:
        """The epsilon of a `release` grant."""
        return None if self.epsilon is None else self.epsilon / NANO

    def __str__(self) -> str:
        return f"{self.right} on {self.dataset.slug}"
