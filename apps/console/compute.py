"""Exact aggregates that were released, to look at. The numbers themselves are not shown here."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.compute.models import StoredAnswer
from apps.console.base import GridAdmin, person
from apps.permissions.queries import datasets_visible_to


@admin.register(StoredAnswer)
class StoredAnswerAdmin(GridAdmin):
    list_display = ["question", "dataset", "version", "created"]
    list_filter = ["dataset"]
    list_select_related = ["dataset"]
    fields = ["question", "dataset", "version", "dtype", "shape", "created"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredAnswer]:
        visible = datasets_visible_to(person(request))
        return super().get_queryset(request).filter(dataset__in=visible)
