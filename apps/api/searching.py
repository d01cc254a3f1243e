"""Search on a network, and what helps to search on both roles: counts by tag and node, and completions.

A network answers guests where it lets them search. A node answers its accounts, each about what it may see.
"""

from __future__ import annotations

from django.conf import settings
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.api.paging import size
from apps.api.views import View, caller
from apps.network import queries
from apps.network.policies import check_role
from apps.permissions import queries as permitted
from gridclient.wire.errors import AuthenticationError, InvalidInputError

MOST_SUGGESTED = 50
SUGGESTED = 10


class Search(View):
    """GET ?q=term&q=term: listed datasets of living members that match every term, newest first."""

    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        check_role("network")
        before = number(request)
        found = queries.search(_guest(request), terms(request), limit=size(request), before=before)
        return Response({"results": found.rows, "next": found.next and str(found.next)})


class Counts(View):
    """GET ?q=term&q=term -> {counted, more, tags: [[tag, datasets], ...], nodes: [[id, datasets], ...]}

    Counted over the newest hits; `more` tells that there are others. On a node `nodes` is empty.
    """

    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        wanted = terms(request)
        if settings.GRID_ROLE == "network":
            found = queries.facets(_guest(request), wanted)
        else:
            found = permitted.facets(_signed_in(request), wanted)
        return Response({"counted": found.counted, "more": found.more, "tags": found.tags, "nodes": found.groups})


class Completions(View):
    """GET ?prefix=%23feb -> {results: [[term, datasets], ...]}: tags or words that begin so, most frequent first."""

    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        prefix = request.query_params.get("prefix", "")
        limit = size(request, default=SUGGESTED, most=MOST_SUGGESTED)
        if settings.GRID_ROLE == "network":
            found = queries.suggest(_guest(request), prefix, limit=limit)
        else:
            found = permitted.suggest(_signed_in(request), prefix, limit=limit)
        return Response({"results": found})


def terms(request: Request) -> list[str]:
    """`?q=term&q=term`."""
    return request.query_params.getlist("q")


def number(request: Request) -> int | None:
    """`?after=`: the number in the index that a page ended with."""
    text = request.query_params.get("after", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInputError("after is the 'next' of an earlier page.", field="after")
    return int(text)


def _guest(request: Request) -> User | None:
    return request.user if isinstance(request.user, User) else None


def _signed_in(request: Request) -> User:
    if _guest(request) is None:
        raise AuthenticationError("Sign in first: send an access token as 'Authorization: Bearer grd_...'.")
    return caller(request)
