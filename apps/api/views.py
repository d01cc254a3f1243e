"""What all views share: they find objects among those that the caller may see, translate, and decide nothing."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.accounts.models import AccessToken, User
from apps.api.errors import ABSENT
from gridclient.wire.errors import InternalError, NotFoundError

M = TypeVar("M", bound=Model)


def find(visible: QuerySet[M], **lookup: Any) -> M:
    """The object, out of what the caller may see. Raises NotFoundError alike for absent and forbidden."""
    # PostgreSQL refuses U+0000 in a text; nothing has it in its name.
    known = not any(isinstance(value, str) and "\0" in value for value in lookup.values())
    found = visible.filter(**lookup).first() if known else None
    if found is None:
        raise NotFoundError(ABSENT)
    return found


def caller(request: Request) -> User:
    """Who calls. For views that ask for a token (all but the few that say otherwise)."""
    if not isinstance(request.user, User):
        raise InternalError("This route needs a caller.")
    return request.user


def token_of(request: Request) -> AccessToken:
    """The token that the caller sent."""
    if not isinstance(request.auth, AccessToken):
        raise InternalError("This route needs a token.")
    return request.auth


class Absent(APIView):
    """Every path under /api/ that is no route."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFoundError(f"{ABSENT} (Paths end with a slash.)" if not request.path.endswith("/") else ABSENT)
