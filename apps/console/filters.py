"""Filters of lists: they offer, and accept, only what the person who looks may see."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.console.base import person
from apps.network.queries import nodes_visible_to
from apps.permissions.queries import datasets_visible_to

MOST_CHOICES = 100


class ByDataset(admin.SimpleListFilter):
    """By dataset; the address names its slug."""

    title = "dataset"
    parameter_name = "of"
    path: ClassVar[str] = "dataset"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        visible = datasets_visible_to(person(request)).order_by("name", "slug")
        return [(slug, f"{name} ({slug})") for slug, name in visible.values_list("slug", "name")[:MOST_CHOICES]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        chosen = datasets_visible_to(person(request)).filter(slug=self.value())
        return queryset.filter(**{f"{self.path}__in": chosen.values("pk")}).distinct()


class ByNode(admin.SimpleListFilter):
    """By node of a network; the address names its id. Beyond the first hundred, a node's page leads here."""

    title = "node"
    parameter_name = "at"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        visible = nodes_visible_to(person(request)).order_by("name", "id")
        return list(visible.values_list("id", "name")[:MOST_CHOICES])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(node=self.value()) if self.value() else queryset


class ByInput(ByDataset):
    """By a dataset that a request reads."""

    path = "inputs__dataset"
