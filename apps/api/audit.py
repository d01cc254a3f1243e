"""The audit log, to read and to verify."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.api import outputs
from apps.api.paging import size
from apps.api.views import View, caller
from apps.audit.queries import events_visible_to, verify
from gridclient.wire.errors import InvalidInputError, NotPermittedError


class Events(View):
    """GET ?after=seq: newest first, the events before `after`."""

    def get(self, request: Request) -> Response:
        user = caller(request)
        _check_can_read(user)
        limit, after = size(request), request.query_params.get("after", "")
        rows = events_visible_to(user).order_by("-seq")
        if after:
            if not after.isascii() or not after.isdigit() or len(after) > 18:
                raise InvalidInputError("after is the number of an event.", field="after")
            rows = rows.filter(seq__lt=int(after))
        found = list(rows[: limit + 1])
        more, found = len(found) > limit, found[:limit]
        return Response({"results": [outputs.event(row) for row in found], "next": found[-1].seq if more else None})


class Verify(View):
    """GET -> {ok, events, first_bad, problem}"""

    def get(self, request: Request) -> Response:
        _check_can_read(caller(request))
        report = verify()
        return Response(
            {"ok": report.ok, "events": report.events, "first_bad": report.first_bad, "problem": report.problem}
        )


def _check_can_read(user: User) -> None:
    if not (user.has("audit.read") or user.has("everything.read")):
        raise NotPermittedError("Auditors and administrators read the audit log.")
