"""What a dataset is and what it declares. The values are in files that only workers read."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.functional import cached_property

from apps.core.clock import now
from apps.datasets.assets import MAX_DESCRIPTION, MAX_NAME, TABLE, TENSOR
from apps.tags.models import Tag


class Visibility(models.TextChoices):
    LISTED = "listed", "listed: every account and the network's users see it"
    ACCOUNTS = "accounts", "accounts: every account of this node sees it"
    GRANTED = "granted", "granted: only those with a grant see it"


class Revision(models.Model):
    """One row: the number of the last change to any dataset. Announcements ask for what came after a number."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    last = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="revision_single")]


class Dataset(models.Model):
    """A published dataset. Its versions hold what changes with the values."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=MAX_NAME)
    description = models.TextField(max_length=MAX_DESCRIPTION, blank=True)
    tags = models.ManyToManyField(Tag, related_name="datasets", blank=True)
    # The same tags in the order in which they were typed, for whoever reads them; the relation is for filters.
    typed_tags = models.JSONField(default=list, blank=True, editable=False)
    visibility = models.CharField(max_length=8, choices=Visibility.choices, default=Visibility.LISTED)
    accounts_may_compute = models.BooleanField(default=True)
    revision = models.BigIntegerField(default=0, db_index=True, editable=False)
    created = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ["-created", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(visibility__in=Visibility.values), name="dataset_visibility_known")
        ]

    def __str__(self) -> str:
        return self.name

    @cached_property
    def current(self) -> DatasetVersion:
        """The newest version. Costs no query where `versions` was prefetched."""
        return max(self.versions.all(), key=lambda version: version.number)


class DatasetVersion(models.Model):
    """One version of the values, never changed. `shape` is the public one: padded where n is private."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=[(TENSOR, TENSOR), (TABLE, TABLE)])
    dtype = models.CharField(max_length=16, blank=True)
    shape = models.JSONField()
    columns = models.JSONField(default=list)
    rows_public = models.BooleanField()
    entities = models.CharField(max_length=8)
    # Whatever has the same sequence has the same people in its rows, row by row. A new version begins one of its own.
    sequence = models.UUIDField(default=uuid.uuid4, editable=False)
    # Private where n is: the number of uploaded rows.
    row_count = models.PositiveBigIntegerField(editable=False)
    # Private: how many people have a record. Shown nowhere; the threshold of exact aggregates asks for it.
    entity_count = models.PositiveBigIntegerField(editable=False)
    max_rows_per_entity = models.PositiveIntegerField()
    missing = models.JSONField()
    presence = models.BooleanField()
    nbytes = models.PositiveBigIntegerField()
    # Private too: a digest lets a guess at the values be confirmed.
    sha256 = models.CharField(max_length=64, editable=False)
    created = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="version_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_from_one"),
            models.CheckConstraint(condition=Q(kind__in=[TENSOR, TABLE]), name="version_kind_known"),
            models.CheckConstraint(condition=Q(entities__in=["rows", "declared"]), name="version_entities_known"),
            models.CheckConstraint(condition=Q(max_rows_per_entity__gte=1), name="version_entity_has_rows"),
            models.CheckConstraint(condition=Q(entity_count__lte=F("row_count")), name="version_entities_have_rows"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset.slug}@{self.number}"

    @property
    def folder(self) -> Path:
        """Where this version's files are."""
        return Path(settings.GRID_STORAGE_DIR) / "datasets" / str(self.dataset_id) / str(self.number)
