"""Every error leaves as `{"error": {"code", "message", "details"}}` with the status of its class; no traceback does."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, TooManyFieldsSent, ValidationError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from apps.api.authentication import SCHEME
from apps.core import metrics
from gridclient.wire.errors import (
    AuthenticationError,
    GridError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    NotPermittedError,
)

logger = logging.getLogger(__name__)

ABSENT = "There is no such thing here, or it is not for you."
"""One text for what does not exist and for what the caller may not see."""


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: the response for an exception of a view."""
    status, headers = None, {}
    match error:
        case GridError():
            known = error
        case Http404():
            known = NotFoundError(ABSENT)
        case exceptions.AuthenticationFailed() | exceptions.NotAuthenticated():
            known = AuthenticationError("Sign in first: send an access token as 'Authorization: Bearer grd_...'.")
        case exceptions.PermissionDenied() | PermissionDenied():
            known = NotPermittedError("This account may not do that.")
        case exceptions.Throttled():
            known = LimitExceededError("Too many calls; wait a little.", limit=getattr(error, "wait", None))
        case RequestDataTooBig() | TooManyFieldsSent():
            known, status = LimitExceededError("The body of this call is too large."), 413
        case exceptions.APIException():
            known, status = InvalidInputError(str(error.detail)), error.status_code
        case ValidationError():
            known = InvalidInputError(" ".join(error.messages))
        case _:
            known = _unexpected(error)
    metrics.ERRORS.labels("rest", metrics.code(known.code)).inc()
    if isinstance(known, AuthenticationError):
        headers["WWW-Authenticate"] = SCHEME
    return Response(body(known), status=status or known.status, headers=headers)


def body(error: GridError) -> dict[str, Any]:
    """The JSON of an error."""
    return {"error": {"code": error.code, "message": error.message, "details": error.details}}


def _unexpected(error: Exception) -> InternalError:
    # Where it happened, never what its text says: the message of an exception may quote a value.
    where = " < ".join(
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in reversed(traceback.extract_tb(error.__traceback__)[-8:])
    )
    logger.error("%s at %s", type(error).__name__, where)
    return InternalError("Something went wrong on this side; its operator finds it in the log.")
