"""Exact answers that were released, to look at. The numbers themselves are not shown here."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.accounts.models import User
from apps.compute.disclosures import disclosures_visible_to
from apps.compute.models import Disclosure, StoredAnswer
from apps.console.base import GridAdmin, person
from apps.console.filters import ByDataset
from apps.console.show import Panel, link, times, when


@admin.register(StoredAnswer)
class StoredAnswerAdmin(GridAdmin):
    plural = "Released aggregates"
    empty = "Each exact aggregate of your data that left this node appears here, once for each data version."
    role = "node"
    list_display = ["question", "on", "version", "shape_shown", "released"]
    list_filter = [ByDataset]
    search_fields = ["question", "dataset__slug"]
    search_help_text = "Search by question or dataset"
    list_select_related = ["dataset"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredAnswer]:
        found = super().get_queryset(request).defer("data")
        user = person(request)
        return found if user.has("everything.read") else found.filter(dataset__ownership__owner=user)

    def panels(self, user: User, obj: StoredAnswer) -> list[Panel]:
        facts = [
            ("Question", obj.question),
            ("Dataset", link(user, obj.dataset)),
            ("Version", obj.version),
            ("What left", f"{times(obj.shape)} ({obj.dtype})"),
            ("First released", obj.created),
        ]
        return [Panel("Released aggregate", facts)]

    @display(description="dataset", ordering="dataset__slug")
    def on(self, answer: StoredAnswer) -> str:
        return answer.dataset.slug

    @display(description="shape")
    def shape_shown(self, answer: StoredAnswer) -> str:
        return times(answer.shape)

    @display(description="released", ordering="created")
    def released(self, answer: StoredAnswer) -> str:
        return when(answer.created)


@admin.register(Disclosure)
class DisclosureAdmin(GridAdmin):
    plural = "Disclosures"
    empty = "Each exact answer about your data that left this node, outside any budget, appears here: to whom, and why."
    role = "node"
    list_display = ["question", "on", "version", "receiver", "route", "disclosed"]
    list_filter = ["route"]
    search_fields = ["question", "dataset_slug", "user__username"]
    search_help_text = "Search by question, dataset or person"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Disclosure]:
        return disclosures_visible_to(person(request))

    def panels(self, user: User, obj: Disclosure) -> list[Panel]:
        facts = [
            ("Question", obj.question),
            ("Dataset", f"{obj.dataset_slug} (version {obj.version})"),
            ("Columns", "all" if obj.columns is None else ", ".join(obj.columns)),
            ("To", link(user, obj.user)),
            ("By the right", obj.route),
            ("Program", obj.program_hash),
            ("Set of people", obj.crowds or "not compared"),
            ("First disclosed", obj.created),
        ]
        return [Panel("Disclosure", facts)]

    @display(description="dataset", ordering="dataset_slug")
    def on(self, disclosure: Disclosure) -> str:
        return disclosure.dataset_slug

    @display(description="to", ordering="user__username")
    def receiver(self, disclosure: Disclosure) -> str:
        return str(disclosure.user)

    @display(description="disclosed", ordering="created")
    def disclosed(self, disclosure: Disclosure) -> str:
        return when(disclosure.created)
