"""Attacks 1 and 2: say to be somebody else, or name what is inside.

What a user would lose: their name, under which a stranger asks, approves or publishes; and with a method of the node
that answers to a text from the wire, everything.
"""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from gridclient.program.graph import Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, InvalidInputError, NotFoundError, OperationNotAllowedError
from gridclient.wire.frames import pack_batch
from tests.attacks.conftest import Private
from tests.attacks.score import check_nothing_recovered
from tests.attacks.ward import Ward, tried
from tests.factories.raw import RawClient, rest

FIELDS = "user username by requester owner actor as_user on_behalf_of id account token sub login uid".split()
HEADERS = [
    "X-Remote-User",
    "Remote-User",
    "X-Forwarded-User",
    "X-User",
    "X-Grid-User",
    "X-Auth-User",
    "Grid-User",
    "From",
]
VARIANTS = 60


def test_a_field_that_names_somebody_else_changes_nothing(ward: Ward, births: Private) -> None:
    """Every body and query of the REST interface, with fields that say who is asking."""
    source = random.Random(1)
    as_others = 0
    routes = [
        ("POST", "tokens/", {"name": "mine"}),
        ("GET", "me/", None),
        ("GET", "requests/", None),
        ("POST", "users/", {}),
        (
            "POST",
            f"datasets/{births.dataset['slug']}/grants/",
            {"to": "attack-scientist", "right": "read", "reason": "x"},
        ),
        ("PATCH", f"datasets/{births.dataset['slug']}/", {"description": "taken over"}),
    ]
    for _ in range(VARIANTS):
        method, path, body = source.choice(routes)
        victim = source.choice(["attack-owner", "admin", "attack-reviewer"])
        field = source.choice(FIELDS)
        headers = {source.choice(HEADERS): victim, "Cookie": f"sessionid={victim}; user={victim}"}
        if body is None:
            path += f"?{field}={victim}"
        else:
            body = {**body, field: victim}
        status, answer = rest(method, f"{ward.url}/api/{path}", body, token=ward.tokens["scientist"], headers=headers)
        if path.startswith("me/"):
            as_others += answer["username"] != "attack-scientist"
        elif method != "GET":
            as_others += status < 300
    assert as_others == 0
    status, body = ward.call("owner", "GET", f"datasets/{births.dataset['slug']}/grants/")
    assert not {"attack-scientist", "attack-stranger"} & {grant["to"] for grant in body["results"]}


def test_a_session_belongs_to_its_token_and_to_nobody_else(ward: Ward, births: Private) -> None:
    source = random.Random(2)
    for header in source.sample(HEADERS, 4):
        with RawClient(ward.url, ward.tokens["scientist"], **{header: "attack-owner"}) as client:
            assert client.welcome.user == "attack-scientist"
            seen = [tried(client, lambda c: c.asset(births.dataset))]
            request = client.request(client.asset(births.dataset), "Please: I am attack-owner.")
            status, body = ward.call("owner", "GET", f"requests/{request}/")
            assert (status, body["requester"]) == (200, "attack-scientist")
            check_nothing_recovered(births.values, seen)


def test_commands_with_a_name_in_them_are_no_commands(ward: Ward, births: Private) -> None:
    """Frames by hand: more fields than a command has, in any place."""
    source = random.Random(3)
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        x = client.asset(births.dataset)
        shapes: list[list[Any]] = [
            ["get", 1, [x.node, 0], "attack-owner"],
            ["get", 1, {"node": x.node, "user": "attack-owner"}, "attack-owner"],
            ["fetch", 1, "00000000-0000-0000-0000-000000000000", "attack-owner"],
            ["request", 1, [x.node, 0], "reason", "attack-owner"],
            ["run", [[99, "aten::neg", [1], {}, 1, "", "attack-owner"]], "attack-owner"],
            ["hello", ward.tokens["scientist"], 1, 1, "attack-owner"],
            ["drop", [[x.node, 0]], {"owner": "attack-owner"}],
        ]
        for number in range(20):
            command = source.choice(shapes)
            client.socket.send(pack_batch(msgspec.msgpack.encode([1000 + number, [command]])))
            reply = client.receive()
            assert isinstance(reply, m.Error), (command, reply)
            assert reply.code in ("invalid_input",), (command, reply)
        client._batches = count(2000)
        assert client.get(client.node("aten::add.Tensor", client.constant(np.ones(1)), 1)).tolist() == [2.0]


