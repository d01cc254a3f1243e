"""Private values that are like no other bytes, and everybody at every door of their node: out comes what is granted."""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from django.urls import URLPattern, URLResolver
from safetensors.numpy import save

from apps.api.urls import urlpatterns
from gridclient.program.graph import Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError, GridError
from gridclient.wire.frames import unpack
from tests.factories import canaries as known
from tests.factories import databases
from tests.factories.canaries import PRIVATE, canaries
from tests.factories.doors import Doors
from tests.factories.processes import wait_until
from tests.factories.raw import RawClient
from tests.factories.staff import PASSWORD, Staff, publish_table, single_node
from tests.wire.test_consumer import BAD_FRAMES

ROLES = {"scientist": "scientist", "reader": "scientist", "adder": "scientist", "owner": "owner", "other": "owner",
         "reviewer": "reviewer", "auditor": "auditor", "bystander": "scientist"}  # fmt: skip
PEOPLE = ("", "scientist", "other", "owner", "reviewer", "auditor", "admin")
SCRAPER = "a-token-for-the-scraper-0123456789"
OUTSIDERS = ("scientist", "other", "reviewer", "auditor", "admin")


class Recording:
    """A socket that keeps all that arrives."""

    def __init__(self, socket: Any, heard: list[bytes]) -> None:
        self._socket, self._heard = socket, heard
        self.send = socket.send

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> bytes:
        data: bytes = self._socket.recv(timeout=timeout, decode=decode)
        self._heard.append(data)
        return data


@dataclass
class Vault:
    """The node, its people, and the datasets whose values are canaries."""

    staff: Staff
    folder: Path
    tensor: dict[str, Any]
    whole: dict[str, Any]
    table: dict[str, Any]
    request: str
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def datasets(self) -> list[dict[str, Any]]:
        return [self.tensor, self.whole, self.table]

    def listen(self, name: str) -> tuple[RawClient, list[bytes]]:
        """A client of this person and all that it hears."""
        client, heard = self.staff.client(name), list[bytes]()
        client.socket = Recording(client.socket, heard)  # type: ignore[assignment]
        return client, heard


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    folder = tmp_path_factory.mktemp("vault")
    with single_node(folder, GRID_METRICS_TOKEN=SCRAPER) as server:
        staff = Staff(server)
        for name, role in ROLES.items():
            staff.hire(name, role)
        staff.call("admin", "POST", "teams/", {"slug": "ward", "name": "Ward", "members": []})
        with staff.client("owner") as owner:
            tensor = owner.publish(known.FLOATS, name="canary tensor", columns=known.FLOAT_COLUMNS)
            whole = owner.publish(known.WHOLE, name="canary whole", columns=known.WHOLE_COLUMNS, visibility="granted")
            spec: dict[str, Any] = {"name": "canary table", "entities": "person"}
            table = publish_table(owner, known.table(), known.TABLE_COLUMNS, 900, **spec)
        staff.give("owner", tensor, "reader", "read")
        staff.give("owner", tensor, "adder", "aggregate")
        with staff.client("adder") as adder:
            request = adder.request(adder.node("aten::select.int", adder.asset(tensor), 0, 3))
        staff.call("owner", "POST", f"requests/{request}/approve/", {"reason": "A test."})
        wait_until(
            lambda: bool(staff.call("adder", "GET", f"requests/{request}/")["answered_at"]), 20, "the answer is stored"
        )
        yield Vault(staff, folder, tensor, whole, table, request)


def released(vault: Vault) -> int:
    return len(vault.staff.events("value_released"))


# --- what is granted comes out, with exactly one event ----------------------------------------------------------


def test_what_is_granted_comes_out_with_one_event_each(vault: Vault) -> None:
    with vault.staff.client("owner") as owner, vault.staff.client("reader") as reader:
        for client in (owner, reader, reader):
            before = released(vault)
            assert np.array_equal(client.get(client.asset(vault.tensor)), known.FLOATS)
            assert released(vault) == before + 1
        before = released(vault)
        assert np.array_equal(owner.get(owner.asset(vault.whole)), known.WHOLE)
        assert released(vault) == before + 1


