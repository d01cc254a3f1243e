"""The protocol as hostile and unlucky clients speak it: each mistake has one typed answer, and the session goes on."""

from __future__ import annotations

import time
import zlib
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gridclient.program.graph import Node, Ref
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError
from gridclient.wire.frames import (
    BATCH,
    CHUNK,
    HEADER,
    MAX_FRAME,
    pack_batch,
    pack_chunk,
)
from tests.factories.grid import LiveGrid
from tests.factories.raw import RawClient, sign_in
from tests.factories.sockets import goes_on, hello, last_words, open_socket
from tests.factories.staff import Staff, names

COLUMNS = [m.Column("a", low=0.0, high=50.0)]


# --- hello ------------------------------------------------------------------------------------------------------


def test_silent_socket_is_closed_after_five_seconds(staff: Staff) -> None:
    with open_socket(staff.url) as socket:
        began = time.monotonic()
        assert last_words(socket) == ("authentication", 4401)
        assert 4 < time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("number", "commands", "expected"),
    [
        (1, [hello("grd_no_token")], ("authentication", 4401)),
        (1, [hello("")], ("authentication", 4401)),
        (1, [hello(protocol=m.PROTOCOL_VERSION + 1)], ("version_mismatch", 4426)),
        (1, [hello(protocol=0)], ("version_mismatch", 4426)),
        (1, [hello(operations=OPERATIONS_VERSION + 1)], ("version_mismatch", 4426)),
        (1, [], ("authentication", 4401)),
        (1, [m.Get(1, Ref(1))], ("authentication", 4401)),
        (1, [hello(), m.Get(1, Ref(1))], ("authentication", 4401)),
        (2, [hello()], ("authentication", 4401)),
    ],
)
def test_wrong_hello_gets_a_goodbye_that_says_why(
    staff: Staff, number: int, commands: list[Any], expected: tuple[str, int]
) -> None:
    with open_socket(staff.url) as socket:
        socket.send(pack_batch(m.encode(m.ClientBatch(number, commands))))
        assert last_words(socket) == expected


def test_chunk_before_hello_is_refused(staff: Staff) -> None:
    with open_socket(staff.url) as socket:
        socket.send(pack_chunk(1, 0, b"x"))
        assert last_words(socket) == ("authentication", 4401)


def test_network_holds_no_data_and_says_so(grid: LiveGrid) -> None:
    token = sign_in(grid.network.url, grid.network.username, grid.network.password)
    with open_socket(grid.network.url) as socket:
        socket.send(pack_batch(m.encode(m.ClientBatch(1, [hello(token)]))))
        assert last_words(socket) == ("invalid_input", 4400)


def test_browser_page_cannot_open_the_data_socket(staff: Staff, scientist: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        RawClient(staff.url, staff.tokens[scientist], Origin=staff.url)
    assert refused.value.response.status_code == 403


def test_second_hello_changes_nothing(staff: Staff, scientist: str, owner: str) -> None:
    with staff.client(owner) as publisher:
        dataset = publisher.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS)
    with staff.client(scientist) as client:
        client.send(hello(staff.tokens[owner]))
        assert client.receive().code == "invalid_input"
        with pytest.raises(GetNotPermittedError):
            client.get(client.asset(dataset))
        goes_on(client)


# --- frames -----------------------------------------------------------------------------------------------------


def packed(value: Any) -> bytes:
    return pack_batch(msgspec.msgpack.encode(value))