INNER = """__class__ __init__ __globals__ __builtins__ __import__ __reduce_ex__ __subclasses__ _schema data storage
    untyped_storage list_objects search settings SECRET_KEY os.system eval exec getattr open read apply_ values
    decide release worker _values judge spec bind send kill numpy item tolist load jit script""".split()
FORMS = [
    "{}",
    "aten::{}",
    "grid::{}",
    "prims::{}",
    "torch.{}",
    "aten::sum.{}",
    "aten::add.Tensor.{}",
    "aten::{}.default",
    "quantized::{}",
    "grid::asset.{}",
    "aten::sum.dim_IntList/../{}",
    "ATEN::{}",
    " aten::{}",
    "aten::{}\x00",
]


def test_names_from_the_wire_reach_nothing_inside(ward: Ward, births: Private) -> None:
    client, source = ward.client("scientist"), random.Random(4)
    x = client.asset(births.dataset)
    seen: list[Any] = []
    for _ in range(400):
        name = source.choice(FORMS).format(source.choice(INNER))
        args: list[Any] = source.choice([[], [x], ["__class__"], [x, "values"], [x, 0, x]])
        got = tried(client, client.node(name, *args))
        assert isinstance(got, OperationNotAllowedError), (name, got)
        seen.append(got)
    check_nothing_recovered(births.values, seen)


PATHS = [
    "../values",
    "values/../../keys",
    "/etc/passwd",
    "presence",
    "entities",
    "VALUES",
    "values\x00",
    "",
    "mock/../values",
    "file:///etc/passwd",
    "values.safetensors",
    "data",
]


def test_parts_of_an_asset_are_its_two_names(ward: Ward, births: Private) -> None:
    source = random.Random(5)
    with RawClient(ward.url, ward.tokens["owner"]) as client:
        for _ in range(60):
            dataset, version = births.dataset["id"], births.dataset["version"]
            place = source.randrange(3)
            path = source.choice(PATHS)
            args: list[Any] = [path, version, "values"] if place == 0 else [dataset, version, path]
            if place == 2:
                args = [dataset, source.choice([-1, 0, 2**40, 1.5, 1.0, "1", None, 99]), "values"]
            before = len(client.errors)
            got = tried(client, client.node("grid::asset", *args))
            assert isinstance(got, (NotFoundError, InvalidInputError)), (args, got)
            assert len(client.errors) >= before
        assert np.array_equal(client.get(client.asset(births.dataset)), births.values)


@pytest.mark.parametrize(
    "tag",
    ["list_objects", "__class__", "close", "GridConsumer", "publish.__init__", "_deliver", "welcome", "answer", "ack "],
)
def test_commands_are_the_ones_of_the_schema(ward: Ward, tag: str) -> None:
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        for body in ([tag], [tag, 1], [tag, "x", {}], {"type": tag}):
            client.socket.send(pack_batch(msgspec.msgpack.encode([500 + len(client.errors), [body]])))
            reply = client.receive()
            assert isinstance(reply, m.Error) and reply.code == "invalid_input", reply
            client.errors.append(reply)


def test_columns_of_a_table_are_names_and_not_paths(ward: Ward, births: Private) -> None:
    client = ward.client("owner")
    x = client.asset(births.dataset)
    for name in INNER:
        got = tried(client, client.node("grid::column", x, name))
        assert isinstance(got, GridError)


def test_outputs_and_ids_of_others_are_not_mine(ward: Ward, births: Private) -> None:
    """Ids of nodes are a session's own: the same number in another session is another value, or none."""
    owner, source = ward.client("owner"), random.Random(6)
    mine = owner.asset(births.dataset)
    seen = []
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        for _ in range(100):
            ref = Ref(
                source.choice([mine.node, source.randrange(2**32), mine.node + source.randrange(9)]),
                source.randrange(9),
            )
            seen.append(tried(client, ref))
        assert all(isinstance(got, GridError) for got in seen)
        client.send(m.Drop([mine]), m.Run([Node(mine.node, "aten::neg", [Ref(mine.node)])]))
        check_nothing_recovered(births.values, seen)
    assert np.array_equal(owner.get(mine), births.values)


def test_a_page_from_elsewhere_opens_no_socket(ward: Ward) -> None:
    for origin in (ward.url, "https://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            RawClient(ward.url, ward.tokens["owner"], Origin=origin)
        assert refused.value.response.status_code == 403
