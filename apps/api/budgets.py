"""Privacy budgets: what is left of one for me, asking for one, and the certificates of private answers."""

from __future__ import annotations

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.scopes import Scope
from apps.api import inputs, outputs
from apps.api.paging import each, page
from apps.api.views import View, caller, find
from apps.budgets.actions import open_domain
from apps.budgets.queries import domains_visible_to, releases_visible_to
from apps.compute import spending
from apps.compute.certificates import certificate, certificates
from apps.datarequests.budgets import approve_budget, ask_for_budget, deny_budget, withdraw_budget
from apps.datarequests.queries import budget_requests_visible_to
from apps.datarequests.transitions import BudgetState
from apps.permissions.queries import datasets_visible_to
from gridclient.wire.errors import InvalidInputError


class OneBudget(View):
    """GET: what the people of a dataset may be asked, and what of that is left for me. POST {epsilon, reason}: ask its
    owner for more."""

    keyed = True
    scope = Scope.COMPUTE

    def get(self, request: Request, slug: str) -> Response:
        user = caller(request)
        dataset = find(datasets_visible_to(user), slug=slug)
        return Response({"dataset": dataset.slug} | spending.budget(user, dataset)._asdict())

    def post(self, request: Request, slug: str) -> Response:
        by = caller(request)
        dataset, body = find(datasets_visible_to(by), slug=slug), inputs.read(request, inputs.NewBudgetRequest)
        made = ask_for_budget(dataset, epsilon=body.epsilon, reason=body.reason, by=by)
        return Response(outputs.budget_request(made), status=201)


class BudgetRequests(View):
    """GET ?state=: oldest first, mine and those on datasets of mine."""

    def get(self, request: Request) -> Response:
        rows = budget_requests_visible_to(caller(request))
        state = request.query_params.get("state")
        if state is not None:
            if state not in BudgetState.values:
                raise InvalidInputError(f"state is one of {', '.join(BudgetState.values)}.", field="state")
            rows = rows.filter(state=state)
        return page(request, rows, each(outputs.budget_request), newest_first=False)


class OneBudgetRequest(View):
    """GET: what is asked for, why, and the decision."""

    def get(self, request: Request, id: UUID) -> Response:
        return Response(outputs.budget_request(find(budget_requests_visible_to(caller(request)), pk=id)))


class ApproveBudget(View):
    """POST {reason, epsilon?}: gives a `release` grant with the epsilon that was asked for, or a smaller one."""

    keyed = True

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        row, body = find(budget_requests_visible_to(by), pk=id), inputs.read(request, inputs.BudgetApproval)
        return Response(outputs.budget_request(approve_budget(row, reason=body.reason, epsilon=body.epsilon, by=by)))


class DenyBudget(View):
    """POST {reason}: the requester reads the reason."""

    keyed = True

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        row, body = find(budget_requests_visible_to(by), pk=id), inputs.read(request, inputs.BudgetDenial)
        return Response(outputs.budget_request(deny_budget(row, reason=body.reason, by=by)))


class WithdrawBudget(View):
    """POST: take back a request of mine that nobody has decided on."""

    keyed = True
    scope = Scope.COMPUTE

    def post(self, request: Request, id: UUID) -> Response:
        by = caller(request)
        return Response(outputs.budget_request(withdraw_budget(find(budget_requests_visible_to(by), pk=id), by=by)))


class Domains(View):
    """GET: the privacy domains, with what is left of their pots for questions. POST {slug, statement, entities,
    accounting}."""

    keyed = True
    scope = Scope.PUBLISH

    def get(self, request: Request) -> Response:
        user = caller(request)
        return page(request, domains_visible_to(user), lambda rows: outputs.domains(rows, user))

    def post(self, request: Request) -> Response:
        body = inputs.read(request, inputs.NewDomain)
        user = caller(request)
        made = open_domain(
            body.slug, statement=body.statement, entities=body.entities, accounting=body.accounting, by=user
        )
        return Response(outputs.domains([made], user)[0], status=201)


class Releases(View):
    """GET: the certificates of the private answers that I may know of, newest first."""

    def get(self, request: Request) -> Response:
        user = caller(request)
        return page(request, releases_visible_to(user), lambda rows: certificates(rows, to=user), by="at")


class OneRelease(View):
    """GET: its certificate."""

    def get(self, request: Request, id: UUID) -> Response:
        user = caller(request)
        return Response(certificate(find(releases_visible_to(user), pk=id), to=user))
