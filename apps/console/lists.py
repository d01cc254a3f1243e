"""Lists of a hundred thousand rows: found by the search index, in pages that nothing is counted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.paginator import InfinitePaginator

from apps.console.base import GridAdmin
from apps.tags import index
from gridclient.wire.errors import InvalidInputError

MOST_FOUND = 1000
"""Hits of a search that a list shows: the newest."""


class IndexedAdmin(GridAdmin):
    """A list whose search box asks the index: a #tag, or whole words."""

    indexed: ClassVar[str]
    """What the index calls these documents."""
    paginator = InfinitePaginator
    # The box is there where fields are named; the index reads names, descriptions and tags.
    search_fields = ["pk"]
    search_help_text = "Search by #tag or whole words"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term.strip():
            return queryset, False
        visible = self.get_queryset(request).order_by()

        def keys(found: list[UUID]) -> Mapping[UUID, UUID]:
            return {key: key for key in visible.filter(pk__in=found).values_list("pk", flat=True)}

        try:
            hits = index.sample(self.indexed, [search_term], keys, most=MOST_FOUND)
        except InvalidInputError as error:
            messages.error(request, error.message)
            return queryset.none(), False
        if hits.more:
            messages.info(request, f"More than {MOST_FOUND} match; these are the newest. Another word leaves fewer.")
        return queryset.filter(pk__in=[key for _, key in hits.matches]), False
