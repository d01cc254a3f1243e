"""Attacks 18, 19 and 21: bytes without end, without measure or without sense, and a neighbour who computes for minutes.

What a user would lose: the node, to one stranger. Inputs that are only wrong are in test_fuzz.py and test_decoders.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed

from apps.wire.conversation import Conversation
from gridclient.program.graph import CONSTANT, Dtype, Node, Ref, tensor_digest
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridclient.wire.frames import MAX_FRAME, pack_batch
from gridsite import impatient
from tests.factories.raw import RawClient, rest
from tests.factories.sockets import goes_on
from tests.factories.staff import Staff, single_node

TYPED = {"invalid_input", "limit_exceeded", "operation_not_allowed", "shape", "not_found"}


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Staff, Path]]:
    """A node, and its log."""
    folder = tmp_path_factory.mktemp("flooded")
    with single_node(folder, GRID_SESSION_MEMORY=str(2**29)) as server:
        staff = Staff(server)
        staff.hire("scientist", "scientist")
        staff.hire("neighbour", "scientist")
        yield staff, folder / server.name / "server.log"


@pytest.fixture
def staff(flooded: tuple[Staff, Path]) -> Iterator[Staff]:
    staff, log = flooded
    before = log.stat().st_size
    yield staff
    with staff.client("neighbour") as client:
        goes_on(client)
    time.sleep(0.1)
    written = log.read_bytes()[before:].decode()
    assert "Traceback" not in written and "ERROR" not in written, written


def connected(staff: Staff) -> socket.socket:
    parts = urlsplit(staff.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def closed(peer: socket.socket) -> bool:
    """Whether the other end has closed it, or does within the timeout."""
    with suppress(OSError):
        while peer.recv(2**16):
            pass
        return True
    return False


# --- 18 ---


@pytest.mark.parametrize("who", ["", "scientist"])
def test_json_nested_without_end_is_one_typed_error(staff: Staff, who: str) -> None:
    source = random.Random(18)
    for route in ("sign-in/", "tokens/", "users/", "sign-in/assertion/", "announcements/", "nodes/"):
        for opened in (b"[", b'{"a":', b'[{"":', b'{"username":['):
            body = b"{" * source.randrange(2) + opened * source.choice([1_000, 100_000])
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            if who:
                headers["Authorization"] = f"Bearer {staff.tokens[who]}"
            head = f"POST /api/{route} HTTP/1.1\r\nHost: {urlsplit(staff.url).netloc}\r\nConnection: close\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
            with connected(staff) as peer:
                peer.sendall(head.encode() + body)
                answer = b"".join(iter(lambda peer=peer: peer.recv(2**16), b""))
            status, content = int(answer.split(b" ")[1]), json.loads(answer.partition(b"\r\n\r\n")[2])
            assert 400 <= status < 500 and content["error"]["code"] != "internal", (route, opened, answer[:500])


def test_a_username_of_piled_up_marks_is_looked_up_at_once(staff: Staff) -> None:
    """Before anybody has signed in: a megabyte of marks took minutes to sort, and held the whole process."""
    begin = time.monotonic()
    status, _ = rest("POST", f"{staff.url}/api/sign-in/", {"username": "a" + "\u0301\u0316" * 80_000, "password": "x"})
    assert status == 401 and time.monotonic() - begin < 10


@pytest.mark.parametrize("length", [MAX_FRAME + 1, 2**31, 2**62])
def test_a_frame_that_says_to_be_endless_ends_its_own_connection(staff: Staff, length: int) -> None:
    with (
        RawClient(staff.url, staff.tokens["scientist"]) as client,
        RawClient(staff.url, staff.tokens["neighbour"]) as other,
    ):
        client.socket.socket.sendall(b"\x82\xff" + struct.pack(">Q", length) + os.urandom(4) + bytes(1000))
        with pytest.raises(ConnectionClosed):  # not a time-out
            client.socket.recv(timeout=20)
        goes_on(other)


def test_a_frame_in_pieces_without_end_ends_its_own_connection(staff: Staff) -> None:
    with (
        RawClient(staff.url, staff.tokens["scientist"]) as client,
        RawClient(staff.url, staff.tokens["neighbour"]) as other,
    ):
        raw, piece, sent = client.socket.socket, bytes(2**20), 0
        first = True
        with suppress(OSError):
            raw.settimeout(20)
            while sent < 64 * MAX_FRAME:
                raw.sendall(
                    (b"\x02" if first else b"\x00") + b"\xff" + struct.pack(">Q", len(piece)) + bytes(4) + piece
                )
                first, sent = False, sent + len(piece)
        assert sent < 8 * MAX_FRAME  # what lies in buffers on the way
        goes_on(other)


def test_sizes_without_measure_are_refused_before_anything_is_made(staff: Staff) -> None:
    source = random.Random(40)
    sizes = [2**40, 2**31, 2**62, 2**63 - 1, -1, 2**64 - 1]
    with RawClient(staff.url, staff.tokens["scientist"]) as client:
        one = client.constant(np.ones(1))
        for _ in range(60):
            shape = [source.choice([*sizes, 1, 2**20]) for _ in range(source.randrange(1, 5))] + [source.choice(sizes)]
            build = source.choice(
                [
                    lambda shape=shape: client.node("grid::rand", shape, Dtype("float32"), 1),
                    lambda shape=shape: client.node("aten::clone", client.node("aten::expand", one, shape)),
                    lambda shape=shape: client.node("aten::repeat", one, shape),
                ]
            )
            with pytest.raises(GridError) as refused:
                client.get(build())
            assert refused.value.code in TYPED, shape
            header = m.TensorHeader("float32", [size for size in shape if size < 2**63], source.choice([2**40, 4, 0]))
            client.send(m.Constant("0" * 64, header, b"1234"))
        with suppress(GridError):
            client.get(client.node(CONSTANT, "0" * 64))
        assert all(error.code in TYPED for error in client.errors)
        goes_on(client)


def test_very_many_tiny_tensors_take_only_their_own_session(staff: Staff) -> None:
    with (
        RawClient(staff.url, staff.tokens["scientist"]) as client,
        RawClient(staff.url, staff.tokens["neighbour"]) as other,
    ):
        for first in range(0, 20_000, 500):
            commands: list[Any] = []
            for number in range(first, first + 500):
                data = struct.pack("<i", number)
                digest = tensor_digest("int32", [], data)
                commands += [m.Constant(digest, m.TensorHeader("int32", [], 4), data)]
                commands += [m.Run([Node(number + 1, CONSTANT, [digest])])]
            client.send(*commands)
        begin = time.monotonic()
        goes_on(other)
        assert time.monotonic() - begin < 20
        assert client.get(Ref(20_000)).item() == 19_999


def test_connections_that_say_nothing_keep_nobody_out(staff: Staff) -> None:
    """Some say nothing at all, some a part of a head, some a part of a body. The oldest go before descriptors do."""
    parts = [
        b"",
        b"GET /ws/grid/ HTTP/1.1\r\nHost: x\r\n",
        b"POST /api/sign-in/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ]
    with ExitStack() as stack:
        peers = []
        for number in range(impatient.MOST_WAITING + 120):
            peers.append(stack.enter_context(connected(staff)))
            peers[-1].sendall(parts[number % 3])
        with RawClient(staff.url, staff.tokens["scientist"]) as client:
            goes_on(client)
        assert all(closed(peer) for peer in peers[:100])


@pytest.mark.parametrize(
    "said",
    [
        [b""],
        [b"GET / HTTP/1.1\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"],
        [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"],
    ],
    ids=["nothing", "part of a head", "a head again", "part of a body"],
)
def test_what_does_not_come_in_time_is_not_waited_for(said: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impatient, "HEAD_WITHIN", 0.2)
    monkeypatch.setattr(impatient, "BODY_WITHIN", 0.3)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        with suppress(RuntimeError):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def attack() -> None:
        config = uvicorn.Config(application, http=impatient.ImpatientProtocol, lifespan="off", log_config=None)
        config.load()
        state = uvicorn.server.ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: impatient.ImpatientProtocol(config, state, {}), "127.0.0.1", 0
        )
        async with server, asyncio.timeout(4):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for part in said:
                writer.write(part)
                await asyncio.sleep(0.05)
            with suppress(ConnectionError):
                while await reader.read(4096):
                    pass
            writer.close()
        assert not impatient.ImpatientProtocol._waiting

    asyncio.run(attack())


# --- 19 ---


def test_a_neighbours_matrix_products_keep_nobody_waiting(staff: Staff) -> None:
    """On the original system a tiny answer then took a thousand times as long. Told by order, not by the clock."""
    ended = threading.Event()
    with (
        RawClient(staff.url, staff.tokens["neighbour"]) as heavy,
        RawClient(staff.url, staff.tokens["scientist"]) as tiny,
    ):
        goes_on(tiny)
        value = heavy.node("grid::rand", [1500, 1500], Dtype("float32"), 1)
        for _ in range(40):
            value = heavy.node("aten::mm", value, value)
        product = heavy.node("aten::sum", value)

        def compute() -> None:
            with suppress(GridError):  # at its deadline, on a slow machine
                heavy.get(product)
            ended.set()

        thread = threading.Thread(target=compute)
        thread.start()
        answered = 0
        while not ended.is_set() and answered < 20:
            goes_on(tiny)
            answered += 1
        assert answered == 20 and not ended.is_set()
        thread.join(120)


# --- 21 ---


def test_a_mistake_of_ours_is_one_typed_error_and_the_session_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the original system it closed the caller's connection."""
    said: list[Any] = []
    conversation = object.__new__(Conversation)
    conversation.ended = conversation._lost = False

    async def fail(command: Any) -> None:
        raise source.choice([ZeroDivisionError, KeyError, RecursionError, MemoryError, OSError])("a secret 8675309")

    async def reply(command: Any) -> int:
        said.append(command)
        return 1

    source = random.Random(21)
    monkeypatch.setattr(conversation, "_command", fail)
    monkeypatch.setattr(conversation, "reply", reply)
    for command in (m.Get(1, Ref(1)), m.Begin(), m.Ack(1, 0), m.Fetch(2, "no id"), m.Upload(1, 8, "", "values")):
        asyncio.run(conversation._command_or_error(command))
    assert len(said) == 5
    assert all(isinstance(each, m.Error) and each.code == "internal" and "8675309" not in each.message for each in said)
    assert pack_batch(m.encode(m.NodeBatch(2, said)))
