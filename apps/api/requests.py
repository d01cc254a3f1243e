"""The queue: what is asked, why, by whom, and what was decided."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.accounts.scopes import Scope
from apps.api import inputs, outputs
from apps.api.paging import page
from apps.api.views import View, caller, find
from apps.datarequests import actions
from apps.datarequests.models import DataRequest
from apps.datarequests.queries import requests_visible_to, visible_inputs
from apps.datarequests.transitions import State
from gridclient.wire.errors import InvalidInputError


class Requests(View):
    """GET ?state=: oldest first, mine and those that I may look at."""

    def get(self, request: Request) -> Response:
        user = caller(request)
        rows: QuerySet[DataRequest] = requests_visible_to(user)
        state = request.query_params.get("state")
        if state is not None:
            if state not in State.values:
                raise InvalidInputError(f"state is one of {', '.join(State.values)}.", field="state")
            rows = rows.filter(state=state)
        return page(request, rows, lambda found: _many(user, found), newest_first=False)


class OneRequest(View):
    """GET: words, inputs, shape, requester, reason, decision."""

    def get(self, request: Request, id: UUID) -> Response:
        return _one(caller(request), id)


class Approve(View):
    """POST {reason, seen?}: returns at once; the answer is computed and stored without the requester."""

    keyed = True

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        row, body = find(requests_visible_to(by), pk=id), inputs.read(request, inputs.Judgement)
        actions.approve(row, reason=body.reason, by=by, seen=inputs.moment(body.seen, "seen"))
        return _one(by, id)


class Deny(View):
    """POST {reason, seen?}: the requester reads the reason."""

    keyed = True

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        row, body = find(requests_visible_to(by), pk=id), inputs.read(request, inputs.Judgement)
        actions.deny(row, reason=body.reason, by=by, seen=inputs.moment(body.seen, "seen"))
        return _one(by, id)


class Withdraw(View):
    """POST: take back a request of mine that nobody has decided on."""

    keyed = True
    scope = Scope.COMPUTE

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        actions.withdraw(find(requests_visible_to(by), pk=id), by=by)
        return _one(by, id)


def _one(user: User, id: UUID) -> Response:
    return Response(_many(user, [find(requests_visible_to(user), pk=id)])[0])


def _many(user: User, rows: list[DataRequest]) -> list[dict[str, object]]:
    visible = visible_inputs(user, rows)
    return [outputs.data_request(row, visible) for row in rows]
