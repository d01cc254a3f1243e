"""Privacy budgets: what is left of one for me, and the certificates of private answers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.scopes import Scope
from apps.api import inputs, outputs
from apps.api.paging import each, page
from apps.api.views import View, caller, find
from apps.budgets.actions import open_domain
from apps.budgets.certificates import certificate
from apps.budgets.models import Domain
from apps.budgets.queries import releases_visible_to
from apps.compute import spending
from apps.permissions.queries import datasets_visible_to


class OneBudget(View):
    """GET: what the people of a dataset may be asked, and what of that is left for me."""

    def get(self, request: Request, slug: str) -> Response:
        user = caller(request)
        dataset = find(datasets_visible_to(user), slug=slug)
        return Response({"dataset": dataset.slug} | spending.budget(user, dataset)._asdict())


class Domains(View):
    """GET: the privacy domains, with what is left of their pots for questions. POST {slug, statement, entities}."""

    keyed = True
    scope = Scope.PUBLISH

    def get(self, request: Request) -> Response:
        return page(request, Domain.objects.all(), outputs.domains)

    def post(self, request: Request) -> Response:
        body = inputs.read(request, inputs.NewDomain)
        made = open_domain(body.slug, statement=body.statement, entities=body.entities, by=caller(request))
        return Response(outputs.domains([made])[0], status=201)


class Releases(View):
    """GET: the certificates of the private answers that I may know of, newest first."""

    def get(self, request: Request) -> Response:
        user = caller(request)

        def shown(row: Any) -> dict[str, Any]:
            return certificate(row, to=user)

        return page(request, releases_visible_to(user), each(shown), by="at")


class OneRelease(View):
    """GET: its certificate."""

    def get(self, request: Request, id: UUID) -> Response:
        user = caller(request)
        return Response(certificate(find(releases_visible_to(user), pk=id), to=user))
