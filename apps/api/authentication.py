"""Who calls, and what for: an access token in `Authorization: Bearer grd_...`, never in a URL or a cookie."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from apps.accounts.models import AccessToken, User
from apps.accounts.queries import user_of_token
from apps.accounts.scopes import Scope, check_scope
from apps.core.clock import now
from gridclient.wire.errors import AuthenticationError

SCHEME = "Bearer"


class TokenAuthentication(BaseAuthentication):
    """`request.user` is the account, `request.auth` its token. Without the header: nobody."""

    def authenticate(self, request: Request) -> tuple[User, AccessToken] | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != SCHEME.lower() or not text:
            raise AuthenticationError("The Authorization header must be 'Bearer ' and an access token.")
        return user_of_token(text.strip(), now=now())

    def authenticate_header(self, request: Request) -> str:
        return SCHEME


class InScope(BasePermission):
    """Whether the token may be used for this: to change anything it needs the view's `scope`, or else "govern"."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if isinstance(request.auth, AccessToken) and request.method not in SAFE_METHODS:
            check_scope(request.auth.scopes, getattr(view, "scope", Scope.GOVERN))
        return True
