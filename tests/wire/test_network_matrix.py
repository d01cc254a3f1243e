"""Everybody at every door of a live network. A route that is not in this table fails the test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
import pytest

from apps.core.clock import now
from apps.network import messages, signing
from tests.factories.grid import LiveGrid
from tests.factories.matrix import Row, doors, expected, hire_everybody, statuses
from tests.factories.network import acting_as, join_of, metadata
from tests.factories.raw import rest
from tests.factories.staff import PASSWORD

NEW_ACCOUNT = {"username": "net-new-{n}", "password": PASSWORD, "roles": []}
ASSERTION = {"node": "hospital", "session_key": "{key}"}
DECIDE = r"^nodes/(?P<id>[-a-z0-9]{1,40})/(?P<verb>approve|reject|remove)/$"
NO_ID = "00000000-0000-0000-0000-000000000000"
WHY = {"reason": "A test."}

# {pending} is a node that waits for the operator, {token} a named token of the account `asker`.
ROUTES: list[Row] = [
    ("identity/", "GET", "identity/", None, "200 200 200 200 200 200 200"),
    ("sign-in/", "POST", "sign-in/", {"username": "nobody-{n}", "password": "y"}, "401 401 401 401 401 401 401"),
    ("me/", "GET", "me/", None, "401 200 200 200 200 200 200"),
    ("users/", "GET", "users/", None, "401 200 200 200 200 200 200"),
    ("users/", "POST", "users/", NEW_ACCOUNT, "401 403 403 403 403 403 201"),
    ("users/<str:username>/", "GET", "users/asker/", None, "401 404 404 404 404 200 200"),
    ("users/<str:username>/", "PATCH", "users/asker/", {"roles": ["scientist"]}, "401 404 404 404 404 403 200"),
    ("teams/", "GET", "teams/", None, "401 200 200 200 200 200 200"),
    ("teams/", "POST", "teams/", {"slug": "net-{n}", "name": "T", "members": []}, "401 403 403 403 403 403 201"),
    ("teams/<str:slug>/", "GET", "teams/net-ward/", None, "401 404 200 200 404 200 200"),
    ("teams/<str:slug>/", "PATCH", "teams/net-ward/", {"members": []}, "401 404 403 403 404 403 200"),
    ("tokens/", "GET", "tokens/", None, "401 200 200 200 200 200 200"),
    ("tokens/", "POST", "tokens/", {"name": "laptop"}, "401 201 201 201 201 403 201"),
    ("tokens/", "POST", "tokens/", {"name": "laptop", "user": "asker"}, "401 404 404 404 404 403 201"),
    ("tokens/<str:prefix>/", "DELETE", "tokens/{token}/", None, "401 404 404 404 404 403 204"),
    ("audit/", "GET", "audit/", None, "401 403 403 403 403 200 200"),
    ("audit/verify/", "GET", "audit/verify/", None, "401 403 403 403 403 200 200"),
    # Members are everybody's to see; who waits, and a decision about it, is the operator's. {pending} points to a
    # node that holds another key, so that even the operator cannot let it in, and never was a member to put out.
    ("nodes/", "GET", "nodes/", None, "401 200 200 200 200 200 200"),
    ("nodes/", "POST", "nodes/", {}, "401 401 401 401 401 401 401"),
    (DECIDE, "POST", "nodes/{pending}/approve/", WHY, "401 403 403 403 403 403 409"),
    (DECIDE, "POST", "nodes/{pending}/reject/", WHY, "401 403 403 403 403 403 200"),
    (DECIDE, "POST", "nodes/{pending}/remove/", WHY, "401 403 403 403 403 403 409"),
    (DECIDE, "POST", "nodes/never-was/approve/", WHY, "401 403 403 403 403 403 404"),
    # Signed by a member's key, or nothing: no account may speak for a node.
    ("announcements/", "POST", "announcements/", {}, "401 401 401 401 401 401 401"),
    # The grid of one machine lets guests search.
    ("search/", "GET", "search/?q=births", None, "200 200 200 200 200 200 200"),
    ("search/facets/", "GET", "search/facets/?q=births", None, "200 200 200 200 200 200 200"),
    ("search/suggest/", "GET", "search/suggest/?prefix=b", None, "200 200 200 200 200 200 200"),
    ("assertions/", "POST", "assertions/", ASSERTION, "401 200 200 200 200 200 200"),
    ("assertions/", "POST", "assertions/", ASSERTION | {"node": "never-was"}, "401 404 404 404 404 404 404"),
    ("assertions/", "POST", "assertions/", ASSERTION | {"node": "{pending}"}, "401 404 404 404 404 404 404"),
    # A network holds no data, and nothing to ask for.
    ("plans/", "GET", "plans/", None, "401 200 200 200 200 200 200"),
    ("plans/<str:name>/", "GET", "plans/never-was/", None, "401 404 404 404 404 404 404"),
    ("plans/<str:name>/", "DELETE", "plans/never-was/", None, "401 404 404 404 404 404 404"),
    ("plans/<str:name>/bytes/", "GET", "plans/never-was/bytes/", None, "401 404 404 404 404 404 404"),
    ("datasets/", "GET", "datasets/", None, "401 200 200 200 200 200 200"),
    ("datasets/<str:slug>/", "GET", "datasets/births/", None, "401 404 404 404 404 404 404"),
    ("datasets/<str:slug>/", "PATCH", "datasets/births/", {"name": "x"}, "401 404 404 404 404 404 404"),
    ("datasets/<str:slug>/grants/", "GET", "datasets/births/grants/", None, "401 404 404 404 404 404 404"),
    ("datasets/<str:slug>/grants/", "POST", "datasets/births/grants/", WHY, "401 404 404 404 404 404 404"),
    ("grants/<int:id>/", "DELETE", "grants/1/", None, "401 404 404 404 404 404 404"),
    ("datasets/<str:slug>/budget/", "GET", "datasets/births/budget/", None, "401 404 404 404 404 404 404"),
    ("datasets/<str:slug>/budget/", "POST", "datasets/births/budget/", WHY, "401 404 404 404 404 404 404"),
    ("budget-requests/", "GET", "budget-requests/", None, "401 200 200 200 200 200 200"),
    ("budget-requests/<uuid:id>/", "GET", f"budget-requests/{NO_ID}/", None, "401 404 404 404 404 404 404"),
    *(
        (f"budget-requests/<uuid:id>/{verb}/", "POST", f"budget-requests/{NO_ID}/{verb}/", WHY,
         "401 404 404 404 404 404 404")
        for verb in ("approve", "deny", "withdraw")
    ),
    ("domains/", "GET", "domains/", None, "401 200 200 200 200 200 200"),
    ("domains/", "POST", "domains/", {"slug": "people", "statement": "Others."}, "401 403 403 403 403 403 403"),
    ("releases/", "GET", "releases/", None, "401 200 200 200 200 200 200"),
    ("releases/<uuid:id>/", "GET", f"releases/{NO_ID}/", None, "401 404 404 404 404 404 404"),
    ("requests/", "GET", "requests/", None, "401 200 200 200 200 200 200"),
    ("requests/<uuid:id>/", "GET", f"requests/{NO_ID}/", None, "401 404 404 404 404 404 404"),
    ("requests/<uuid:id>/approve/", "POST", f"requests/{NO_ID}/approve/", WHY, "401 404 404 404 404 404 404"),
    ("requests/<uuid:id>/deny/", "POST", f"requests/{NO_ID}/deny/", WHY, "401 404 404 404 404 404 404"),
    ("requests/<uuid:id>/withdraw/", "POST", f"requests/{NO_ID}/withdraw/", {}, "401 404 404 404 404 404 404"),
    ("sessions/", "GET", "sessions/", None, "401 200 200 200 200 200 200"),
    ("sessions/<uuid:id>/stop/", "POST", f"sessions/{NO_ID}/stop/", WHY, "401 404 404 404 404 404 404"),
    # A node's routes do not exist on a network, for anybody.
    ("challenge/", "POST", "challenge/", {}, "404 404 404 404 404 404 404"),
    ("sign-in/assertion/", "POST", "sign-in/assertion/", {}, "404 404 404 404 404 404 404"),
    ("membership/", "GET", "membership/", None, "401 404 404 404 404 404 404"),
    ("membership/", "POST", "membership/", {"public_key": "0" * 64}, "401 404 404 404 404 404 404"),
    ("sign-out/", "POST", "sign-out/", {}, "401 204 204 204 204 204 204"),
    ("", "GET", "nothing/", None, "404 404 404 404 404 404 404"),
]  # fmt: skip


@dataclass
class World:
    """A network with an account for everybody, and no node but those of the grid."""

    grid: LiveGrid
    tokens: dict[str, str]
    key: str
    numbers: Iterator[int]
    waiting: str = ""

    @property
    def url(self) -> str:
        return self.grid.network.url

    def fill(self, text: str) -> str:
        """Put names, or new objects, into a path or a body."""
        makers: dict[str, Callable[[], str]] = {
            "{n}": lambda: str(next(self.numbers)),
            "{key}": lambda: os.urandom(32).hex(),
            "{pending}": lambda: self.waiting,
            "{token}": self.token,
        }
        for name, make in makers.items():
            if name in text:
                text = text.replace(name, make())
        return text

    def token(self) -> str:
        _, made = rest("POST", f"{self.url}/api/tokens/", {"name": "to be revoked"}, token=self.tokens["asker"])
        return str(made["token"]).split("_")[1]

    def signed(self, name: str, path: str, message: Any) -> tuple[int, Any]:
        """POST what the deployment `name` says, signed by its key."""
        body = msgspec.json.decode(msgspec.json.encode(message))
        with acting_as(name):
            # As `rest` writes it: the signature is over the bytes.
            headers = signing.sign_request("POST", path, json.dumps(body).encode(), audience=self.key, now=now())
        return rest("POST", f"{self.url}{path}", body, headers=headers)

    def decide(self, verb: str) -> None:
        path = f"{self.url}/api/nodes/{self.waiting}/{verb}/"
        assert rest("POST", path, WHY, token=self.tokens["administrator"])[0] == 200


@pytest.fixture(scope="module")
def everybody(grid: LiveGrid) -> World:
    tokens = hire_everybody(grid.network)
    team = {"slug": "net-ward", "name": "Ward", "members": []}
    assert rest("POST", f"{grid.network.url}/api/teams/", team, token=tokens["administrator"])[0] == 201
    identity = rest("GET", f"{grid.network.url}/api/identity/")[1]
    return World(grid, tokens, identity["public_key"], count(1))


@pytest.fixture
def world(everybody: World) -> Iterator[World]:
    """With a node that waits, which shows the address of another one; it has gone again at the end."""
    everybody.waiting = f"pretender-{next(everybody.numbers)}"
    join = join_of(everybody.waiting, everybody.grid.company.url)
    assert everybody.signed(everybody.waiting, "/api/nodes/", join)[1]["state"] == "pending"
    yield everybody
    nodes = rest("GET", f"{everybody.url}/api/nodes/", token=everybody.tokens["administrator"])[1]["results"]
    if {node["id"]: node["state"] for node in nodes}[everybody.waiting] == "pending":
        everybody.decide("reject")


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: f"{row[1]} {row[2]}")
def test_each_person_gets_what_the_table_says(world: World, row: Row) -> None:
    assert statuses(world.url, world.tokens, row, world.fill) == expected(row)


def test_every_route_is_in_the_table_with_every_method() -> None:
    assert {row[:2] for row in ROUTES} == doors()


def test_only_the_operator_and_the_auditor_see_who_waits(world: World) -> None:
    for name in ("scientist", "owner", "reviewer", "auditor", "administrator"):
        nodes = rest("GET", f"{world.url}/api/nodes/", token=world.tokens[name])[1]["results"]
        assert (world.waiting in {node["id"] for node in nodes}) is (name in ("auditor", "administrator"))
        members = [node for node in nodes if node["id"] in world.grid.nodes]
        assert len(members) == 2
        assert all(("asked_from" in node) is (name in ("auditor", "administrator")) for node in members)


@pytest.mark.parametrize("state", ["pending", "rejected"])
def test_who_was_not_let_in_announces_nothing(world: World, state: str) -> None:
    if state == "rejected":
        world.decide("reject")
    push = messages.Push(base=None, revision=1, put=[msgspec.Raw(msgspec.json.encode(metadata()))])
    status, answer = world.signed(world.waiting, "/api/announcements/", push)
    assert (status, answer["state"], answer["in_step"]) == (200, state, False)
    found = rest("GET", f"{world.url}/api/search/?q=weight")[1]["results"]
    assert world.waiting not in {each["node"]["id"] for each in found}


def test_who_never_asked_to_join_is_told_so(world: World) -> None:
    assert world.signed("stranger", "/api/announcements/", messages.Push(base=None, revision=1))[0] == 404


def test_a_signed_wish_to_join_lets_nobody_in(world: World) -> None:
    again = join_of(world.waiting, world.grid.company.url)
    assert world.signed(world.waiting, "/api/nodes/", again)[1]["state"] == "pending"
    taken = join_of("hospital", world.grid.hospital.url)
    assert world.signed("hospital", "/api/nodes/", taken)[0] == 409