def test_aggregate_comes_out_with_one_event_each_also_from_the_store(vault: Vault) -> None:
    answers = []
    for _ in range(2):
        with vault.staff.client("adder") as adder:
            for _ in range(2):
                before = released(vault)
                answers.append(adder.get(adder.node("aten::sum.dim_IntList", adder.asset(vault.tensor), [0])).tobytes())
                assert released(vault) == before + 1
    assert len(set(answers)) == 1
    assert np.allclose(np.frombuffer(answers[0]), known.SUMS)


def test_delivery_is_one_event_each_time_and_no_release(vault: Vault) -> None:
    before, deliveries = released(vault), len(vault.staff.events("request_delivered"))
    with vault.staff.client("adder") as adder:
        for number in (1, 2):
            assert np.array_equal(adder.fetch(vault.request), known.FLOATS[3])
            assert len(vault.staff.events("request_delivered")) == deliveries + number
    assert released(vault) == before


def test_public_value_and_refusal_leave_no_event_of_a_release(vault: Vault) -> None:
    before = len(vault.staff.events())
    with vault.staff.client("scientist") as client:
        assert client.get(client.node("aten::neg", client.constant(np.ones(3)))).tolist() == [-1, -1, -1]
        client.get(client.asset(vault.tensor, "mock"))
        with pytest.raises(GetNotPermittedError):
            client.get(client.asset(vault.tensor))
    assert len(vault.staff.events()) == before


def test_events_of_releases_name_who_what_and_why(vault: Vault) -> None:
    with vault.staff.client("reader") as reader:
        reader.get(reader.asset(vault.tensor))
    event = vault.staff.events("value_released")[-1]
    assert event["actor"] == "reader"
    assert event["target"] == f"dataset:{vault.tensor['id']}@{vault.tensor['version']}"
    assert (event["payload"]["route"], event["payload"]["label"], event["payload"]["shape"]) == (
        "read",
        "rows",
        [14, 2],
    )


# --- frames -----------------------------------------------------------------------------------------------------


def programs(client: RawClient, dataset: dict[str, Any]) -> list[Ref]:
    """Values that lie near the private ones, some of which fail where the data is."""
    value = client.asset(dataset)
    if dataset["kind"] == "table":
        value = client.node("grid::column", value, "amount")
    half = client.node("aten::mul.Tensor", value, 0.5)
    return [
        value,
        half,
        client.node("aten::sum", value),
        client.node("aten::mean", half),
        client.node("aten::select.int", value, 0, 2),
        client.node("aten::slice.Tensor", value, 0, 3, 4),
        client.node("aten::amax", value),
        client.node("aten::median", value),
        client.node("aten::argmax", value),
        client.node("aten::sort", value, outputs=2),
        client.node("aten::index_select", value, 0, client.node("aten::_to_copy", value, dtype="int64")),
        client.node("aten::view", value, [3, 5]),
        client.node("aten::mm", value, value),
        client.node("aten::neg", value, value),
        client.node("grid::column", value, known.UNDECLARED[0]),
        client.node("grid::count", value),
        client.node("os::system", value),
    ]


def ask_everything(vault: Vault, name: str) -> list[bytes]:
    """All kinds of frames about all datasets, as this person, and all that was heard."""
    client, heard = vault.listen(name)
    with client:
        for dataset in vault.datasets:
            asset = client.asset(dataset)
            for value in [*programs(client, dataset), client.asset(dataset, "mock"), Ref(10**6), asset]:
                for make in (
                    lambda ask, ref: m.Get(ask, ref),
                    lambda ask, ref: m.Request(ask, ref, "A test."),
                ):
                    with_error(client, make(1000 + next(vault.numbers), value))
        for request in (vault.request, "no id", "00000000-0000-0000-0000-000000000000"):
            with_error(client, m.Fetch(1000 + next(vault.numbers), request))
        client.send(m.Drop([asset, Ref(10**6)]), m.Run([Node(1, "aten::neg", [asset])]))
        # Fewer than the session bears.
        for frame in [*BAD_FRAMES.values()][:24]:
            client.socket.send(frame)
            client.receive()
    return heard


