"""Grants in the console: give one, look at all, take one back."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.accounts.models import Team, User
from apps.accounts.queries import resolve_users, teams_visible_to
from apps.console.acts import Act, reason_field
from apps.console.base import GridAdmin, person
from apps.console.filters import ByDataset
from apps.console.show import Panel, link, when
from apps.core import clock
from apps.datasets.models import Dataset
from apps.permissions import actions as verbs
from apps.permissions.models import Grant
from apps.permissions.policies import can_grant
from apps.permissions.queries import datasets_owned_by, grants_visible_to
from gridclient.wire.errors import InvalidInputError

MEANINGS = {
    "discover": "discover: see name, columns, bounds and mock data",
    "compute": "compute: build programs and ask through the queue",
    "release": "release: private answers with noise, within a budget",
    "aggregate": "aggregate: exact counts, sums, means, variances, products and histograms; it reveals what is listed",
    "train": "train: take models trained on it and their losses; for a determined analyst as much as read",
    "read": "read: copy the values",
}
REVEALED = (
    "What aggregate reveals, exactly and of each version: how many records there are; the sum, mean and variance of "
    "each column with bounds; the product of each two of them, hence their covariances and every linear regression; "
    "the histogram of each column with declared edges or categories; all of these for each group of each declared "
    "partition. Checks keep single people from standing out; they do not stop somebody who is determined to combine "
    "the answers."
)
STATUS = {"holds": "success", "revoked": "danger", "expired": "warning"}


class GiveRight(Act):
    label = "Give a right"
    dataset = forms.ModelChoiceField(Dataset.objects.none(), widget=UnfoldAdminSelectWidget)
    to = forms.CharField(
        label="To",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="A username; a team as team:short-name; someone from the network as name@network.",
    )
    right = forms.ChoiceField(
        choices=list(MEANINGS.items()),
        widget=UnfoldAdminSelectWidget,
        help_text=f"{REVEALED} Nothing in train hides single people: a program can write their values into the "
        "weights of a model. Give it to people whom you would trust with the rows.",
    )
    columns = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Separated by commas; empty: all columns.",
    )
    epsilon = forms.FloatField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
        help_text="For release: the allowance, of the epsilon that the dataset's people have in all; empty: answers of "
        "at most 0.5, and a quarter of it a day.",
    )
    programs = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="For train: hashes of the programs that it is for, separated by commas; empty: any program.",
    )
    expires = forms.DateField(
        label="Last day",
        required=False,
        help_text="Empty: until you revoke it.",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
    )
    reason = reason_field("Kept with the grant and in the audit log.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = datasets_owned_by(self.user)  # type: ignore[attr-defined]

    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        return datasets_owned_by(user).exists()

    def run(self) -> Grant:
        words = self.cleaned_data
        return verbs.give(
            words["dataset"],
            to=self._receiver(words["to"].strip()),
            right=words["right"],
            columns=_listed(words["columns"]),
            programs=_listed(words["programs"]),
            epsilon=words["epsilon"],
            expires=datetime.combine(words["expires"], time.max, tzinfo=UTC) if words["expires"] else None,
            reason=words["reason"],
            by=self.user,
        )

    def _receiver(self, name: str) -> User | Team:
        if not name.startswith("team:"):
            return resolve_users([name])[0]
        team = teams_visible_to(self.user).filter(slug=name.removeprefix("team:")).first()
        if team is None:
            raise InvalidInputError(
                f"There is no team {name.removeprefix('team:')!r}. The list of teams has their names."
            )
        return team


def _allowance(grant: Grant) -> str:
    if grant.right != "release":
        return ""
    return "the default" if grant.allowance is None else f"{grant.allowance:g}"


def _listed(text: str) -> list[str] | None:
    """What is between the commas; None for nothing."""
    return [part.strip() for part in text.split(",") if part.strip()] or None


class Revoke(Act):
    label = "Revoke"
    note = "The right ends now, also in open sessions. What was taken before stays with who took it."
    tone = "danger"

    @classmethod
    def allowed(cls, user: User, obj: Grant) -> bool:
        return can_grant(user, obj.dataset)

    @classmethod
    def possible(cls, user: User, obj: Grant) -> bool:
        return status_of(obj) == "holds"

    def run(self) -> str:
        verbs.revoke(self.obj, by=self.user)
        return "The right has ended."


class StillHolds(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("holds", "Holds"), ("over", "Revoked or expired")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Grant]) -> QuerySet[Grant]:
        holds = Q(revoked_at=None) & (Q(expires=None) | Q(expires__gt=clock.now()))
        return {"holds": queryset.filter(holds), "over": queryset.exclude(holds)}.get(self.value() or "", queryset)


@admin.register(Grant)
class GrantAdmin(GridAdmin):
    plural = "Grants"
    empty = "Who may use which dataset, beyond what its visibility allows. The owner of a dataset gives rights."
    role = "node"
    new = GiveRight
    acts = (Revoke,)
    list_display = ["receiver", "right_shown", "on", "status", "ends", "given_by", "given_at"]
    list_filter = [StillHolds, "right", ByDataset]
    search_fields = ["user__username", "team__slug", "dataset__slug", "reason"]
    search_help_text = "Search by person, team, dataset or reason"
    list_select_related = ["dataset", "user", "team", "given_by"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Grant]:
        return grants_visible_to(person(request))

    def initial(self, request: HttpRequest) -> dict[str, Any]:
        return {"dataset": datasets_owned_by(person(request)).filter(slug=request.GET.get("of", "")).first()}

    def heading(self, user: User, obj: Grant) -> str:
        return f"{obj.right} on {obj.dataset.name} for {self.receiver(obj)}"

    def panels(self, user: User, obj: Grant) -> list[Panel]:
        facts = [
            ("To", self.receiver(obj)),
            ("Right", MEANINGS[obj.right]),
            ("It reveals", REVEALED if obj.right == "aggregate" else ""),
            ("Dataset", link(user, obj.dataset)),
            ("Columns", "all" if obj.columns is None else ", ".join(obj.columns)),
            ("Only for", f"the approved program {obj.program_hash[:16]}…" if obj.program_hash else ""),
            ("Epsilon", _allowance(obj)),
            ("Programs", "" if obj.right != "train" else ", ".join(obj.programs or ["any"])),
            ("State", status_of(obj)),
            ("Reason", obj.reason),
            ("Given by", link(user, obj.given_by)),
            ("Given", obj.created),
            ("Expires", obj.expires or "never"),
            ("Revoked", obj.revoked_at),
        ]
        return [Panel("Grant", facts)]

    @display(description="to", ordering="user__username")
    def receiver(self, grant: Grant) -> str:
        return f"team:{grant.team.slug}" if grant.team else str(grant.user)

    @display(description="right", ordering="right")
    def right_shown(self, grant: Grant) -> str:
        return f"{grant.right}, one program" if grant.program_hash else grant.right

    @display(description="dataset", ordering="dataset__slug")
    def on(self, grant: Grant) -> str:
        return grant.dataset.slug

    @display(description="state", label=STATUS)
    def status(self, grant: Grant) -> str:
        return status_of(grant)

    @display(description="expires", ordering="expires")
    def ends(self, grant: Grant) -> str:
        return when(grant.expires) if grant.expires else "never"

    @display(description="given", ordering="created")
    def given_at(self, grant: Grant) -> str:
        return when(grant.created)


def status_of(grant: Grant) -> str:
    """holds, revoked or expired."""
    if grant.revoked_at is not None:
        return "revoked"
    return "holds" if grant.expires is None or clock.now() < grant.expires else "expired"