NESTED_ARGUMENT = b"\x92\x63\x91\x92\xa3run\x91\x95\x01\xa9aten::neg" + b"\x91" * 50_000
BAD_FRAMES: dict[str, bytes | str] = {
    "empty": b"",
    "shorter than a header": bytes(HEADER.size - 1),
    "unknown kind": HEADER.pack(7, 0, 0, zlib.crc32(b"")),
    "batch with a transfer": HEADER.pack(BATCH, 1, 0, zlib.crc32(b"")),
    "batch with an offset": HEADER.pack(BATCH, 0, 1, zlib.crc32(b"")),
    "damaged batch": HEADER.pack(BATCH, 0, 0, 1) + b"\x92\x63\x90",
    "damaged chunk": HEADER.pack(CHUNK, 1, 0, 1) + b"x",
    "text": "hello",
    "empty batch": pack_batch(b""),
    "nothing": packed(None),
    "map": packed({"id": 99, "commands": []}),
    "nested": pack_batch(b"\x91" * 100_000),
    "nested argument": pack_batch(NESTED_ARGUMENT),
    "declares 2**32 commands": pack_batch(b"\x92\x63\xdd\xff\xff\xff\xff"),
    "declares 4 GB": pack_batch(b"\x92\x63\x91\x92\xa5hello\xc6\xff\xff\xff\xff"),
    "goes on after its end": pack_batch(b"\x92\x63\x90\x90"),
    "no command": packed([99, [None]]),
    "unknown command": packed([99, [["launch", 1]]]),
    "command of the node": packed([99, [["published", 1, {}]]]),
    "field missing": packed([99, [["get", 1]]]),
    "field too many": packed([99, [["bye", 1]]]),
    "field of another type": packed([99, [["fetch", 1, 2]]]),
    "unknown extension": packed([99, [["get", 1, msgspec.msgpack.Ext(99, b"x")]]]),
    "reference cut short": packed([99, [["drop", [msgspec.msgpack.Ext(1, b"")]]]]),
    "not UTF-8": pack_batch(b"\x92\x63\x91\x93\xa5fetch\x01\xa2\xff\xff"),
    "batch id that is no number": packed(["99", []]),
    "batch id that does not grow": packed([1, []]),
    "negative batch id": packed([-1, []]),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frame_is_answered_by_one_typed_error_and_the_session_goes_on(
    staff: Staff, scientist: str, name: str
) -> None:
    with staff.client(scientist) as client:
        client.socket.send(BAD_FRAMES[name])
        reply = client.receive()
        assert isinstance(reply, m.Error)
        assert reply.code == "invalid_input"
        goes_on(client)


def test_batch_that_comes_twice_is_not_run_again(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value = client.constant(np.array([1.0]))
        frame = pack_batch(m.encode(m.ClientBatch(50, [m.Get(1, value)])))
        client.socket.send(frame)
        assert isinstance(client.receive(), m.Answer)
        client.socket.send(frame)
        client.socket.send(pack_batch(m.encode(m.ClientBatch(51, [m.Get(2, value)]))))
        assert client.receive().ask == 2


def test_another_batch_under_a_number_that_came_ends_the_session(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        client.socket.send(pack_batch(m.encode(m.ClientBatch(50, []))))
        client.socket.send(pack_batch(m.encode(m.ClientBatch(50, [m.Get(1, Ref(1))]))))
        assert last_words(client.socket) == ("conflict", 4400)


def test_too_many_bad_frames_end_the_session(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        for _ in range(33):
            client.socket.send(b"nonsense")
        for _ in range(32):
            assert client.receive().code == "invalid_input"
        assert last_words(client.socket) == ("limit_exceeded", 4400)
    with staff.client(scientist) as another:
        goes_on(another)


def test_frame_beyond_the_limit_ends_only_its_own_connection(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as other:
        with staff.client(scientist) as client:
            with suppress(ConnectionClosed):  # it may be closed before all of it was sent
                client.socket.send(bytes(MAX_FRAME + 1))
            with pytest.raises(ConnectionClosed):
                client.receive()
        goes_on(other)


# --- commands ---------------------------------------------------------------------------------------------------


def test_error_in_one_command_does_not_stop_the_next(staff: Staff, scientist: str) -> None:
    wrong = m.Constant("0" * 64, m.TensorHeader("float64", [3], 8), bytes(8))
    with staff.client(scientist) as client:
        value = client.constant(np.array([7.0]))
        client.send(
            wrong,
            m.Run([Node(40, "grid::asset", ["no id", 1, "values"])]),
            m.Run([Node(41, "os::system", ["true"]), Node(42, "aten::neg", [value])]),
            m.Fetch(1, "no id"),
            m.Get(2, Ref(41)),
            m.Get(3, Ref(99)),
            m.Get(4, Ref(42)),
        )
        replies = [client.receive() for _ in range(5)]
        assert [reply.code for reply in replies if isinstance(reply, m.Error)] == ["invalid_input"]
        refused = {reply.ask: reply.code for reply in replies if isinstance(reply, m.Refused)}
        assert refused == {1: "not_found", 2: "operation_not_allowed", 3: "invalid_input"}
        (answer,) = [reply for reply in replies if isinstance(reply, m.Answer)]
        assert np.frombuffer(answer.data or b"", "float64").tolist() == [-7.0]


def test_every_ask_is_answered_even_when_there_are_too_many_at_once(staff: Staff, scientist: str) -> None:
    asked = range(1, 101)
    with staff.client(scientist) as client:
        value = client.constant(np.array([1.0]))
        client.send(*(m.Get(ask, value) for ask in asked))
        replies = [client.receive() for _ in asked]
        assert sorted(reply.ask for reply in replies) == list(asked)
        refused = [reply.code for reply in replies if isinstance(reply, m.Refused)]
        assert 0 < len(refused) <= 36
        assert set(refused) == {"limit_exceeded"}
        goes_on(client)


def test_ask_that_is_still_open_cannot_be_asked_again(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value = client.constant(np.array([1.0]))
        client.send(m.Get(1, value), m.Get(1, value))
        replies = {type(client.receive()) for _ in range(2)}
        assert replies == {m.Error, m.Answer}