def with_error(client: RawClient, command: Any) -> GridError | None:
    """Ask, whatever is answered."""
    try:
        reply = client.ask(command)
    except GridError as error:
        return error
    if isinstance(reply, m.Answer) and reply.data is None:
        client._value(reply)
    return None


@pytest.mark.parametrize("name", OUTSIDERS)
def test_no_frame_tells_a_value_to_who_may_not_know_it(vault: Vault, name: str) -> None:
    heard = ask_everything(vault, name)
    assert len(heard) > 100
    assert not canaries((*PRIVATE, "sum")).found(b"\0".join(heard))


def test_grant_for_sums_is_none_for_rows(vault: Vault) -> None:
    heard = [data for data in ask_everything(vault, "adder") if not _delivers(data, vault)]
    assert not canaries().found(b"\0".join(heard))


def _delivers(data: bytes, vault: Vault) -> bool:
    """Whether this frame is the answer that the owner approved for `adder`."""
    (command,) = m.decode_node(unpack(data).body).commands
    return isinstance(command, m.Answer) and command.data == known.FLOATS[3].tobytes()


def test_refused_upload_is_told_without_its_values(vault: Vault) -> None:
    client, heard = vault.listen("other")
    undeclared = {"group": pa.array(known.UNDECLARED)}
    columns = known.TABLE_COLUMNS
    with client:
        for number, (changes, declared, spec) in enumerate(
            [
                (undeclared, columns, {"entities": "person"}),
                ({known.UNDECLARED[0]: pa.array(known.AMOUNTS)}, columns, {"entities": "person"}),
                ({"person": pa.array([known.PEOPLE[0]] * 14)}, columns, {"entities": "person"}),
                ({"day": pa.array(known.UNDECLARED)}, columns, {"entities": "person"}),
                ({"amount": pa.array(known.OUTSIDE[:, 0])}, columns, {"entities": "person"}),
                ({}, columns, {"entities": "nobody"}),
            ],
            1,
        ):
            with pytest.raises(GridError):
                publish_table(client, known.table(**changes), declared, 2000 + number, name="bad", **spec)
        for number, values in enumerate([known.OUTSIDE, known.FLOATS * np.nan, known.WHOLE / 7], 1):
            transfer = client.upload(save({"values": values}), "values")
            tensor = m.PublishSpec(kind="tensor", name="bad", columns=known.FLOAT_COLUMNS)
            refused = with_error(client, m.Publish(3000 + number, tensor, transfer))
            assert refused is not None
            assert refused.code == "invalid_input"
    assert not canaries().found(b"\0".join(heard))


# --- REST -------------------------------------------------------------------------------------------------------


def routes(patterns: list[Any]) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            yield str(pattern.pattern)


def fill(vault: Vault, route: str) -> list[str]:
    """Paths of a route. What is deleted or decided on the way was made for it."""
    if route.startswith("^nodes/"):
        return ["nodes/vault/approve/"]
    places = {
        "<str:username>": ["bystander"],
        "<str:prefix>": [vault.staff.tokens["bystander"].split("_")[1]],
        "<int:id>": ["1", "2"],
        "<uuid:id>": [vault.request],
        "<str:name>": ["never-was"],
        "<str:slug>": ["ward"] if route.startswith("teams/") else [dataset["slug"] for dataset in vault.datasets],
    }
    found = [place for place in places if place in route]
    assert "<" not in re.sub("|".join(map(re.escape, places)), "", route), f"Tell this test how to fill {route}."
    return [route.replace(found[0], value) for value in places[found[0]]] if found else [route or "nothing/"]


FULL = b'{"reason": "x", "description": "x", "right": "read", "to": "nobody"}'
CALLS = [("GET", None), ("PUT", b"{}"), ("POST", b"{}"), ("POST", FULL), ("PATCH", b"{}"), ("PATCH", b"[[[1"),
         ("DELETE", b"")]  # fmt: skip


