"""Everybody at every door of a live node. A route or a frame that is not in these tables fails the test."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.program.graph import ASSET, Node, Ref, tensor_digest
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from tests.factories.crew import eventually, fresh
from tests.factories.grid import LiveGrid
from tests.factories.matrix import PEOPLE, Row, by_name, doors, expected, hire_everybody, statuses
from tests.factories.plans import double
from tests.factories.raw import RawClient, listed_sessions, rest, sign_in
from tests.factories.staff import PASSWORD

COLUMNS = [m.Column("a", low=0.0, high=50.0), m.Column("b", low=0.0, high=50.0)]
NEW_ACCOUNT = {"username": "new-{n}", "password": PASSWORD, "roles": []}
GRANT = {"to": "asker", "right": "discover", "reason": "A test."}
WHY = {"reason": "A test."}
BUDGET = {"epsilon": 1.0, "reason": "A test."}
NO_ID = "00000000-0000-0000-0000-000000000000"

# Route, method, path, body, and the status that each of PEOPLE gets. `secret` is granted to nobody: to all but its
# owner and the auditor it does not exist. {request} and {grant} are new ones each time, of the account `asker`.
ROUTES: list[Row] = [
    ("identity/", "GET", "identity/", None, "200 200 200 200 200 200 200"),
    ("sign-in/", "POST", "sign-in/", {"username": "nobody-{n}", "password": "y"}, "401 401 401 401 401 401 401"),
    ("me/", "GET", "me/", None, "401 200 200 200 200 200 200"),
    ("users/", "GET", "users/", None, "401 200 200 200 200 200 200"),
    ("users/", "POST", "users/", NEW_ACCOUNT, "401 403 403 403 403 403 201"),
    ("users/<str:username>/", "GET", "users/asker/", None, "401 404 404 404 404 200 200"),
    ("users/<str:username>/", "PATCH", "users/asker/", {"roles": ["scientist"]}, "401 404 404 404 404 403 200"),
    ("users/<str:username>/", "PATCH", "users/asker/", {"active": True}, "401 404 404 404 404 403 409"),
    ("users/<str:username>/", "GET", "users/nobody/", None, "401 404 404 404 404 404 404"),
    ("teams/", "GET", "teams/", None, "401 200 200 200 200 200 200"),
    ("teams/", "POST", "teams/", {"slug": "team-{n}", "name": "T", "members": []}, "401 403 403 403 403 403 201"),
    # Owners see the teams, to grant them rights.
    ("teams/<str:slug>/", "GET", "teams/ward/", None, "401 404 200 200 404 200 200"),
    ("teams/<str:slug>/", "PATCH", "teams/ward/", {"members": []}, "401 404 403 403 404 403 200"),
    ("tokens/", "GET", "tokens/", None, "401 200 200 200 200 200 200"),
    ("tokens/", "POST", "tokens/", {"name": "laptop"}, "401 201 201 201 201 403 201"),
    ("tokens/", "POST", "tokens/", {"name": "laptop", "user": "asker"}, "401 404 404 404 404 403 201"),
    ("tokens/<str:prefix>/", "DELETE", "tokens/{token}/", None, "401 404 404 404 404 403 204"),
    ("datasets/", "GET", "datasets/", None, "401 200 200 200 200 200 200"),
    ("datasets/<str:slug>/", "GET", "datasets/{open}/", None, "401 200 200 200 200 200 200"),
    ("datasets/<str:slug>/", "GET", "datasets/{secret}/", None, "401 404 200 404 404 200 404"),
    ("datasets/<str:slug>/", "PATCH", "datasets/{open}/", {"description": "x"}, "401 403 200 403 403 403 403"),
    ("datasets/<str:slug>/", "PATCH", "datasets/{secret}/", {"description": "x"}, "401 404 200 404 404 403 404"),
    ("datasets/<str:slug>/grants/", "GET", "datasets/{open}/grants/", None, "401 200 200 200 200 200 200"),
    ("datasets/<str:slug>/grants/", "GET", "datasets/{secret}/grants/", None, "401 404 200 404 404 200 404"),
    ("datasets/<str:slug>/grants/", "POST", "datasets/{open}/grants/", GRANT, "401 403 201 403 403 403 403"),
    ("datasets/<str:slug>/grants/", "POST", "datasets/{secret}/grants/", GRANT, "401 404 201 404 404 403 404"),
    ("datasets/<str:slug>/budget/", "GET", "datasets/{open}/budget/", None, "401 403 200 403 403 403 403"),
    ("datasets/<str:slug>/budget/", "GET", "datasets/{secret}/budget/", None, "401 404 200 404 404 403 404"),
    ("datasets/<str:slug>/budget/", "POST", "datasets/{open}/budget/", BUDGET, "401 201 403 201 201 201 201"),
    ("datasets/<str:slug>/budget/", "POST", "datasets/{secret}/budget/", BUDGET, "401 404 403 404 404 201 404"),
    ("budget-requests/", "GET", "budget-requests/", None, "401 200 200 200 200 200 200"),
    ("budget-requests/<uuid:id>/", "GET", "budget-requests/{budget}/", None, "401 404 200 404 404 200 404"),
    ("budget-requests/<uuid:id>/approve/", "POST", "budget-requests/{budget}/approve/", WHY,
     "401 404 200 404 404 403 404"),
    ("budget-requests/<uuid:id>/deny/", "POST", "budget-requests/{budget}/deny/", WHY, "401 404 200 404 404 403 404"),
    ("budget-requests/<uuid:id>/withdraw/", "POST", "budget-requests/{budget}/withdraw/", {},
     "401 404 403 404 404 403 404"),
    ("grants/<int:id>/", "DELETE", "grants/{grant}/", None, "401 404 204 404 404 403 404"),
    ("domains/", "GET", "domains/", None, "401 200 200 200 200 200 200"),
    ("domains/", "POST", "domains/", {"slug": "people-{n}", "statement": "Others."}, "401 403 201 201 403 403 403"),
    ("releases/", "GET", "releases/", None, "401 200 200 200 200 200 200"),
    ("releases/<uuid:id>/", "GET", f"releases/{NO_ID}/", None, "401 404 404 404 404 404 404"),
    ("plans/", "GET", "plans/", None, "401 200 200 200 200 200 200"),
    ("plans/<str:name>/", "GET", "plans/{plan}/", None, "401 200 200 200 200 200 200"),
    ("plans/<str:name>/", "GET", "plans/never-was/", None, "401 404 404 404 404 404 404"),
    ("plans/<str:name>/", "DELETE", "plans/{plan}/", None, "401 403 403 403 403 403 204"),
    # Of the account `asker`, for itself; `copied` is for others too.
    ("plans/<str:name>/bytes/", "GET", "plans/{plan}/bytes/", None, "401 403 403 403 403 403 403"),
    ("plans/<str:name>/bytes/", "GET", "plans/{copied}/bytes/", None, "401 200 200 200 200 200 200"),
    ("requests/", "GET", "requests/", None, "401 200 200 200 200 200 200"),
    ("requests/<uuid:id>/", "GET", "requests/{request}/", None, "401 404 200 404 200 200 404"),
    ("requests/<uuid:id>/approve/", "POST", "requests/{request}/approve/", WHY, "401 404 200 404 200 403 404"),
    ("requests/<uuid:id>/deny/", "POST", "requests/{request}/deny/", WHY, "401 404 200 404 200 403 404"),
    ("requests/<uuid:id>/withdraw/", "POST", "requests/{request}/withdraw/", {}, "401 404 403 404 403 403 404"),
    # One's own are one's own to see; of somebody else's, nobody but those who look after the node.
    ("sessions/", "GET", "sessions/", None, "401 200 200 200 200 200 200"),
    ("sessions/<uuid:id>/stop/", "POST", "sessions/{session}/stop/", WHY, "401 404 404 404 404 403 200"),
    ("audit/", "GET", "audit/", None, "401 403 403 403 403 200 200"),
    ("audit/verify/", "GET", "audit/verify/", None, "401 403 403 403 403 200 200"),
    ("membership/", "GET", "membership/", None, "401 403 403 403 403 403 200"),
    # Not the key that the network shows: nobody may pin it, and the one who is asked to says why.
    ("membership/", "POST", "membership/", {"public_key": "0" * 64}, "401 403 403 403 403 403 409"),
    ("challenge/", "POST", "challenge/", {}, "200 200 200 200 200 200 200"),
    ("sign-in/assertion/", "POST", "sign-in/assertion/", {}, "400 400 400 400 400 400 400"),
    # The network's routes do not exist on a node, for anybody.
    ("nodes/", "GET", "nodes/", None, "401 404 404 404 404 404 404"),
    ("nodes/", "POST", "nodes/", {}, "404 404 404 404 404 404 404"),
    (r"^nodes/(?P<id>[-a-z0-9]{1,40})/(?P<verb>approve|reject|remove)/$", "POST", "nodes/hospital/approve/", WHY,
     "401 404 404 404 404 404 404"),
    ("announcements/", "POST", "announcements/", {}, "404 404 404 404 404 404 404"),
    ("search/", "GET", "search/?q=open", None, "404 404 404 404 404 404 404"),
    ("search/facets/", "GET", "search/facets/?q=open", None, "401 200 200 200 200 200 200"),
    ("search/suggest/", "GET", "search/suggest/?prefix=o", None, "401 200 200 200 200 200 200"),
    ("assertions/", "POST", "assertions/", {}, "401 404 404 404 404 404 404"),
    ("sign-out/", "POST", "sign-out/", {}, "401 204 204 204 204 204 204"),
    ("", "GET", "nothing/", None, "404 404 404 404 404 404 404"),
]  # fmt: skip


@dataclass
class World:
    """A node with one listed and one hidden dataset of `owner`, and a token for everybody."""

    url: str
    tokens: dict[str, str]
    open: dict[str, Any]
    secret: dict[str, Any]
    numbers: Iterator[int]

    def fill(self, text: str) -> str:
        """Put names, or new objects, into a path or a body."""
        makers: dict[str, Callable[[], str]] = {
            "{open}": lambda: str(self.open["slug"]),
            "{secret}": lambda: str(self.secret["slug"]),
            "{n}": lambda: str(next(self.numbers)),
            "{request}": self.request,
            "{budget}": self.budget,
            "{grant}": self.grant,
            "{token}": self.token,
            "{plan}": lambda: self.plan(allow_download=False),
            "{copied}": lambda: self.plan(allow_download=True),
            "{session}": self.session,
        }
        for name, make in makers.items():
            if name in text:
                text = text.replace(name, make())
        return text

    def request(self) -> str:
        with RawClient(self.url, self.tokens["asker"]) as asker:
            return asker.request(asker.asset(self.open))

    def budget(self) -> str:
        """The open one of the account `asker`, who has one at a time."""
        asker = self.tokens["asker"]
        _, found = rest("GET", f"{self.url}/api/budget-requests/?state=submitted", token=asker)
        if found["results"]:
            return str(found["results"][0]["id"])
        _, made = rest("POST", f"{self.url}/api/datasets/{self.open['slug']}/budget/", BUDGET, token=asker)
        return str(made["id"])

    def grant(self) -> str:
        path = f"{self.url}/api/datasets/{self.open['slug']}/grants/"
        body = {"to": "reviewer-2", "right": "discover", "reason": "."}
        _, made = rest("POST", path, body, token=self.tokens["owner"])
        return str(made["id"])

    def plan(self, *, allow_download: bool) -> str:
        name = "copied" if allow_download else "double"
        with RawClient(self.url, self.tokens["asker"]) as asker:
            transfer = asker.upload(double(name), "plan")
            asker.ask(m.Plan(1, transfer, allow_download))
        return name

    def session(self) -> str:
        client = RawClient(self.url, self.tokens["asker"])
        session = str(UUID(client.welcome.session))
        client.lose()
        assert eventually(lambda: session in listed_sessions(self.url, self.tokens["asker"]))
        return session

    def token(self) -> str:
        _, made = rest("POST", f"{self.url}/api/tokens/", {"name": "to be revoked"}, token=self.tokens["asker"])
        return str(made["token"]).split("_")[1]


@pytest.fixture(scope="module")
def world(grid: LiveGrid) -> World:
    node = grid.company
    admin = sign_in(node.url, node.username, node.password)
    tokens = hire_everybody(node)
    bystander = {"username": "reviewer-2", "password": PASSWORD, "roles": ["scientist"]}
    assert rest("POST", f"{node.url}/api/users/", bystander, token=admin)[0] == 201
    rest("POST", f"{node.url}/api/teams/", {"slug": "ward", "name": "Ward", "members": []}, token=admin)
    with RawClient(node.url, tokens["owner"]) as owner:
        values = np.arange(40.0).reshape(20, 2)
        listed = owner.publish(values, name="matrix open", columns=COLUMNS)
        hidden = owner.publish(values, name="matrix secret", columns=COLUMNS, visibility="granted")
    return World(node.url, tokens, listed, hidden, count(1))


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: f"{row[1]} {row[2]}")
def test_each_person_gets_what_the_table_says(world: World, row: Row) -> None:
    assert statuses(world.url, world.tokens, row, world.fill) == expected(row)


def test_absent_and_forbidden_have_the_same_body(world: World) -> None:
    for path in ("datasets/{}/", "datasets/{}/grants/", "users/{}/"):
        hidden = {"datasets/{}/": world.secret["slug"], "users/{}/": "asker"}.get(path, world.secret["slug"])
        bodies = [
            rest("GET", f"{world.url}/api/{path.format(name)}", token=world.tokens["scientist"])[1]
            for name in (hidden, "never-was")
        ]
        assert bodies[0] == bodies[1]


def test_every_route_is_in_the_table_with_every_method() -> None:
    assert {row[:2] for row in ROUTES} == doors()


# --- frames -----------------------------------------------------------------------------------------------------

SPEC = m.PublishSpec(kind="tensor", name="n")
HEADER = m.TensorHeader("float64", [], 8)
NUMBER = tensor_digest("float64", (), bytes(8))
# Command, and for each of PEOPLE (anonymous cannot get past hello) the kind of answer or the code of the error:
# on the listed dataset and on the hidden one.
FRAMES: dict[type, tuple[str, str]] = {
    m.Get: (
        "authentication get_not_permitted answer get_not_permitted get_not_permitted not_permitted get_not_permitted",
        "authentication not_found answer not_found not_found not_permitted not_found",
    ),
    m.Estimate: (
        "authentication get_not_permitted estimated get_not_permitted get_not_permitted not_permitted"
        " get_not_permitted",
        "authentication not_found estimated not_found not_found not_permitted not_found",
    ),
    m.Take: (
        "authentication get_not_permitted answer get_not_permitted get_not_permitted not_permitted get_not_permitted",
        "authentication not_found answer not_found not_found not_permitted not_found",
    ),
    m.Request: (
        "authentication submitted submitted submitted submitted not_permitted submitted",
        "authentication not_found submitted not_found not_found not_permitted not_found",
    ),
    m.Fetch: (
        "authentication not_found not_permitted not_found not_permitted not_permitted not_found",
        "authentication not_found not_found not_found not_found not_found not_found",
    ),
    m.Plan: (
        "authentication not_found not_found not_found not_found not_found not_found",
        "authentication planned planned planned planned not_permitted planned",
    ),
    m.Publish: (
        "authentication not_found not_found not_found not_found not_found not_found",
        "authentication publish_not_permitted ack ack"
        " publish_not_permitted publish_not_permitted publish_not_permitted",
    ),
}
SAID = "authentication nothing nothing nothing nothing nothing nothing"
TAKEN = "authentication ack ack ack ack ack ack"
STORED = "authentication publish_not_permitted ack ack" + " publish_not_permitted" * 3
# What no question belongs to: each of PEOPLE hears nothing, an Ack, or the code of an error.
TELLS: list[tuple[type, str, Callable[[World], Any], str]] = [
    (m.Hello, "a second one", lambda world: m.Hello(world.tokens["owner"], 1, OPERATIONS_VERSION, "raw"),
     "authentication" + " invalid_input" * 6),
    (m.Begin, "another program", lambda world: m.Begin(), SAID),
    (m.Run, "the hidden dataset", lambda world: m.Run([Node(1, ASSET, [world.secret["id"], 1, "values"])]), SAID),
    (m.Run, "no operation", lambda world: m.Run([Node(1, "os::system", ["true"])]), SAID),
    (m.Constant, "one number", lambda world: m.Constant(NUMBER, HEADER, bytes(8)), SAID),
    (m.Constant, "another digest", lambda world: m.Constant("0" * 64, HEADER, bytes(8)), SAID),
    (m.Drop, "a value that never was", lambda world: m.Drop([Ref(77)]), SAID),
    (m.Ack, "no transfer of mine", lambda world: m.Ack(1, 10), SAID),
    (m.Upload, "constant", lambda world: m.Upload(1, 8, "0" * 64, "constant", NUMBER, HEADER), TAKEN),
    (m.Upload, "values", lambda world: m.Upload(1, 8, "0" * 64, "values"), STORED),
    (m.Upload, "mock", lambda world: m.Upload(1, 8, "0" * 64, "mock"), STORED),
    (m.Upload, "plan", lambda world: m.Upload(1, 8, "0" * 64, "plan"),
     "authentication ack ack ack ack not_permitted ack"),
    (m.Upload, "another purpose", lambda world: m.Upload(1, 8, "0" * 64, "answer"),
     "authentication" + " invalid_input" * 6),
    (m.Bye, "goodbye", lambda world: m.Bye(), "authentication closed closed closed closed closed closed"),
]  # fmt: skip


def _outcome(client: RawClient, command: Any) -> str:
    try:
        reply = client.ask(command) if hasattr(command, "ask") else _first(client, command)
    except GridError as error:
        return error.code
    return type(reply).__name__.lower()


def _first(client: RawClient, command: Any) -> Any:
    client.send(command)
    reply = client.receive()
    if isinstance(reply, m.Error):
        return type(reply.code, (), {})()
    return reply


def _commands(world: World, client: RawClient, kind: type, dataset: dict[str, Any], *, hidden: bool) -> Any:
    match kind:
        case m.Get:
            return m.Get(1, client.asset(dataset))
        case m.Estimate:
            node = client.asset(dataset)
            client.send(m.Run([Node(99, "aten::sum.dim_IntList", [node, [0]])]))
            return m.Estimate(1, Ref(99), 0.5)
        case m.Take:
            return m.Take(1, "module", ["weight"], [client.asset(dataset)])
        case m.Request:
            return m.Request(1, client.asset(dataset), "A test.")
        case m.Plan:
            return m.Plan(1, client.upload(double(fresh("plan")), "plan") if hidden else 77)
        case m.Fetch:
            return m.Fetch(1, "00000000-0000-0000-0000-000000000000" if hidden else world.request())
        case _:
            return m.Upload(9, 10, "", "values") if hidden else m.Publish(1, SPEC, 77)


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_each_person_gets_what_the_table_says_on_the_wire(world: World, kind: type) -> None:
    for hidden, words in zip((False, True), FRAMES[kind], strict=True):
        got = []
        for name in PEOPLE:
            try:
                with RawClient(world.url, world.tokens[name]) as client:
                    dataset = world.secret if hidden else world.open
                    got.append(_outcome(client, _commands(world, client, kind, dataset, hidden=hidden)))
            except GridError as error:
                got.append(error.code)
        assert by_name(got) == by_name(words.split()), hidden


def _heard(url: str, token: str, command: Any) -> str:
    """What the node says to a command before it answers the question that is sent behind it."""
    try:
        with RawClient(url, token) as client:
            client.send(command, m.Fetch(99, "no id"))
            reply = client.receive()
    except GridError as error:
        return error.code
    except ConnectionClosed:
        return "closed"
    if isinstance(reply, m.Refused):
        return "nothing" if reply.ask == 99 else reply.code
    return reply.code if isinstance(reply, m.Error) else type(reply).__name__.lower()


@pytest.mark.parametrize("row", TELLS, ids=lambda row: f"{row[0].__name__} {row[1]}")
def test_each_person_hears_what_the_table_says(
    world: World, row: tuple[type, str, Callable[[World], Any], str]
) -> None:
    command = row[2](world)
    heard = [_heard(world.url, world.tokens[name], command) for name in PEOPLE]
    assert by_name(heard) == by_name(row[3].split())


def test_every_frame_kind_is_in_a_table() -> None:
    assert set(typing.get_args(m.ClientCommand)) == set(FRAMES) | {row[0] for row in TELLS}


def test_a_value_of_another_session_cannot_be_named(world: World) -> None:
    with RawClient(world.url, world.tokens["owner"]) as owner, RawClient(world.url, world.tokens["scientist"]) as other:
        owner.asset(world.secret)
        with pytest.raises(GridError) as refused:
            other.get(Ref(1))
        assert refused.value.code in ("not_found", "invalid_input")
