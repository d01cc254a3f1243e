"""Grants in the console: give one, look at all, take one back."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apps.accounts.models import Team, User
from apps.accounts.queries import resolve_users
from apps.console.base import GridAdmin, attempt, person
from apps.datasets.models import Dataset
from apps.permissions import actions as verbs
from apps.permissions.models import Grant
from apps.permissions.queries import datasets_visible_to, grants_visible_to
from gridclient.wire.errors import GridError

MEANINGS = [
    ("discover", "discover: see name, columns, bounds and mock data"),
    ("compute", "compute: build programs and ask through the queue"),
    ("aggregate", "aggregate: exact count, sum and mean over all rows"),
    ("read", "read: copy the values"),
]


class NewGrantForm(forms.ModelForm):
    """Gives a grant through the domain verb."""

    to = forms.CharField(
        label="to",
        widget=UnfoldAdminTextInputWidget,
        help_text="A username; a team as team:name; someone from the network as dana@network.",
    )
    right = forms.ChoiceField(choices=MEANINGS, widget=UnfoldAdminSelectWidget)
    expires = forms.SplitDateTimeField(required=False, widget=UnfoldAdminSplitDateTimeWidget)
    reason = forms.CharField(widget=UnfoldAdminTextareaWidget)
    by: User

    class Meta:
        model = Grant
        fields = ["dataset"]
        widgets = {"dataset": UnfoldAdminSelectWidget}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = datasets_visible_to(self.by).filter(ownership__owner=self.by)
        self.fields["dataset"].queryset = mine  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            try:
                self.instance = verbs.give(
                    cleaned["dataset"],
                    to=self._receiver(cleaned["to"]),
                    right=cleaned["right"],
                    expires=cleaned["expires"],
                    reason=cleaned["reason"],
                    by=self.by,
                )
            except GridError as error:
                raise forms.ValidationError(error.message) from error
        return cleaned

    def _receiver(self, name: str) -> User | Team:
        if name.startswith("team:"):
            team = Team.objects.filter(slug=name.removeprefix("team:")).first()
            if team is None:
                raise forms.ValidationError(f"There is no team {name!r}.")
            return team
        return resolve_users([name])[0]

    def _post_clean(self) -> None:
        """The verb has checked everything and saved."""

    def save(self, commit: bool = True) -> Grant:
        return self.instance

    def save_m2m(self) -> None:
        """A grant has no many-to-many fields."""


@admin.register(Grant)
class GrantAdmin(GridAdmin):
    list_display = ["dataset", "receiver", "right", "status", "expires", "given_by", "created"]
    list_filter = ["right", "dataset"]
    search_fields = ["user__username", "team__slug", "dataset__slug", "reason"]
    list_select_related = ["dataset", "user", "team", "given_by"]
    readonly_fields = [
        "dataset",
        "receiver",
        "right",
        "columns",
        "expires",
        "reason",
        "given_by",
        "created",
        "revoked_at",
    ]
    actions_detail = ["revoke"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Grant]:
        return grants_visible_to(person(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return Dataset.objects.filter(ownership__owner=person(request)).exists()

    def get_fields(self, request: HttpRequest, obj: Grant | None = None) -> list[str]:
        return ["dataset", "to", "right", "expires", "reason"] if obj is None else self.readonly_fields

    def get_readonly_fields(self, request: HttpRequest, obj: Grant | None = None) -> list[str]:
        return [] if obj is None else self.readonly_fields

    def get_form(self, request: HttpRequest, obj: Grant | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs)
        return type("NewGrant", (NewGrantForm,), {"by": person(request)})

    def save_model(self, request: HttpRequest, obj: Grant, form: Any, change: bool) -> None:
        """The form's verb has saved it."""

    @display(description="to")
    def receiver(self, grant: Grant) -> str:
        return f"team {grant.team.slug}" if grant.team else str(grant.user)

    @display(description="status", label={"holds": "success", "revoked": "danger"})
    def status(self, grant: Grant) -> str:
        return "holds" if grant.revoked_at is None else "revoked"

    @action(description="Revoke", url_path="revoke")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        grant = get_object_or_404(grants_visible_to(person(request)), pk=object_id)
        attempt(request, lambda: verbs.revoke(grant, by=person(request)), "The grant ends now, also in open sessions.")
        return redirect("admin:permissions_grant_change", object_id)
