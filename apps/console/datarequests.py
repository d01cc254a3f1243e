"""The queue in the console: what needs me first, and a page on which one decides."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from unfold.decorators import display

from apps.accounts.models import User
from apps.console.acts import Act, reason_field
from apps.console.base import GridAdmin, person
from apps.console.filters import ByInput
from apps.console.show import Panel, link, page_of, times, when
from apps.datarequests import actions as verbs
from apps.datarequests.models import DataRequest, RequestInput
from apps.datarequests.policies import can_approve, can_decide
from apps.datarequests.queries import requests_i_may_decide, requests_visible_to, visible_inputs, words_for
from apps.datarequests.transitions import State
from apps.permissions.queries import datasets_visible_to

TONES = {
    State.SUBMITTED: "warning",
    State.APPROVED: "info",
    State.DELIVERED: "success",
    State.DENIED: "danger",
    State.WITHDRAWN: "default",
}
LABEL_WORDS = {
    "rows": "values of single people",
    "agg": "a sum over people, exact",
    "tainted": "depends on private values in a way that no rule bounds",
}
EARLIER = 5


class _Decide(Act):
    """The page sends `seen`, the stamp of what the person looked at; each showing of the form has a fresh one."""

    reason = reason_field("The requester reads it.")

    @classmethod
    def allowed(cls, user: User, obj: DataRequest) -> bool:
        # Once it is decided, who comes late is told what became of it.
        late = obj.state != State.SUBMITTED and obj.requester_id != user.pk and _decides(user)
        return late or can_decide(user, obj)

    @classmethod
    def possible(cls, user: User, obj: DataRequest) -> bool:
        return can_decide(user, obj)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        cleaned["seen"] = parse_datetime(self.data.get("seen", ""))
        if cleaned["seen"] is None:
            raise forms.ValidationError("This page was incomplete. Read the request again, then decide.")
        return cleaned


class Approve(_Decide):
    label = "Approve"
    tone = "good"

    @classmethod
    def possible(cls, user: User, obj: DataRequest) -> bool:
        return can_approve(user, obj)

    def run(self) -> str:
        words = self.cleaned_data
        verbs.approve(self.obj, reason=words["reason"], seen=words["seen"], by=self.user)
        return "Approved. The program runs now, and the requester receives its answer."


class Deny(_Decide):
    label = "Deny"
    tone = "danger"

    def run(self) -> str:
        words = self.cleaned_data
        verbs.deny(self.obj, reason=words["reason"], seen=words["seen"], by=self.user)
        return "Denied. The requester sees your reason."


class Withdraw(Act):
    label = "Withdraw"
    note = "Nobody decides on it any more. You can ask again."
    tone = "danger"

    @classmethod
    def allowed(cls, user: User, obj: DataRequest) -> bool:
        return obj.requester_id == user.pk

    @classmethod
    def possible(cls, user: User, obj: DataRequest) -> bool:
        return obj.state == State.SUBMITTED

    def run(self) -> str:
        verbs.withdraw(self.obj, by=self.user)
        return "Withdrawn."


class NeedsMe(admin.SimpleListFilter):
    """What waits for the person who looks. The sidebar leads there as long as something does."""

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
    plural = "Requests"
    empty = "What people ask for, beyond what they were granted, waits here for a decision. Nobody has asked yet."
    role = "node"
    acts = (Approve, Deny, Withdraw)
    page_template = "console/request.html"
    list_display = ["asked_for", "who", "why", "columns", "status", "asked"]
    list_filter = [NeedsMe, "state", ByInput]
    search_fields = ["requester__username", "reason"]
    search_help_text = "Search by requester or reason"
    ordering = ["created"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if super().has_view_permission(request, obj):
            return True
        user = person(request)
        return self.role == settings.GRID_ROLE and user.is_staff and requests_visible_to(user).exists()

    def get_queryset(self, request: HttpRequest) -> QuerySet[DataRequest]:
        user = person(request)
        inputs = RequestInput.objects.select_related("dataset")
        if not (user.has("requests.review") or user.has("everything.read")):
            # A program may read, beside mine, a dataset that I may not know of.
            inputs = inputs.filter(Q(dataset__in=datasets_visible_to(user)) | Q(request__requester=user))
        known = Prefetch("inputs", inputs, to_attr="known_inputs")
        return requests_visible_to(user).prefetch_related(known)

    def heading(self, user: User, obj: DataRequest) -> str:
        return f"{shape_words(obj)} for {obj.requester.username}"

    def panels(self, user: User, obj: DataRequest) -> list[Panel]:
        known = visible_inputs(user, [obj])
        asked: list[tuple[str, Any]] = [("Requester", link(user, obj.requester)), ("Why", obj.reason)]
        for entry in obj.inputs.all():
            if entry.dataset_id in known:
                asked += [
                    ("Dataset", link(user, entry.dataset, f"{entry.dataset.name} ({entry.dataset.slug})")),
                    ("Version", entry.version),
                    ("Columns", _columns(entry)),
                ]
            else:
                asked += [("Dataset", "one that is not for you")]
        asked += [
            ("What would leave", f"{shape_words(obj)}"),
            ("That is", LABEL_WORDS.get(obj.label, obj.label)),
        ]
        course: list[tuple[str, Any]] = [("Asked", obj.created)]
        if obj.state == State.WITHDRAWN:
            course += [("Withdrawn", obj.updated)]
        if obj.decided_by is not None:
            course += [
                ("Denied by" if obj.state == State.DENIED else "Approved by", link(user, obj.decided_by)),
                ("Decided", obj.decided_at),
                ("Reason of the decision", obj.decision_reason),
            ]
        course += [("Answered", obj.answered_at), ("Delivered", obj.delivered_at), ("Failure", obj.failure)]
        return [Panel("What is asked for", asked), Panel("What has happened", course)]

    def context(self, request: HttpRequest, user: User, obj: DataRequest) -> dict[str, Any]:
        turn = list(requests_i_may_decide(user).exclude(pk=obj.pk))
        following = [each for each in turn if (each.created, each.pk) > (obj.created, obj.pk)] or turn
        earlier = requests_visible_to(user).filter(requester=obj.requester).exclude(pk=obj.pk)
        counts = earlier.order_by("state").values_list("state").annotate(Count("pk"))
        return {
            "item": obj,
            "seen": obj.updated.isoformat(),
            "words": words_for(obj, visible_inputs(user, [obj])),
            "state": State(obj.state).label,
            "tone": TONES[State(obj.state)],
            "counts": [(State(state).label, number) for state, number in counts],
            "earlier": [
                (page_of(each), shape_words(each), State(each.state).label, when(each.created))
                for each in earlier.order_by("-created")[:EARLIER]
            ],
            "waiting": len(turn),
            "next_request": page_of(following[0]) if following else "",
            "own": obj.requester_id == user.pk,
            "undecided": obj.state == State.SUBMITTED,
            "closed_account": can_decide(user, obj) and not can_approve(user, obj),
        }

    @display(description="asked for")
    def asked_for(self, item: Any) -> str:
        names = [entry.dataset.slug for entry in item.known_inputs]
        hidden = ["another dataset"] if len(names) < len(item.inputs.all()) else []
        return f"{shape_words(item)} from {', '.join([*sorted(set(names)), *hidden])}"

    @display(description="who", ordering="requester__username")
    def who(self, item: DataRequest) -> str:
        return item.requester.username

    @display(description="why")
    def why(self, item: DataRequest) -> str:
        return item.reason if len(item.reason) <= 60 else item.reason[:59] + "…"

    @display(description="columns")
    def columns(self, item: Any) -> str:
        return "; ".join(_columns(entry) for entry in item.known_inputs)

    @display(description="state", ordering="state", label={State(state).label: tone for state, tone in TONES.items()})
    def status(self, item: DataRequest) -> str:
        return State(item.state).label

    @display(description="asked", ordering="created")
    def asked(self, item: DataRequest) -> str:
        return when(item.created)


def shape_words(item: DataRequest) -> str:
    """What would leave, in words: "one number", "84 × 2 numbers", "a table of 84 × 3", "a model of 4 tensors ..."."""
    if item.kind == "state":
        tensors, size = item.shape
        return f"a model of {tensors} tensor{'s' if tensors > 1 else ''} with {size} numbers"
    if item.kind == "table":
        return f"a table of {times(item.shape)}"
    return f"{times(item.shape)} numbers ({item.dtype})" if item.shape else f"one number ({item.dtype})"


def _columns(entry: RequestInput) -> str:
    if entry.columns is None:
        return "all"
    return ", ".join(entry.columns) or "none: only the number of rows"


def _decides(user: User) -> bool:
    return user.has("requests.review") or user.has("datasets.publish")
