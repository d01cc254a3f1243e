"""The wire from the client's side: what is sent when, what comes back, and what happens when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import gridclient as grid
from gridclient import settings
from gridclient.node import Node
from gridclient.program.graph import Node as Operation
from gridclient.program.graph import Ref, constant, tensor_digest
from gridclient.transfers import Outgoing, Parts
from gridclient.values import bytes_of, header_of
from gridclient.wire import messages as m
from gridclient.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    GetNotPermittedError,
    InvalidInputError,
    LimitExceededError,
)
from gridclient.wire.frames import CHUNK_SIZE, CHUNKS_IN_FLIGHT
from tests.sdk.fake_node import FakeNode, running


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        yield node


@pytest.fixture
def hospital(fake: FakeNode) -> Iterator[Node]:
    with grid.connect(fake.url, username="bob", password="correct horse") as node:
        yield node


def put(node: Node, number: int, tensor: torch.Tensor) -> Ref:
    header = header_of(tensor)
    digest = tensor_digest(header.dtype, header.shape, bytes_of(tensor))
    node.constant(digest, tensor)
    node.append(constant(number, digest))
    return Ref(number)


def heard(fake: FakeNode, kind: type[Any]) -> list[Any]:
    return [command for command in fake.commands if isinstance(command, kind)]


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(6, dtype=torch.int64).reshape(2, 3),
        torch.tensor(2.5, dtype=torch.float64),
        torch.tensor([True, False]),
        torch.randn(3, 4).to(torch.bfloat16),
        torch.empty(0, 5),
        torch.randn(4, 6).T,
    ],
)
def test_a_value_comes_back_as_it_was_sent(hospital: Node, value: torch.Tensor) -> None:
    found = hospital.get(put(hospital, 0, value), None)
    assert found.dtype == value.dtype
    assert torch.equal(found, value)
    found.add_(1) if value.dtype != torch.bool else found.logical_not_()


def test_a_long_value_survives_the_way_there_and_back(fake: FakeNode, hospital: Node) -> None:
    value = torch.randn(3 * CHUNK_SIZE // 4 * CHUNKS_IN_FLIGHT + 17)
    assert torch.equal(hospital.get(put(hospital, 0, value), None), value)
    (upload,) = heard(fake, m.Upload)
    assert upload.nbytes == value.numel() * 4


def test_a_hundred_operations_and_a_get_are_few_batches(fake: FakeNode, hospital: Node) -> None:
    hospital.get(put(hospital, 0, torch.ones(2)), None)
    fake.commands.clear()
    for number in range(1, 101):
        hospital.append(Operation(number, "aten::add.Tensor", [Ref(number - 1), 1]))
    assert hospital.get(Ref(100), None).tolist() == [101.0, 101.0]
    assert sum(len(command.nodes) for command in heard(fake, m.Run)) == 100
    assert len(heard(fake, m.Run)) <= 5
    assert len(fake.commands) == len(heard(fake, m.Run)) + 1  # the last batch brings the question too


def test_the_node_works_while_the_client_still_records(fake: FakeNode, hospital: Node) -> None:
    hospital.get(put(hospital, 0, torch.ones(2)), None)
    fake.commands.clear()
    hospital.append(Operation(1, "aten::neg", [Ref(0)]))
    until = time.monotonic() + 5
    while not heard(fake, m.Run) and time.monotonic() < until:
        time.sleep(0.005)
    assert heard(fake, m.Run)


def test_looking_around_starts_no_session(fake: FakeNode, hospital: Node) -> None:
    put(hospital, 0, torch.ones(2))
    put(hospital, 1, torch.ones(4000))
    assert hospital.datasets() == []
    time.sleep(0.02)
    assert fake.sessions == 0
    assert hospital.get(Ref(1), None).shape == (4000,)
    assert fake.sessions == 1


def test_no_operation_overtakes_its_long_constant(fake: FakeNode, hospital: Node) -> None:
    for number in range(0, 40, 2):
        put(hospital, number, torch.full((3000,), float(number)))
        hospital.append(Operation(number + 1, "aten::sum", [Ref(number)]))
    assert [hospital.get(Ref(n + 1), None).item() for n in range(0, 40, 2)] == [3000.0 * n for n in range(0, 40, 2)]
    order = [node.id for run in heard(fake, m.Run) for node in run.nodes]
    assert order == sorted(order)


def test_a_dropped_value_is_named_after_its_operation(fake: FakeNode, hospital: Node) -> None:
    hospital.get(put(hospital, 0, torch.ones(2)), None)
    fake.commands.clear()
    hospital.append(Operation(1, "aten::neg", [Ref(0)]))
    hospital.drop(Ref(1))
    hospital.get(Ref(0), None)
    kinds = [type(command) for command in fake.commands]
    assert kinds.index(m.Run) < kinds.index(m.Drop)
    assert heard(fake, m.Drop)[0].values == [Ref(1)]


def test_threads_share_a_connection(hospital: Node) -> None:
    put(hospital, 0, torch.ones(2))
    found: list[float] = []

    def many() -> None:
        for _ in range(30):
            found.append(hospital.get(Ref(0), None).sum().item())

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2.0] * 240


def test_a_refusal_says_what_is_possible_and_carries_the_request(fake: FakeNode, hospital: Node) -> None:
    fake.permitted = False
    ref = put(hospital, 0, torch.ones(2))
    with pytest.raises(GetNotPermittedError, match="request") as refused:
        hospital.get(ref, None)
    assert refused.value.details["possible"] == ["request"]
    request = refused.value.request(reason="Monthly report")  # type: ignore[attr-defined]
    assert (request.state, request.reason) == ("submitted", "Monthly report")


def test_a_failed_operation_is_named_with_its_line(hospital: Node) -> None:
    put(hospital, 0, torch.ones(2))
    hospital.append(Operation(1, "aten::view", [Ref(0), [3]], line="notebook.py:12"))
    with pytest.raises(InvalidInputError, match=r"aten::view failed.*notebook\.py:12") as failed:
        hospital.get(Ref(1), None)
    assert failed.value.details["line"] == "notebook.py:12"
    assert hospital.get(Ref(0), None).tolist() == [1.0, 1.0]


def test_an_error_outside_a_question_surfaces_at_the_next_get_once(fake: FakeNode, hospital: Node) -> None:
    ref = put(hospital, 0, torch.ones(2))
    hospital.get(ref, None)
    wrong = m.Error("limit_exceeded", "Too many nodes.", {"limit": 5, "line": "a.py:3"})
    fake.on_command = lambda command: [wrong] if isinstance(command, m.Run) else None
    hospital.append(Operation(1, "aten::neg", [ref]))
    with pytest.raises(LimitExceededError, match=r"Too many nodes.*a\.py:3"):
        hospital.get(ref, None)
    assert hospital.get(ref, None).tolist() == [1.0, 1.0]


def test_a_refused_upload_ends_with_its_error(fake: FakeNode, hospital: Node) -> None:
    def refuse(command: Any) -> list[Any] | None:
        if isinstance(command, m.Upload):
            return [m.Error("publish_not_permitted", "You may not publish here.", {}, command.transfer)]
        return None

    fake.on_command = refuse
    with pytest.raises(grid.PublishNotPermittedError):
        grid.private_tensor(torch.ones(3)).send(hospital)
    put(hospital, 0, torch.ones(4000))
    with pytest.raises(grid.PublishNotPermittedError):
        hospital.get(Ref(0), None)


def test_a_revoked_session_says_so(fake: FakeNode, hospital: Node) -> None:
    ref = put(hospital, 0, torch.ones(2))
    hospital.get(ref, None)
    goodbye = m.Goodbye("authentication", "This token was revoked; sign in again.")
    fake.on_command = lambda command: [goodbye]
    for _ in range(2):
        with pytest.raises(AuthenticationError, match="revoked"):
            hospital.get(ref, None)
    assert hospital.lost


def test_a_node_that_goes_away_is_waited_for_as_long_as_one_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "reconnect_for", 0.3)
    fake = FakeNode()
    fake.permitted = True
    with running(fake):
        node = grid.connect(fake.url, username="bob", password="correct horse")
        ref = put(node, 0, torch.ones(2))
        node.get(ref, None)
        fake.on_command = lambda command: []
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                node.get(ref, None)
            except ConnectionLostError as error:
                ended.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.05)
    waiting.join(5)
    assert len(ended) == 1
    assert fake.url in str(ended[0])
    assert "reconnect_for" in str(ended[0])
    with pytest.raises(ConnectionLostError):
        node.get(ref, None)
    node.close()


def test_a_node_that_never_answers_is_given_up(fake: FakeNode, hospital: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = put(hospital, 0, torch.ones(2))
    hospital.get(ref, None)
    fake.on_command = lambda command: []
    monkeypatch.setattr(settings, "timeout", 0.1)
    with pytest.raises(ConnectionLostError, match="did not answer"):
        hospital.get(ref, None)


@pytest.mark.parametrize(
    "answer",
    [
        m.Answer(1, "tensor", m.TensorHeader("float32", [2**40, 2**20], 2**62), None, 1, ""),
        m.Answer(1, "table", m.TensorHeader("", [1, 1], 2**62), None, 1, ""),
        m.Answer(1, "tensor", m.TensorHeader("float32", [3], 8), None, 1, ""),
        m.Answer(1, "tensor", m.TensorHeader("complex64", [1], 8), b"12345678"),
        m.Answer(1, "tensor", m.TensorHeader("float32", [3], 12), b"1234"),
        m.Answer(1, "table", m.TensorHeader("", [1, 1], 4), b"1234"),
    ],
)
def test_a_lying_node_takes_no_memory_and_gives_no_nonsense(fake: FakeNode, hospital: Node, answer: m.Answer) -> None:
    fake.on_command = lambda command: [answer] if isinstance(command, m.Get) else None
    with pytest.raises((ConnectionLostError, LimitExceededError, InvalidInputError)):
        hospital.get(put(hospital, 0, torch.ones(2)), None)


def test_a_damaged_answer_is_not_handed_over(fake: FakeNode, hospital: Node) -> None:
    def damage(command: Any) -> list[Any] | None:
        if isinstance(command, m.Get):
            return [m.Answer(command.ask, "tensor", m.TensorHeader("float32", [0], 0), None, 9, "00")]
        return None

    fake.on_command = damage
    with pytest.raises(ConnectionLostError, match="sha256"):
        hospital.get(put(hospital, 0, torch.ones(2)), None)


def test_close_says_goodbye_and_ends_the_token(fake: FakeNode) -> None:
    node = grid.connect(fake.url, username="bob", password="correct horse")
    ref = put(node, 0, torch.ones(2))
    node.get(ref, None)
    node.close()
    node.close()
    assert isinstance(fake.commands[-1], m.Bye)
    assert list(fake.tokens) == ["grd_12345678_bob"]
    with pytest.raises(ConnectionLostError, match="closed"):
        node.get(ref, None)


def test_a_batch_too_long_for_a_frame_is_refused_here(hospital: Node) -> None:
    ref = put(hospital, 0, torch.ones(2))
    hospital.append(Operation(1, "aten::view", [ref, [1] * (9 * 2**20)]))
    with pytest.raises(LimitExceededError, match="tensor"):
        hospital.get(ref, None)


def test_pieces_lose_no_byte() -> None:
    parts: list[Any] = [b"ab", bytearray(b"cdefg"), memoryview(b""), memoryview(b"hijklmnop")]
    found = [bytes(Parts(parts).piece(offset, 4)) for offset in range(0, 16, 4)]
    assert found == [b"abcd", b"efgh", b"ijkl", b"mnop"]


def test_no_more_chunks_are_under_way_than_agreed() -> None:
    value = torch.zeros(20 * CHUNK_SIZE, dtype=torch.uint8)
    outgoing = Outgoing(1, [bytes_of(value)], "constant", header=header_of(value))
    assert len(list(outgoing.acknowledge(0))) == CHUNKS_IN_FLIGHT
    assert len(list(outgoing.acknowledge(CHUNK_SIZE))) == 1
    with pytest.raises(InvalidInputError):
        list(outgoing.acknowledge(20 * CHUNK_SIZE))
