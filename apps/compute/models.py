"""Exact aggregates that were released: computed once per data version, answered from here ever after."""

from __future__ import annotations

from django.db import models


class StoredAnswer(models.Model):
    """An exact aggregate. The key names question and data version; a second answer to one key cannot exist."""

    key = models.CharField(max_length=64, unique=True, editable=False)
    dataset = models.ForeignKey("datasets.Dataset", on_delete=models.CASCADE, related_name="+")
    version = models.PositiveIntegerField()
    question = models.CharField(max_length=400)
    dtype = models.CharField(max_length=16)
    shape = models.JSONField()
    data = models.BinaryField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "released aggregate"
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.question
