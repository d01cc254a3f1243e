"""What all views share: they find objects among those that the caller may see, translate, and decide nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.models import AccessToken, User
from apps.accounts.once import Asked, once
from apps.api.errors import ABSENT
from gridclient.wire.errors import InternalError, InvalidInputError, NotFoundError

M = TypeVar("M", bound=Model)
KEY = "Idempotency-Key"
CHANGES = ("POST", "PATCH", "DELETE")


class View(APIView):
    """Base of all routes. A `keyed` one may be called again under its `Idempotency-Key`, and does nothing twice."""

    keyed = False
    """For views that change nothing but the database, and whose replies hold no secret: those are stored."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if KEY in request.headers and request.method in CHANGES:
            # Here and no earlier: by now it is certain that the token lives, and is good for this route.
            if not self.keyed:
                raise no_key_here()
            name = request.method.lower()
            setattr(self, name, _under_key(getattr(self, name, self.http_method_not_allowed)))


def _under_key(handler: Callable[..., Response]) -> Callable[..., Response]:
    """The handler, with a reply that is stored in the transaction of what it does, or that was stored by the first."""

    def handle(request: Request, *args: Any, **kwargs: Any) -> Response:
        def do() -> list[Any]:
            response = handler(request, *args, **kwargs)
            return [response.status_code, None if response.data is None else _plain(response.data)]

        key = request.headers[KEY]
        if not key:
            raise InvalidInputError(f"{KEY} is empty; leave it out, or choose a key.", field="key")
        content = f"{request.method} {request.get_full_path()}\n".encode() + request.body
        status, data = once(caller(request), Asked(key, content), do)
        return Response(data, status=status)

    return handle


def _plain(data: Any) -> Any:
    return json.loads(JSONRenderer().render(data))


def no_key_here() -> InvalidInputError:
    """For a key where nothing is kept under it: whoever sends one relies on it."""
    return InvalidInputError(f"This call takes no {KEY}: its reply is not kept. Leave it out.", field="key")


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


class Absent(View):
    """Every path under /api/ that is no route."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFoundError(f"{ABSENT} (Paths end with a slash.)" if not request.path.endswith("/") else ABSENT)
