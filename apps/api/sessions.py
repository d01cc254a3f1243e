"""Sessions that are open now, and ending one."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from apps.api import inputs, outputs
from apps.api.paging import each, page
from apps.api.views import View, caller, find
from apps.compute import actions
from apps.compute.policies import can_see_node
from apps.compute.queries import sessions_visible_to


class Sessions(View):
    """GET: those that I may see, the newest first."""

    def get(self, request: Request) -> Response:
        user = caller(request)
        return page(
            request, sessions_visible_to(user), each(partial(outputs.session, loads=can_see_node(user))), by="opened"
        )


class Stop(View):
    """POST {reason}: its client is told the reason, and the session does not go on."""

    keyed = True

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        session = find(sessions_visible_to(by), pk=id)
        stopped = actions.stop_session(session, by=by, reason=inputs.read(request, inputs.Stop).reason)
        return Response(outputs.session(stopped, loads=can_see_node(by)))