@pytest.mark.parametrize("name", PEOPLE)
def test_no_route_tells_a_value(vault: Vault, name: str) -> None:
    doors = Doors(vault.staff.url)
    headers = {"Content-Type": "application/json"}
    if name:
        account = json.dumps({"username": name, "password": PASSWORD}).encode()
        _, answer = doors.call("POST", "/api/sign-in/", account, **headers)
        headers["Authorization"] = f"Bearer {json.loads(answer)['token']}"
    kept = {("DELETE", "grants/<int:id>/"), ("POST", "sign-out/")}
    for route in routes(urlpatterns):
        for path in fill(vault, route):
            for method, body in CALLS:
                if (method, route) not in kept:
                    status, _ = doors.call(method, f"/api/{path}", body, **headers)
                    assert status != 500, (method, path)
    for path in ("/healthz", "/readyz", "/metrics"):
        for authorization in (headers.get("Authorization", ""), f"Bearer {SCRAPER}"):
            doors.call("GET", path, Authorization=authorization)
    for query in ("datasets/?q=canary", "requests/?state=delivered", "audit/?limit=1000", "audit/?after=x"):
        doors.call("GET", f"/api/{query}", **headers)
    assert len(doors.heard) > 300
    assert not canaries((*PRIVATE, "sum")).found(b"\0".join(doors.heard))


# --- the console ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEOPLE)
def test_no_page_of_the_console_shows_a_value(vault: Vault, name: str) -> None:
    """Every page that links lead to, the owner's own pages too: the console shows what data is, never what is in it."""
    doors = Doors(vault.staff.url)
    if name:
        doors.sign_in(name)
    kinds = Counter[str]()
    seen, waiting = set[str](), ["/admin/", f"/admin/datasets/dataset/{vault.tensor['id']}/change/"]
    waiting += [f"/admin/datarequests/datarequest/{vault.request}/change/", "/admin/compute/storedanswer/"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, page = doors.call("GET", path)
        assert status != 500, path
        for link in re.findall(r'(?:href|action|hx-get)="([^"]*)"', page):
            target = urllib.parse.urljoin(path, html.unescape(link)).partition("#")[0]
            if not target.startswith("/admin/") or "logout" in target:
                continue
            place, _, query = target.partition("?")
            # Orders and filters of a list combine without end, and each event has a page: some of each are enough.
            kind = f"{place}?{query.partition('=')[0]}" if query else re.sub(r"/[^/]+/change/", "/change/", place)
            if target not in seen and kinds[kind] < (1 if query else 4):
                kinds[kind] += 1
                waiting.append(target)
    text = b"\0".join(set(doors.heard))
    if name in ("owner", "auditor"):
        assert f"/admin/datasets/dataset/{vault.whole['id']}/change/" in seen
        assert b"canary whole" in text
    assert not canaries((*PRIVATE, "sum")).found(text)


# --- what is kept -----------------------------------------------------------------------------------------------


def test_no_value_is_kept_outside_the_vault(vault: Vault) -> None:
    """Database and its write-ahead log, server's log, audit head, keys, session folders: in binary and in decimal."""
    deployment = vault.folder / "vault"
    kept = deployment / "storage" / "datasets"
    answer = deployment / "storage" / "requests" / vault.request / "answer"
    files = [path for path in deployment.rglob("*") if path.is_file()]
    assert {"server.log", "audit.head"} <= {path.name for path in files}
    search = canaries()
    database = databases.content(deployment)
    assert b"canary whole" in database and not search.found(database)
    inside = [path for path in files if path.is_relative_to(kept) and search.found(path.read_bytes())]
    assert len(inside) == 3  # the search finds what is there
    assert search.found(answer.read_bytes())
    outside = {path: search.found(path.read_bytes()) for path in files if path != answer and kept not in path.parents}
    assert not {path: found for path, found in outside.items() if found}


def test_identifiers_of_people_are_kept_nowhere(vault: Vault) -> None:
    search = canaries(["identifier"])
    files = [path for path in vault.folder.rglob("*") if path.is_file()]
    assert not {path: found for path in files if (found := search.found(path.read_bytes()))}
    assert not search.found(databases.content(vault.folder / "vault"))
