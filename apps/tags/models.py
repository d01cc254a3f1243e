"""Tags as their owners typed them, and the entries of the search index."""

from __future__ import annotations

from django.db import models


class Tag(models.Model):
    """One spelling of a tag. Spellings with the same normal form mean the same."""

    text = models.CharField(max_length=80, unique=True)
    normal = models.CharField(max_length=80, db_index=True, editable=False)

    class Meta:
        ordering = ["normal", "text"]

    def __str__(self) -> str:
        return self.text


class Entry(models.Model):
    """A document of the index; its tokens are in what the database is good at searching (see `index`)."""

    kind = models.CharField(max_length=16)
    key = models.CharField(max_length=64)

    class Meta:
        verbose_name = "index entry"
        verbose_name_plural = "index entries"
        constraints = [models.UniqueConstraint(fields=["kind", "key"], name="one_entry_per_document")]
