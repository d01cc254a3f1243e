"""The queue in the console: what needs me first, and a page on which one decides."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.urls import path
from django.utils.dateparse import parse_datetime
from unfold.decorators import display

from apps.console.base import GridAdmin, attempt, person
from apps.datarequests import actions as verbs
from apps.datarequests.models import DataRequest
from apps.datarequests.policies import can_approve, can_decide
from apps.datarequests.queries import requests_i_may_decide, requests_visible_to, visible_inputs, words_for
from apps.datarequests.transitions import State

LABELS = {
    State.SUBMITTED: "warning",
    State.APPROVED: "info",
    State.DELIVERED: "success",
    State.DENIED: "danger",
    State.WITHDRAWN: "default",
}


class NeedsMe(admin.SimpleListFilter):
    """Opens on what waits for the person who looks; the address is the filter."""

    title = "whose turn it is"
    parameter_name = "turn"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("me", "Needs me")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DataRequest]) -> QuerySet[DataRequest]:
        if self.value() != "me":
            return queryset
        return queryset.filter(pk__in=requests_i_may_decide(person(request)).values("pk"))


@admin.register(DataRequest)
class DataRequestAdmin(GridAdmin):
    list_display = ["asked_for", "who", "why", "columns", "status", "created"]
    list_filter = [NeedsMe, "state", "inputs__dataset"]
    search_fields = ["requester__username", "reason"]
    ordering = ["created"]
    fields: list[str] = []
    change_form_outer_before_template = "console/request.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[DataRequest]:
        return requests_visible_to(person(request)).prefetch_related("inputs__dataset")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return person(request).is_staff

    @display(description="asked for")
    def asked_for(self, item: DataRequest) -> str:
        names = ", ".join(sorted({entry.dataset.slug for entry in item.inputs.all()}))
        return f"{shape_words(item)} from {names}"

    @display(description="who", ordering="requester__username")
    def who(self, item: DataRequest) -> str:
        return item.requester.username

    @display(description="why")
    def why(self, item: DataRequest) -> str:
        return item.reason if len(item.reason) <= 60 else item.reason[:59] + "…"

    @display(description="columns")
    def columns(self, item: DataRequest) -> str:
        return column_words(item)

    @display(description="state", ordering="state", label=LABELS)
    def status(self, item: DataRequest) -> tuple[str, str]:
        return item.state, State(item.state).label

    def get_urls(self) -> list[Any]:
        decide = path(
            "<uuid:pk>/<str:decision>/", self.admin_site.admin_view(self.decide), name="datarequests_datarequest_decide"
        )
        return [decide, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not request.GET and requests_i_may_decide(person(request)).exists():
            return redirect(f"{request.path}?turn=me")
        return super().changelist_view(request, {**(extra_context or {}), "title": "Requests"})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        item = self.get_object(request, object_id)
        extra = {"show_save": False, "show_save_and_continue": False, "show_close": False, **(extra_context or {})}
        if item is not None:
            extra |= self._page(request, item)
        return super().change_view(request, object_id, form_url, extra)

    def _page(self, request: HttpRequest, item: DataRequest) -> dict[str, Any]:
        viewer = person(request)
        turn = list(requests_i_may_decide(viewer).exclude(pk=item.pk).values_list("pk", "created"))
        later = [pk for pk, created in turn if created > item.created]
        earlier = requests_visible_to(viewer).filter(requester=item.requester).exclude(pk=item.pk)
        return {
            "item": item,
            "title": f"{shape_words(item)} for {item.requester.username}",
            "words": words_for(item, visible_inputs(viewer, [item])),
            "inputs": [
                (entry.dataset, entry.version, entry.columns) for entry in item.inputs.select_related("dataset")
            ],
            "shape": shape_words(item),
            "label": LABEL_WORDS.get(item.label, item.label),
            "status": State(item.state).label,
            "variant": LABELS[State(item.state)],
            "may_decide": can_decide(viewer, item),
            "may_approve": can_approve(viewer, item),
            "history": dict(earlier.values_list("state").annotate(Count("pk")).order_by("state")),
            "next_request": later[0] if later else (turn[0][0] if turn else None),
        }

    def decide(self, request: HttpRequest, pk: Any, decision: str) -> HttpResponseRedirect:
        """A decision from the page's form. Twice the same button is harmless: the second is told what became of it."""
        verb = {"approve": verbs.approve, "deny": verbs.deny}.get(decision)
        if verb is None or request.method != "POST":
            raise PermissionDenied
        item = get_object_or_404(requests_visible_to(person(request)), pk=pk)
        seen: datetime | None = parse_datetime(request.POST.get("seen", ""))
        reason = request.POST.get("reason", "")
        done = {
            "approve": "Approved: the program runs now, and the requester receives its answer.",
            "deny": "Denied: the requester sees your reason.",
        }
        attempt(request, lambda: verb(item, reason=reason, by=person(request), seen=seen), done[decision])
        return redirect("admin:datarequests_datarequest_change", pk)


LABEL_WORDS = {
    "rows": "rows of single people",
    "agg": "a sum over people, exact",
    "tainted": "depends on private values in a way that no rule bounds",
}


def shape_words(item: DataRequest) -> str:
    """What would leave, in words: "one number (float64)", "84 x 2 numbers (float64)"."""
    if item.kind == "table":
        return "a table of " + " x ".join(str(extent) for extent in item.shape)
    if not item.shape:
        return f"one number ({item.dtype})"
    return f"{' x '.join(str(extent) for extent in item.shape)} numbers ({item.dtype})"


def column_words(item: DataRequest) -> str:
    parts = [", ".join(entry.columns) if entry.columns is not None else "all" for entry in item.inputs.all()]
    return "; ".join(parts)
