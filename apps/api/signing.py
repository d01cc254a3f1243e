"""Sign in for a token of twelve hours, sign out, and who am I?"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import actions
from apps.accounts.scopes import Scope
from apps.api import inputs, outputs
from apps.api.views import View, caller, token_of
from apps.core.clock import now
from apps.network.identity import node_id

SESSION = timedelta(hours=12)


class SignIn(View):
    """POST {username, password} -> {token, expires, user}. The one route that takes a password."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        body, moment = inputs.read(request, inputs.SignIn), now()
        address = request.META.get("REMOTE_ADDR", "")
        user = actions.sign_in(username=body.username, password=body.password, address=address, now=moment)
        token, text = actions.create_token(user=user, name="sign-in", expires=moment + SESSION, by=user, kind="session")
        return Response({"token": text, "expires": token.expires, "user": outputs.me(user)})


class SignOut(View):
    """POST: the token that was used is revoked; sockets that are open on it are closed."""

    scope = Scope.READ

    def post(self, request: Request) -> Response:
        actions.revoke_token(token_of(request), by=caller(request))
        return Response(status=204)


class Me(View):
    """GET -> {id, username, roles, rights, scopes, node: {id, name}}; `scopes` are the token's, None for all."""

    def get(self, request: Request) -> Response:
        node = {"id": node_id(), "name": settings.GRID_NAME}
        return Response({**outputs.me(caller(request)), "scopes": token_of(request).scopes, "node": node})
