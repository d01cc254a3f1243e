"""Who calls: an access token in `Authorization: Bearer grd_...`, never in a URL or a cookie."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.accounts.models import AccessToken, User
from apps.accounts.queries import user_of_token
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
