"""Accounts, teams and access tokens."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import actions
from apps.accounts.models import User
from apps.accounts.names import normal
from apps.accounts.policies import check_can_manage_accounts
from apps.accounts.queries import resolve_users, teams_visible_to, tokens_visible_to, users_visible_to
from apps.accounts.scopes import narrowed
from apps.api import inputs, outputs
from apps.api.paging import each, page
from apps.api.views import KEY, View, caller, find, no_key_here, token_of
from gridclient.wire.errors import InvalidInputError


class Users(View):
    """GET: those that I may see. POST {username, password, roles}."""

    keyed = True

    def get(self, request: Request) -> Response:
        return page(request, users_visible_to(caller(request)), each(outputs.user))

    def post(self, request: Request) -> Response:
        body = inputs.read(request, inputs.NewUser)
        made = actions.create_user(username=body.username, password=body.password, roles=body.roles, by=caller(request))
        return Response(outputs.user(made), status=201)


class OneUser(View):
    """GET; PATCH {roles, active, password}: all of it or nothing. One's own password: {password, old_password}."""

    keyed = True

    def get(self, request: Request, username: str) -> Response:
        return Response(outputs.user(find(users_visible_to(caller(request)), username=normal(username))))

    def patch(self, request: Request, username: str) -> Response:
        by = caller(request)
        user = find(users_visible_to(by), username=normal(username))
        body = inputs.read(request, inputs.UserChange)
        named = inputs.changes(body)
        if user.pk == by.pk and named.keys() & {"password", "old_password"}:
            _change_own_password(request, user, named)
        elif "old_password" in named:
            raise InvalidInputError("old_password goes with a new password of one's own.", field="old_password")
        else:
            _change(user, body, by=by)
        return Response(outputs.user(find(users_visible_to(by), pk=user.pk)))


@transaction.atomic
def _change(user: User, body: inputs.UserChange, *, by: User) -> None:
    if isinstance(body.roles, list):
        actions.set_roles(user, roles=body.roles, by=by)
    if isinstance(body.password, str):
        actions.set_password(user, password=body.password, by=by)
    if isinstance(body.active, bool):
        (actions.reactivate if body.active else actions.deactivate)(user, by=by)


def _change_own_password(request: Request, user: User, named: dict[str, Any]) -> None:
    """Outside any transaction, in which a failed guess would be forgotten: hence nothing else goes with it, no key."""
    if KEY in request.headers:
        raise no_key_here()
    if named.keys() != {"password", "old_password"}:
        missing = "old_password" if "password" in named else "password"
        raise InvalidInputError(
            "Your own password is changed by itself, with password and old_password (the present one).", field=missing
        )
    actions.change_password(
        user,
        old=named["old_password"],
        password=named["password"],
        address=request.META.get("REMOTE_ADDR", ""),
        keep=token_of(request),
    )


class Teams(View):
    """GET: those that I may see. POST {slug, name, members}."""

    keyed = True

    def get(self, request: Request) -> Response:
        return page(request, teams_visible_to(caller(request)), each(outputs.team))

    def post(self, request: Request) -> Response:
        body, by = inputs.read(request, inputs.NewTeam), caller(request)
        # Before names are looked up: who has no say here must not learn which of them exist.
        check_can_manage_accounts(by)
        made = actions.create_team(
            slug=body.slug, name=body.name or body.slug, members=resolve_users(body.members), by=by
        )
        return Response(outputs.team(made), status=201)


class OneTeam(View):
    """GET; PATCH {members}: the new list, whole."""

    keyed = True

    def get(self, request: Request, slug: str) -> Response:
        return Response(outputs.team(find(teams_visible_to(caller(request)), slug=normal(slug))))

    def patch(self, request: Request, slug: str) -> Response:
        by = caller(request)
        team = find(teams_visible_to(by), slug=normal(slug))
        body = inputs.read(request, inputs.TeamChange)
        check_can_manage_accounts(by)
        actions.set_members(team, members=resolve_users(body.members), by=by)
        return Response(outputs.team(find(teams_visible_to(by), pk=team.pk)))


class Tokens(View):
    """GET: those that I may see, never their text. POST {user, name, expires, scopes}: the text is shown this once."""

    def get(self, request: Request) -> Response:
        return page(request, tokens_visible_to(caller(request)), each(outputs.token))

    def post(self, request: Request) -> Response:
        body, by = inputs.read(request, inputs.NewToken), caller(request)
        user = by if body.user is None else find(users_visible_to(by), username=normal(body.user))
        expires = inputs.moment(body.expires, "expires")
        scopes = narrowed(body.scopes, token_of(request).scopes)
        made, text = actions.create_token(user=user, name=body.name, expires=expires, scopes=scopes, by=by)
        return Response({**outputs.token(made), "token": text}, status=201)


class OneToken(View):
    """DELETE: revoke."""

    keyed = True

    def delete(self, request: Request, prefix: str) -> Response:
        by = caller(request)
        actions.revoke_token(find(tokens_visible_to(by), prefix=prefix), by=by)
        return Response(status=204)
