"""Accounts in the console: make one, close it, open it again, change roles; teams; tokens to look at and to revoke."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse_lazy
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextInputWidget,
)

from apps.accounts import actions as verbs
from apps.accounts.models import AccessToken, Role, Team, User
from apps.accounts.queries import teams_visible_to, tokens_visible_to, users_visible_to
from apps.console.base import GridAdmin, attempt, person
from gridclient.wire.errors import GridError


class NewUserForm(forms.ModelForm):
    """Makes an account through the domain verb, so that its problems are the form's."""

    username = forms.CharField(widget=UnfoldAdminTextInputWidget)
    password = forms.CharField(
        widget=UnfoldAdminPasswordWidget, help_text="At least 8 characters, and not a common one."
    )
    roles = forms.ModelMultipleChoiceField(
        Role.objects.all(), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )
    by: User | None = None

    class Meta:
        model = User
        fields = ["username", "password", "roles"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            try:
                self.instance = verbs.create_user(
                    username=cleaned["username"],
                    password=cleaned["password"],
                    roles=[role.pk for role in cleaned["roles"]],
                    by=self.by,
                )
            except GridError as error:
                raise forms.ValidationError(error.message) from error
        return cleaned

    def _post_clean(self) -> None:
        """The verb has checked everything and saved."""

    def save(self, commit: bool = True) -> User:
        return self.instance

    def save_m2m(self) -> None:
        """The verb has set the roles."""


class RolesForm(forms.ModelForm):
    roles = forms.ModelMultipleChoiceField(
        Role.objects.all(), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )

    class Meta:
        model = User
        fields = ["roles"]


@admin.register(User)
class UserAdmin(GridAdmin):
    list_display = ["username", "role_names", "status", "vouched_by", "created", "last_login"]
    list_filter = ["is_active", "roles"]
    search_fields = ["username"]
    readonly_fields = ["username", "status", "vouched_by", "created", "last_login"]
    actions_detail = ["deactivate", "reactivate"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return users_visible_to(person(request)).prefetch_related("roles")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return person(request).has("accounts.manage")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return person(request).has("accounts.manage")

    def has_switch_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return person(request).has("accounts.manage")

    def get_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        return ["username", "password", "roles"] if obj is None else ["roles", *self.readonly_fields]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        return [] if obj is None else self.readonly_fields

    def get_form(self, request: HttpRequest, obj: User | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            return super().get_form(request, obj, change, form=RolesForm, **kwargs)
        return type("NewUser", (NewUserForm,), {"by": person(request)})

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Accounts are saved by verbs: creation in the form, roles in `save_related`."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        if change and "roles" in form.changed_data:
            roles = [role.pk for role in form.cleaned_data["roles"]]
            attempt(
                request,
                lambda: verbs.set_roles(form.instance, roles=roles, by=person(request)),
                "The new roles hold from now on.",
            )

    @display(description="roles")
    def role_names(self, user: User) -> str:
        return ", ".join(role.title for role in user.roles.all()) or "none"

    @display(description="status", label={"active": "success", "closed": "danger"})
    def status(self, user: User) -> str:
        return "active" if user.is_active else "closed"

    @display(description="signs in through")
    def vouched_by(self, user: User) -> str:
        return "a network" if user.is_federated else "this deployment"

    @action(description="Close account", url_path="deactivate", permissions=["switch"])
    def deactivate(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        user = users_visible_to(person(request)).get(pk=object_id)
        attempt(
            request,
            lambda: verbs.deactivate(user, by=person(request)),
            f"{user.username} is closed: tokens and sessions have ended. The name stays taken.",
        )
        return redirect("admin:accounts_user_change", object_id)

    @action(description="Open account again", url_path="reactivate", permissions=["switch"])
    def reactivate(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        user = users_visible_to(person(request)).get(pk=object_id)
        attempt(request, lambda: verbs.reactivate(user, by=person(request)), f"{user.username} may sign in again.")
        return redirect("admin:accounts_user_change", object_id)


@admin.register(Team)
class TeamAdmin(GridAdmin):
    list_display = ["name", "slug", "size", "created"]
    search_fields = ["name", "slug"]
    fields = ["slug", "name", "members", "created"]
    filter_horizontal = ["members"]
    readonly_fields = ["created"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        return teams_visible_to(person(request)).prefetch_related("members")

    @display(description="members")
    def size(self, team: Team) -> int:
        return len(team.members.all())


@admin.register(AccessToken)
class AccessTokenAdmin(GridAdmin):
    list_display = ["__str__", "user", "name", "kind", "status", "created", "expires", "last_used"]
    list_filter = ["kind"]
    search_fields = ["name", "user__username", "prefix"]
    list_select_related = ["user"]
    fields = ["user", "name", "kind", "prefix", "created", "expires", "revoked_at", "last_used"]
    actions_detail = ["revoke"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessToken]:
        return tokens_visible_to(person(request))

    @display(description="status", label={"good": "success", "revoked": "danger"})
    def status(self, token: AccessToken) -> str:
        return "good" if token.revoked_at is None else "revoked"

    @action(description="Revoke", url_path="revoke")
    def revoke(self, request: HttpRequest, object_id: int) -> HttpResponseRedirect:
        token = tokens_visible_to(person(request)).get(pk=object_id)
        attempt(
            request,
            lambda: verbs.revoke_token(token, by=person(request)),
            "The token is worth nothing any more; connections that were opened with it are closed.",
        )
        return redirect(reverse_lazy("admin:accounts_accesstoken_change", args=[object_id]))
