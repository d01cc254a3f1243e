"""Plans that people keep on this node: named programs over inputs that a call names."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.core.clock import now
from gridclient.program.plan_graph import MAX_NAME, MAX_PLAN


class Plan(models.Model):
    """A plan's bytes (`gridclient.program.plan_format`), and what lists show of them without reading them again."""

    name = models.SlugField(max_length=MAX_NAME, unique=True)
    description = models.TextField(blank=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="plans")
    data = models.BinaryField()
    nbytes = models.PositiveIntegerField()
    # What a call names it by. Names are unique and part of the bytes, so digests are too.
    sha256 = models.CharField(max_length=64, unique=True)
    # `inputs` and `results` as in the bytes, `size`, `draws` and the names of its operations.
    signature = models.JSONField()
    allow_download = models.BooleanField(default=False)
    created = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ["-created", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(nbytes__gte=1, nbytes__lte=MAX_PLAN), name="plan_has_bytes"),
        ]

    def __str__(self) -> str:
        return self.name
