"""What a session is made from: found again from what is held, kept within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from gridclient import backoff, settings
from gridclient.batches import ANSWER_AFTER, Batches
from gridclient.http import Http
from gridclient.lineage import Known, Lineage
from gridclient.program.graph import Node, Ref, constant
from gridclient.wire import messages as m
from gridclient.wire.errors import ConnectionLostError


def known(digest: str, nbytes: int = 8) -> Known:
    return Known(digest, m.TensorHeader("uint8", [nbytes], nbytes), bytes(nbytes))


def add(lineage: Lineage, node: Node, held: list[Ref] | None = None) -> None:
    lineage.add(node, m.pack(node), held or ())


def said(lineage: Lineage, asked: list[Ref] | None = None) -> list[str]:
    """Operations, and constants in brackets."""
    found, _ = lineage.replay(asked or ())
    decode = msgspec.msgpack.Decoder(Any, ext_hook=lambda code, data: None).decode
    return [f"[{item.digest}]" if isinstance(item, Known) else decode(item)[1] for item in found]


def test_only_what_live_values_need_is_said_again() -> None:
    lineage = Lineage()
    lineage.know(known("a"))
    add(lineage, constant(0, "a"))
    lineage.know(known("b"))
    add(lineage, constant(1, "b"))
    add(lineage, Node(2, "aten::neg", [Ref(0)]))
    add(lineage, Node(3, "aten::abs", [Ref(1)]))
    for ref in (Ref(0), Ref(1), Ref(3)):
        lineage.drop(ref)
    assert said(lineage) == ["[a]", "grid::constant", "aten::neg"]
    assert lineage.replay()[1] == [Ref(0)]
    assert said(lineage, [Ref(3)]) == ["[a]", "grid::constant", "[b]", "grid::constant", "aten::neg", "aten::abs"]


def test_a_node_of_several_values_lives_as_long_as_one_of_them() -> None:
    lineage = Lineage()
    add(lineage, Node(0, "aten::sort", [], {}, 2))
    add(lineage, Node(1, "grid::plan", [Ref(0, 1)]), [Ref(3), Ref(5, 1)])
    add(lineage, Node(9, "aten::neg", [Ref(5, 1)]))
    for ref in (Ref(0), Ref(0, 1), Ref(3), Ref(9)):
        lineage.drop(ref)
    assert said(lineage) == ["aten::sort", "grid::plan"]
    lineage.drop(Ref(5, 1))
    assert said(lineage) == []


def test_what_nobody_needs_is_forgotten_before_the_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "replay_memory", 50_000)
    lineage = Lineage()
    for number in range(0, 2000, 2):
        digest = str(number)
        lineage.know(known(digest, 1000))
        add(lineage, constant(number, digest))
        add(lineage, Node(number + 1, "aten::neg", [Ref(number)]))
        lineage.drop(Ref(number))
        if number:
            lineage.drop(Ref(number + 1))
    assert not lineage.too_long
    assert len(lineage) < 200
    assert said(lineage) == ["[0]", "grid::constant", "aten::neg"]
    for number in range(2000, 2400):
        add(lineage, Node(number, "aten::neg", [Ref(1)]))
    assert lineage.too_long


def test_a_constant_that_is_about_to_be_named_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "replay_memory", 10_000)
    lineage = Lineage()
    lineage.know(known("early"))
    for number in range(100):
        add(lineage, Node(number, "aten::neg", []))
        lineage.drop(Ref(number))
    assert said(lineage) == ["[early]"]
    add(lineage, constant(100, "early"))
    assert said(lineage) == ["[early]", "grid::constant"]


def test_who_only_listens_says_so_from_time_to_time() -> None:
    batches = Batches()
    for number in range(2, ANSWER_AFTER + 1):
        assert batches.take(m.NodeBatch(number, []))
    assert not batches.owes
    assert batches.take(m.NodeBatch(ANSWER_AFTER + 1, []))
    assert batches.owes
    assert not batches.take(m.NodeBatch(5, []))
    (frame,) = batches.pack([], lambda *_: None)
    assert m.decode_client(frame[17:]).seen == ANSWER_AFTER + 1
    assert batches.unseen() == []
    assert not batches.owes


def test_what_the_node_has_seen_is_kept_no_longer() -> None:
    batches = Batches()
    frames = [frame for ask in range(1, 6) for frame in batches.pack([m.Fetch(ask, "r")], lambda *_: None)]
    batches.take(m.NodeBatch(2, [], seen=4))
    assert batches.unseen() == frames[3:]


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Http, list[httpx.Request], list[Exception | None]]]:
    """A deployment that was met, the calls that it gets, and what becomes of the next ones."""
    monkeypatch.setattr(backoff, "FIRST", 0.001)
    calls: list[httpx.Request] = []
    fates: list[Exception | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if fates and (fate := fates.pop(0)) is not None:
            raise fate
        return httpx.Response(200, json={"call": len(calls)})

    http = Http("http://hospital.example")
    http._client.close()
    http._client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://hospital.example/api/")
    http.get("identity/")
    calls.clear()
    yield http, calls, fates
    http.close()


def test_rest_calls_are_made_again_under_the_same_key(
    flaky: tuple[Http, list[httpx.Request], list[Exception | None]],
) -> None:
    http, calls, fates = flaky
    fates += [httpx.ConnectError("refused"), httpx.RemoteProtocolError("hung up"), None]
    assert http.post("grants/", to="ana") == {"call": 3}
    (key,) = {call.headers["Idempotency-Key"] for call in calls}
    assert len(key) == 32
    assert http.post("grants/", to="ana") == {"call": 4}
    assert calls[-1].headers["Idempotency-Key"] != key
    fates += [httpx.ReadError("reset"), None]
    assert http.get("datasets/") == {"call": 6}
    assert "Idempotency-Key" not in calls[-1].headers


def test_rest_calls_are_given_up(
    flaky: tuple[Http, list[httpx.Request], list[Exception | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    http, calls, fates = flaky
    fates += [httpx.ConnectError("refused")] * 1000
    monkeypatch.setattr(settings, "reconnect_for", 0.05)
    with pytest.raises(ConnectionLostError, match="Nobody answers"):
        http.get("datasets/")
    assert len(calls) > 1
    calls.clear()
    with pytest.raises(ConnectionLostError):
        http.sign_out()
    assert len(calls) == 1
    stranger = Http("http://127.0.0.1:9")
    with pytest.raises(ConnectionLostError, match="Nobody answers"):
        stranger.get("identity/")
    stranger.close()
