"""Access tokens in the console: one's own to make (the text is shown once), and to revoke."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from apps.accounts import actions as verbs
from apps.accounts.models import AccessToken, User
from apps.accounts.policies import can_act_for
from apps.accounts.queries import tokens_visible_to
from apps.accounts.scopes import WORDS
from apps.console.acts import Act
from apps.console.base import GridAdmin, person
from apps.console.show import Panel, link, page_of, when
from apps.core import clock


class NewToken(Act):
    label = "New access token"
    note = "For programs that act in your name. Its text is shown once, on the next page."
    name = forms.CharField(
        label="Name",
        max_length=100,
        help_text="What it is for, so that you know which to revoke.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )
    expires = forms.DateField(
        label="Last day",
        required=False,
        help_text="At most a year from now; empty: 90 days.",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
    )

    scopes = forms.MultipleChoiceField(
        label="For",
        required=False,
        choices=[(scope.value, f"{scope}: {words}") for scope, words in WORDS.items()],
        help_text="None ticked: all that your account may do.",
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        return user.has("compute.use") and not user.is_federated

    def run(self) -> tuple[AccessToken, str]:
        day = self.cleaned_data["expires"]
        expires = datetime.combine(day, time.max, tzinfo=UTC) if day else None
        return verbs.create_token(
            user=self.user,
            name=self.cleaned_data["name"],
            expires=expires,
            scopes=self.cleaned_data["scopes"] or None,
            by=self.user,
        )


class Revoke(Act):
    label = "Revoke"
    note = "It ends now, and so do the sessions that were opened with it. This cannot be taken back."
    tone = "danger"

    @classmethod
    def allowed(cls, user: User, obj: AccessToken) -> bool:
        return can_act_for(user, obj.user)

    @classmethod
    def possible(cls, user: User, obj: AccessToken) -> bool:
        return _status(obj) == "live"

    def run(self) -> str:
        verbs.revoke_token(self.obj, by=self.user)
        return f"{self.obj} is revoked."


class StillLive(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("live", "Live"), ("over", "Revoked or expired")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AccessToken]) -> QuerySet[AccessToken]:
        live = Q(revoked_at=None, expires__gt=clock.now())
        return {"live": queryset.filter(live), "over": queryset.exclude(live)}.get(self.value() or "", queryset)


@admin.register(AccessToken)
class AccessTokenAdmin(GridAdmin):
    plural = "Access tokens"
    empty = "Programs sign in with a token. Make one with the button above, or by signing in with the client."
    new = NewToken
    acts = (Revoke,)
    list_display = ["name", "start", "user", "kind", "status", "made_at", "ends", "used"]
    list_filter = [StillLive, "kind"]
    search_fields = ["name", "user__username", "prefix"]
    search_help_text = "Search by name, user or prefix"
    list_select_related = ["user"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return person(request).is_staff

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessToken]:
        return tokens_visible_to(person(request)).defer("digest")

    def heading(self, user: User, obj: AccessToken) -> str:
        return f"{obj.name} ({obj.user.username})"

    def made(self, request: HttpRequest, obj: tuple[AccessToken, str]) -> HttpResponse:
        token, text = obj
        context = {**self._frame(request, token.name), "token": token, "text": text, "page": page_of(token)}
        return TemplateResponse(request, "console/token.html", context)

    def panels(self, user: User, obj: AccessToken) -> list[Panel]:
        facts = [
            ("Name", obj.name),
            ("Begins with", f"grd_{obj.prefix}_"),
            ("State", _status(obj)),
            ("Of", link(user, obj.user)),
            ("Kind", obj.get_kind_display()),
            ("For", "all that the account may do" if obj.scopes is None else ", ".join(obj.scopes)),
            ("Made", obj.created),
            ("Expires", obj.expires),
            ("Last used", obj.last_used or "never"),
            ("Revoked", obj.revoked_at),
        ]
        return [Panel("Token", facts)]

    @display(description="begins with", ordering="prefix")
    def start(self, token: AccessToken) -> str:
        return f"grd_{token.prefix}_"

    @display(description="state", label={"live": "success", "revoked": "danger", "expired": "warning"})
    def status(self, token: AccessToken) -> str:
        return _status(token)

    @display(description="made", ordering="created")
    def made_at(self, token: AccessToken) -> str:
        return when(token.created)

    @display(description="expires", ordering="expires")
    def ends(self, token: AccessToken) -> str:
        return when(token.expires)

    @display(description="last used", ordering="last_used")
    def used(self, token: AccessToken) -> str:
        return when(token.last_used)


def _status(token: AccessToken) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "live" if clock.now() < token.expires else "expired"
