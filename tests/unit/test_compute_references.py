"""References from the wire may say anything: a session answers by a typed error and goes on."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest
import torch

from apps.compute.messages import (
    LENGTH,
    Append,
    Evaluate,
    Export,
    Failed,
    Forget,
    Limits,
    Propose,
    decode_reply,
    encode,
)
from apps.compute.worker import serve
from gridclient.program.graph import Node, Ref
from tests.factories.programs import Recorded

WRONG = [Ref(0, -1), Ref(0, 1), Ref(0, 2**40), Ref(-1), Ref(77), Ref(2**63, -(2**63))]


@pytest.mark.parametrize("ref", WRONG)
def test_a_reference_to_nothing_is_an_error_or_nothing(ref: Ref) -> None:
    recorded = Recorded()
    first = recorded.constant(torch.ones(2))
    recorded.session.handle(Forget([ref]), 0)
    for question in (Propose(1, ref), Evaluate(2, ref, "/dev/null"), Export(3, ref, "/dev/null")):
        reply = recorded.session.handle(question, 0)
        assert isinstance(reply, Failed)
        assert reply.code == "invalid_input"
    wrong = recorded("aten::neg", ref)
    assert isinstance(recorded.session.handle(Propose(4, wrong), 0), Failed)
    assert recorded.value(first).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("depth", [10, 900, 20_000])
def test_a_message_that_cannot_be_read_does_not_end_the_worker(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep nesting ends the program by a typed error, not the process without a word."""
    # Here the process is not the worker's own.
    monkeypatch.setattr("apps.compute.worker.prepare", lambda: None)
    monkeypatch.setattr("apps.compute.worker.os.umask", lambda _: 0)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, Limits()))
    thread.start()
    ours.settimeout(30)
    try:
        deep = b"\x91" * depth + b"\x00"
        node = b"\x96\x01" + msgspec.msgpack.encode("aten::neg") + deep + b"\x80\x01\xa0"
        body = b"\x92" + msgspec.msgpack.encode("append") + b"\x91" + node
        ours.sendall(LENGTH.pack(len(body)) + body)
        ours.sendall(encode(Append([Node(2, "aten::neg", [Ref(1)])])) + encode(Propose(9, Ref(2))))
        (size,) = LENGTH.unpack(_exactly(ours, LENGTH.size))
        reply = decode_reply(_exactly(ours, size))
        assert isinstance(reply, Failed)
        assert reply.code == "invalid_input"
    finally:
        ours.close()
        thread.join(30)
        theirs.close()
    assert not thread.is_alive()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, "the worker is gone"
        data += part
    return data
