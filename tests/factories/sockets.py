"""What tests of the wire do with an open socket: begin, see that it still answers, read its last words."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.frames import CHUNK_SIZE, CHUNKS_IN_FLIGHT, MAX_FRAME, unpack
from tests.factories.raw import RawClient


def goes_on(client: RawClient) -> None:
    """The session still answers, and with the right value."""
    assert client.get(client.constant(np.array([2.5, 4.0]))).tolist() == [2.5, 4.0]


def open_socket(url: str) -> ClientConnection:
    return connect(url.replace("http", "ws", 1) + "/ws/grid/", compression=None, max_size=MAX_FRAME)


def last_words(socket: ClientConnection) -> tuple[str, int]:
    """The code of the goodbye, and with which code the socket was closed. Nothing may come in between."""
    (command,) = m.decode_node(unpack(socket.recv(timeout=10, decode=False)).body).commands
    assert isinstance(command, m.Goodbye), command
    assert command.message
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    return command.code, closed.value.rcvd.code


def rest_of(socket: ClientConnection) -> list[Any]:
    """All commands until the socket is closed."""
    found: list[Any] = []
    with suppress(ConnectionClosed):
        while True:
            found += m.decode_node(unpack(socket.recv(timeout=10, decode=False)).body).commands
    return found


def hello(token: str = "", **changes: Any) -> m.Hello:
    given = {"token": token, "protocol": m.PROTOCOL_VERSION, "operations": OPERATIONS_VERSION, "client": "raw"}
    return m.Hello(**{**given, **changes})


def begin_download(client: RawClient, values: np.ndarray) -> tuple[m.Answer, bytearray]:
    """Upload a constant with a window of chunks in flight, ask for it, and take what comes without acknowledging."""
    answer = client.ask(m.Get(1000, client.constant(values)))
    assert answer.data is None
    received = bytearray()
    for _ in range(CHUNKS_IN_FLIGHT):
        take_chunk(client, answer, received)
    return answer, received


def take_chunk(client: RawClient, answer: m.Answer, received: bytearray) -> None:
    while isinstance(frame := client.receive(), m.Ack):
        pass  # over another socket, finished uploads are acknowledged once more
    assert (frame.transfer, frame.offset, len(frame.body)) == (answer.transfer, len(received), CHUNK_SIZE)
    received += frame.body
