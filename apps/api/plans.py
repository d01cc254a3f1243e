"""Plans: what there is to run on this node, and their bytes where they may be copied."""

from __future__ import annotations

from base64 import b64encode

from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.scopes import Scope, check_scope
from apps.api.paging import each, page
from apps.api.views import View, caller, find, token_of
from apps.plans import actions
from apps.plans.queries import plans_visible_to, public_plan


class Plans(View):
    """GET: those that I may see."""

    def get(self, request: Request) -> Response:
        user = caller(request)
        return page(request, plans_visible_to(user), each(lambda plan: public_plan(plan, user)))


class OnePlan(View):
    """GET; DELETE for its owner and for who manages accounts."""

    keyed = True
    scope = Scope.COMPUTE

    def get(self, request: Request, name: str) -> Response:
        user = caller(request)
        return Response(public_plan(find(plans_visible_to(user), name=name), user))

    def delete(self, request: Request, name: str) -> Response:
        user = caller(request)
        plan = find(plans_visible_to(user), name=name)
        if plan.owner_id != user.pk:
            check_scope(token_of(request).scopes, Scope.GOVERN)
        actions.delete(plan, by=user)
        return Response(status=204)


class PlanBytes(View):
    """GET {sha256, data}: the bytes in base64, where they may be copied."""

    def get(self, request: Request, name: str) -> Response:
        user = caller(request)
        plan = find(plans_visible_to(user), name=name)
        data = actions.download(plan, by=user)
        return Response({"sha256": plan.sha256, "data": b64encode(data).decode()})
