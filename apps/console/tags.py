"""Tags in the console: which there are, and what carries them. They are typed with the datasets."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.accounts.models import User
from apps.console.base import GridAdmin, person
from apps.console.show import Panel, link
from apps.permissions.queries import datasets_visible_to
from apps.tags.models import Tag


@admin.register(Tag)
class TagAdmin(GridAdmin):
    """Tags of datasets that the person may see: another one's tag would tell of a hidden dataset."""

    plural = "Tags"
    empty = "The tags that datasets were published with appear here."
    role = "node"
    list_display = ["text", "normal", "carriers"]
    search_fields = ["text", "normal"]
    search_help_text = "Search by tag"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tag]:
        visible = datasets_visible_to(person(request)).values("pk")
        carriers = Count("datasets", filter=Q(datasets__in=visible), distinct=True)
        return Tag.objects.annotate(number=carriers).filter(number__gt=0)

    def panels(self, user: User, obj: Tag) -> list[Panel]:
        carriers = datasets_visible_to(user).filter(tags=obj)
        same = Tag.objects.filter(normal=obj.normal, datasets__in=datasets_visible_to(user).values("pk"))
        spellings = same.exclude(pk=obj.pk).distinct()
        facts = [
            ("Tag", obj.text),
            ("Found as", obj.normal),
            ("Other spellings", [link(user, each) for each in spellings]),
            ("Datasets", [link(user, each) for each in carriers]),
        ]
        return [Panel("Tag", facts)]

    @display(description="datasets", ordering="number")
    def carriers(self, tag: Any) -> int:
        return int(tag.number)
