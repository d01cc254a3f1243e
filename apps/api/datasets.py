"""Datasets as their visibility shows them, and the grants on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import Team, User
from apps.accounts.queries import resolve_users, teams_visible_to
from apps.accounts.scopes import Scope
from apps.api import inputs, outputs
from apps.api.paging import each, flag, page, size
from apps.api.views import View, caller, find
from apps.datasets.models import Dataset
from apps.datasets.queries import public_metadata
from apps.permissions import actions
from apps.permissions.policies import check_can_grant, rights_by_dataset
from apps.permissions.queries import datasets_owned_by, datasets_visible_to, grants_visible_to, search
from gridclient.wire.errors import InvalidInputError, NotFoundError


class Datasets(View):
    """GET ?q=term&q=term: those that I may see and that every term matches, with my rights on each."""

    def get(self, request: Request) -> Response:
        user, last = caller(request), request.query_params.get("after")
        after = _last(user, last) if last else None
        found = search(user, request.query_params.getlist("q"), limit=size(request), after=after)
        more = str(found.rows[-1].pk) if found.next is not None else None
        return Response({"results": _all_shown(user, found.rows), "next": more})


class OneDataset(View):
    """GET; PATCH {name, description, tags, visibility, accounts_may_compute} for its owner."""

    keyed = True
    scope = Scope.PUBLISH

    def get(self, request: Request, slug: str) -> Response:
        user = caller(request)
        return Response(_shown(user, find(datasets_visible_to(user), slug=slug)))

    def patch(self, request: Request, slug: str) -> Response:
        user = caller(request)
        dataset = find(datasets_visible_to(user), slug=slug)
        change = inputs.changes(inputs.read(request, inputs.DatasetChange))
        actions.describe(dataset, by=user, **change)
        return Response(_shown(user, find(datasets_visible_to(user), pk=dataset.pk)))


class Grants(View):
    """GET: those that I may see; with ?once=1 also those of approvals, with ?revoked=1 also what was taken back.

    POST {to, right, columns, programs, epsilon, expires, reason} for the owner.
    """

    keyed = True
    scope = Scope.PUBLISH

    def get(self, request: Request, slug: str) -> Response:
        user = caller(request)
        dataset = find(datasets_visible_to(user), slug=slug)
        rows = grants_visible_to(user).filter(dataset=dataset).select_related("dataset", "user", "team", "given_by")
        if not flag(request, "once"):
            rows = rows.filter(program_hash="")
        if not flag(request, "revoked"):
            rows = rows.filter(revoked_at=None)
        return page(request, rows, each(outputs.grant))

    def post(self, request: Request, slug: str) -> Response:
        user = caller(request)
        dataset = find(datasets_visible_to(user), slug=slug)
        body = inputs.read(request, inputs.NewGrant)
        # Before the name is looked up: who has no say here must not learn whether it exists.
        check_can_grant(user, dataset)
        made = actions.give(
            dataset,
            to=_receiver(user, body.to),
            right=body.right,
            columns=body.columns,
            programs=body.programs,
            epsilon=body.epsilon,
            expires=inputs.moment(body.expires, "expires"),
            reason=body.reason,
            by=user,
        )
        return Response(outputs.grant(made), status=201)


class OneGrant(View):
    """DELETE: revoke."""

    keyed = True
    scope = Scope.PUBLISH

    def delete(self, request: Request, id: int) -> Response:
        user = caller(request)
        actions.revoke(find(grants_visible_to(user), pk=id), by=user)
        return Response(status=204)


def _last(user: User, key: str) -> Dataset:
    """The dataset that a page ended with, by its id: a place in the index would tell how many are hidden."""
    try:
        return find(datasets_visible_to(user), pk=UUID(key))
    except (ValueError, NotFoundError):
        raise InvalidInputError("after is the 'next' of an earlier page.", field="after") from None


def _shown(user: User, dataset: Dataset) -> dict[str, Any]:
    return _all_shown(user, [dataset])[0]


def _all_shown(user: User, datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    rights = rights_by_dataset(user, datasets)
    shown = [{**public_metadata(dataset.current), "rights": sorted(rights[dataset.pk])} for dataset in datasets]
    mine = set(datasets_owned_by(user).filter(pk__in=[dataset.pk for dataset in datasets]).values_list("pk", flat=True))
    for dataset, row in zip(datasets, shown, strict=True):
        if dataset.pk in mine:
            row["accounts_may_compute"] = dataset.accounts_may_compute
    return shown


def _receiver(user: User, name: str) -> User | Team:
    if name.startswith("team:"):
        team = teams_visible_to(user).filter(slug=name.removeprefix("team:")).first()
        if team is None:
            raise InvalidInputError(f"There is no team {name!r}.", field="to")
        return team
    return resolve_users([name])[0]
