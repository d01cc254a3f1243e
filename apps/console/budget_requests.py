"""Requests for budgets in the console: what is asked for, what there is, and a decision by the dataset's owner."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.models import User
from apps.budgets.pricing import pots_of
from apps.console.acts import Act, reason_field
from apps.console.base import GridAdmin, person
from apps.console.budgets import left_words
from apps.console.datarequests import TONES
from apps.console.show import Panel, link, when
from apps.datarequests import budgets as verbs
from apps.datarequests.models import BudgetRequest
from apps.datarequests.queries import budget_requests_visible_to
from apps.datarequests.transitions import BudgetState, State
from apps.permissions.policies import can_grant


class _Decide(Act):
    @classmethod
    def allowed(cls, user: User, obj: BudgetRequest) -> bool:
        return obj.requester_id != user.pk and can_grant(user, obj.dataset)

    @classmethod
    def possible(cls, user: User, obj: BudgetRequest) -> bool:
        return obj.state == BudgetState.SUBMITTED


class Approve(_Decide):
    label = "Approve"
    note = "It becomes a release grant with an allowance of its own, which you can revoke under Grants."
    tone = "good"
    epsilon = forms.FloatField(
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
        help_text="What was asked for, or less.",
    )
    reason = reason_field("The requester reads it, and it is kept with the grant.")

    def __init__(self, *args: Any, obj: BudgetRequest, **kwargs: Any) -> None:
        super().__init__(*args, obj=obj, initial={"epsilon": f"{obj.epsilon:g}"}, **kwargs)

    @classmethod
    def possible(cls, user: User, obj: BudgetRequest) -> bool:
        return super().possible(user, obj) and obj.requester.is_active

    def run(self) -> str:
        words = self.cleaned_data
        verbs.approve_budget(self.obj, reason=words["reason"], epsilon=words["epsilon"], by=self.user)
        return f"Approved: {self.obj.requester.username} has an allowance of epsilon {words['epsilon']:g}."


class Deny(_Decide):
    label = "Deny"
    tone = "danger"
    reason = reason_field("The requester reads it.")

    def run(self) -> str:
        verbs.deny_budget(self.obj, reason=self.cleaned_data["reason"], by=self.user)
        return "Denied. The requester sees your reason."


class Withdraw(Act):
    label = "Withdraw"

    @classmethod
    def allowed(cls, user: User, obj: BudgetRequest) -> bool:
        return obj.requester_id == user.pk

    @classmethod
    def possible(cls, user: User, obj: BudgetRequest) -> bool:
        return obj.state == BudgetState.SUBMITTED

    def run(self) -> str:
        verbs.withdraw_budget(self.obj, by=self.user)
        return "Withdrawn."


@admin.register(BudgetRequest)
class BudgetRequestAdmin(GridAdmin):
    plural = "Budget requests"
    empty = "Scientists ask with the client: node.request_budget(dataset, epsilon=1.0, reason=...). You decide here."
    role = "node"
    acts = (Approve, Deny, Withdraw)
    list_display = ["asked_for", "who", "on", "why", "status", "asked"]
    list_filter = ["state"]
    search_fields = ["requester__username", "dataset__slug", "reason"]
    search_help_text = "Search by person, dataset or reason"
    ordering = ["-created"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[BudgetRequest]:
        return budget_requests_visible_to(person(request))

    def heading(self, user: User, obj: BudgetRequest) -> str:
        return f"Epsilon {obj.epsilon:g} on {obj.dataset.name} for {obj.requester.username}"

    def panels(self, user: User, obj: BudgetRequest) -> list[Panel]:
        pot = pots_of([obj.dataset_id])[str(obj.dataset_id)]
        asked = [
            ("Requester", link(user, obj.requester)),
            ("Dataset", link(user, obj.dataset)),
            ("Epsilon", f"{obj.epsilon:g}"),
            ("Why", obj.reason),
            ("Left for all together", f"{left_words(pot)} of {pot.epsilon:g} (domain {pot.domain})"),
            ("Asked", obj.created),
        ]
        decision = [
            ("State", BudgetState(obj.state).label),
            ("Decided by", link(user, obj.decided_by) if obj.decided_by else ""),
            ("Decided", obj.decided_at),
            ("Reason of the decision", obj.decision),
            ("What was given", link(user, obj.grant, f"epsilon {obj.grant.allowance:g}") if obj.grant else ""),
        ]
        return [Panel("What is asked for", asked), Panel("Decision", decision)]

    @display(description="epsilon", ordering="epsilon_nano")
    def asked_for(self, item: BudgetRequest) -> str:
        return f"{item.epsilon:g}"

    @display(description="who", ordering="requester__username")
    def who(self, item: BudgetRequest) -> str:
        return item.requester.username

    @display(description="dataset", ordering="dataset__slug")
    def on(self, item: BudgetRequest) -> str:
        return item.dataset.slug

    @display(description="why")
    def why(self, item: BudgetRequest) -> str:
        return item.reason if len(item.reason) <= 60 else item.reason[:59] + "…"

    @display(
        description="state",
        ordering="state",
        label={BudgetState(state).label: TONES[State(state)] for state in BudgetState.values},
    )
    def status(self, item: BudgetRequest) -> str:
        return BudgetState(item.state).label

    @display(description="asked", ordering="created")
    def asked(self, item: BudgetRequest) -> str:
        return when(item.created)
