"""Accounts and teams in the console: make, close, open again, roles, passwords, members."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apps.accounts import actions as verbs
from apps.accounts.models import Role, Team, User
from apps.accounts.policies import can_manage_accounts
from apps.accounts.queries import resolve_users, teams_visible_to, users_visible_to
from apps.console.acts import Act
from apps.console.base import GridAdmin, person
from apps.console.password import TwicePassword, new_password_field
from apps.console.show import Panel, lines, link, when

STATUS = {"active": "success", "closed": "danger"}


class _Roles(forms.ModelMultipleChoiceField):
    def __init__(self) -> None:
        super().__init__(Role.objects.all(), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget)


class _ByManager(Act):
    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        return can_manage_accounts(user)


class NewAccount(_ByManager):
    label = "New account"
    username = forms.CharField(
        help_text="Lower case. It stays taken for ever, so that nobody inherits a name.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )
    password = new_password_field("Password")
    roles = _Roles()

    def run(self) -> User:
        words = self.cleaned_data
        return verbs.create_user(
            username=words["username"],
            password=words["password"],
            roles=[role.pk for role in words["roles"]],
            by=self.user,
        )


class ChangeRoles(_ByManager):
    label = "Change roles"
    note = "They hold at once, also in open sessions."
    roles = _Roles()

    def __init__(self, *args: Any, obj: User, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {"roles": [role.pk for role in obj.roles.all()]})
        super().__init__(*args, obj=obj, **kwargs)

    def run(self) -> str:
        verbs.set_roles(self.obj, roles=[role.pk for role in self.cleaned_data["roles"]], by=self.user)
        return f"The roles of {self.obj.username} are changed."


class SetPassword(_ByManager, TwicePassword):
    label = "Set a new password"
    note = "Every sign-in of this account ends. Tell the person the new password in another way than by the console."

    @classmethod
    def possible(cls, user: User, obj: User) -> bool:
        return not obj.is_federated and obj.is_active and obj.pk != user.pk

    def run(self) -> str:
        verbs.set_password(self.obj, password=self.cleaned_data["password"], by=self.user)
        return f"{self.obj.username} has a new password."


class Close(_ByManager):
    label = "Close account"
    note = "Its tokens and its sessions end now. The name stays taken; you can open the account again."
    tone = "danger"

    @classmethod
    def possible(cls, user: User, obj: User) -> bool:
        return obj.is_active

    def run(self) -> str:
        verbs.deactivate(self.obj, by=self.user)
        return f"{self.obj.username} is closed: tokens and sessions have ended."


class Reopen(_ByManager):
    label = "Open account again"
    note = "Tokens that were revoked stay so."

    @classmethod
    def possible(cls, user: User, obj: User) -> bool:
        return not obj.is_active

    def run(self) -> str:
        verbs.reactivate(self.obj, by=self.user)
        return f"{self.obj.username} may sign in again."


@admin.register(User)
class UserAdmin(GridAdmin):
    plural = "Accounts"
    empty = "An account for each person. Make the first one with the button above."
    new = NewAccount
    acts = (ChangeRoles, SetPassword, Close, Reopen)
    list_display = ["username", "role_names", "status", "vouched_by", "made_at", "signed_in"]
    list_filter = ["is_active", "roles"]
    search_fields = ["username"]
    search_help_text = "Search by username"

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return users_visible_to(person(request)).prefetch_related("roles")

    def panels(self, user: User, obj: User) -> list[Panel]:
        return [
            Panel(
                "Account",
                [
                    ("Username", obj.username),
                    ("State", self.status(obj)),
                    ("Roles", self.role_names(obj)),
                    ("Teams", [link(user, team) for team in obj.teams.all()]),
                    ("Signs in through", self.vouched_by(obj)),
                    ("Made", obj.created),
                    ("Last sign-in", obj.last_login or "never"),
                ],
            )
        ]

    @display(description="roles")
    def role_names(self, user: User) -> str:
        return ", ".join(role.title for role in user.roles.all()) or "none"

    @display(description="state", ordering="is_active", label=STATUS)
    def status(self, user: User) -> str:
        return "active" if user.is_active else "closed"

    @display(description="signs in through", ordering="federated_key")
    def vouched_by(self, user: User) -> str:
        return "a network" if user.is_federated else "this deployment"

    @display(description="made", ordering="created")
    def made_at(self, user: User) -> str:
        return when(user.created)

    @display(description="last sign-in", ordering="last_login")
    def signed_in(self, user: User) -> str:
        return when(user.last_login)


@admin.register(Role)
class RoleAdmin(GridAdmin):
    plural = "Roles"
    list_display = ["title", "name", "opens", "holders"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Role]:
        active = Count("users", filter=Q(users__is_active=True), distinct=True)
        return Role.objects.annotate(active=active)

    def panels(self, user: User, obj: Role) -> list[Panel]:
        holders = [link(user, each) for each in users_visible_to(user).filter(roles=obj, is_active=True)]
        facts = [
            ("Title", obj.title),
            ("In calls", obj.name),
            ("Capabilities", list(obj.capabilities)),
            ("Active accounts", lines(holders) or "nobody"),
        ]
        return [Panel("Role", facts)]

    @display(description="capabilities")
    def opens(self, role: Role) -> str:
        return ", ".join(role.capabilities)

    @display(description="active accounts", ordering="active")
    def holders(self, role: Any) -> int:
        return int(role.active)


class _Members(forms.CharField):
    def __init__(self) -> None:
        super().__init__(
            required=False,
            label="Members",
            help_text="Usernames, one on each line.",
            widget=UnfoldAdminTextareaWidget(attrs={"rows": 6, "spellcheck": "false"}),
        )


class NewTeam(_ByManager):
    label = "New team"
    slug_field = forms.CharField(
        label="Short name",
        help_text="Grants name it as team:short-name.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )
    name = forms.CharField(label="Name", required=False, widget=UnfoldAdminTextInputWidget)
    members = _Members()

    def run(self) -> Team:
        words = self.cleaned_data
        people = resolve_users(words["members"].split())
        return verbs.create_team(slug=words["slug_field"], name=words["name"], members=people, by=self.user)


class ChangeMembers(_ByManager):
    label = "Change members"
    note = "Who leaves loses what the team was given, at once."
    members = _Members()

    def __init__(self, *args: Any, obj: Team, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {"members": "\n".join(user.username for user in obj.members.all())})
        super().__init__(*args, obj=obj, **kwargs)

    def run(self) -> str:
        wanted = {name.lower() for name in self.cleaned_data["members"].split()}
        # A closed account that is a member may stay one; only an active one can become one.
        staying = [user for user in self.obj.members.all() if user.username in wanted]
        joining = resolve_users(sorted(wanted - {user.username for user in staying}))
        verbs.set_members(self.obj, members=[*staying, *joining], by=self.user)
        return f"{self.obj.name} has {len(staying) + len(joining)} members."


@admin.register(Team)
class TeamAdmin(GridAdmin):
    plural = "Teams"
    empty = "A team is given rights together. An administrator makes one; grants then name it as team:short-name."
    new = NewTeam
    acts = (ChangeMembers,)
    list_display = ["name", "slug", "size", "made_at"]
    search_fields = ["name", "slug"]
    search_help_text = "Search by name"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        return teams_visible_to(person(request)).annotate(size=Count("members", distinct=True))

    def panels(self, user: User, obj: Team) -> list[Panel]:
        members = [link(user, member) for member in obj.members.order_by("username")]
        return [
            Panel(
                "Team",
                [
                    ("Name", obj.name),
                    ("In grants", f"team:{obj.slug}"),
                    ("Members", lines(members) or "nobody yet"),
                    ("Made", obj.created),
                ],
            )
        ]

    @display(description="members", ordering="size")
    def size(self, team: Any) -> int:
        return int(team.size)

    @display(description="made", ordering="created")
    def made_at(self, team: Team) -> str:
        return when(team.created)
