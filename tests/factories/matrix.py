"""Everybody at every route: what the tables of a node and of a network share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.urls import URLPattern, URLResolver
from rest_framework.views import APIView

from apps.api.urls import urlpatterns
from tests.factories.grid import Server
from tests.factories.raw import rest, sign_in
from tests.factories.staff import PASSWORD

PEOPLE = ("anonymous", "scientist", "owner", "other_owner", "reviewer", "auditor", "administrator")
ROLES = {"scientist": "scientist", "owner": "owner", "other_owner": "owner", "reviewer": "reviewer",
         "auditor": "auditor", "administrator": "administrator", "asker": "scientist"}  # fmt: skip
Row = tuple[str, str, str, Any, str]
"""Route, method, path, body, and the status that each of PEOPLE gets."""
Fill = Callable[[str], str]


def hire_everybody(server: Server) -> dict[str, str]:
    """An account for each of PEOPLE and for `asker`; their tokens, with "" for the anonymous."""
    admin = sign_in(server.url, server.username, server.password)
    tokens = {"anonymous": ""}
    for name, role in ROLES.items():
        account = {"username": name, "password": PASSWORD, "roles": [role]}
        status, body = rest("POST", f"{server.url}/api/users/", account, token=admin)
        assert status == 201, body
        tokens[name] = sign_in(server.url, name, PASSWORD)
    return tokens


def by_name(outcomes: Iterable[Any]) -> dict[str, Any]:
    """What each of PEOPLE got, readable in a failure."""
    return dict(zip(PEOPLE, outcomes, strict=True))


def expected(row: Row) -> dict[str, int]:
    return by_name(map(int, row[4].split()))


def statuses(url: str, tokens: dict[str, str], row: Row, fill: Fill) -> dict[str, int]:
    """Make the call of a row as each of PEOPLE. `fill` puts names, or new objects, into the path and the body."""
    route, method, path, body, _ = row
    got = []
    for name in PEOPLE:
        token = tokens[name]
        if route == "sign-out/" and token:
            token = sign_in(url, name, PASSWORD)
        filled = None if body is None else {k: fill(v) if isinstance(v, str) else v for k, v in body.items()}
        status, answer = rest(method, f"{url}/api/{fill(path)}", filled, token=token)
        got.append(status)
        if status >= 400:
            assert set(answer["error"]) == {"code", "message", "details"}, (name, answer)
    return by_name(got)


def doors() -> set[tuple[str, str]]:
    """Every route with every method that its view answers; a view that answers none counts with GET."""
    return {
        (route, method)
        for route, view in _views(urlpatterns)
        for method in [name.upper() for name in view.http_method_names if _answers(view, name)] or ["GET"]
    }


def _views(patterns: list[Any]) -> Iterator[tuple[str, type[APIView]]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            yield str(pattern.pattern), pattern.callback.view_class  # type: ignore[attr-defined]


def _answers(view: type[APIView], method: str) -> bool:
    """Whether the class itself defines the method: OPTIONS is every view's."""
    return hasattr(view, method) and not hasattr(APIView, method)
