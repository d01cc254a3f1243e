"""Long values in chunks, both ways: windows, acknowledgements, and chunks that are not what was announced."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.wire import transfers
from gridclient.program.graph import tensor_digest
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, InternalError, InvalidInputError, LimitExceededError, NotFoundError
from gridclient.wire.frames import (
    CHUNK_SIZE,
    CHUNKS_IN_FLIGHT,
    pack_chunk,
    unpack,
)
from tests.factories.raw import RawClient
from tests.factories.sockets import begin_download, goes_on, take_chunk
from tests.factories.staff import Staff, names

BIG = 8 * 2**20
COLUMNS = [m.Column("a", low=0.0, high=50.0)]


def announce(client: RawClient, data: bytes, **changes: Any) -> m.Upload:
    given = {"transfer": 9, "nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "purpose": "values"}
    command = m.Upload(**{**given, **changes})
    client.send(command)
    return command


ONE = bytes(1000)
CHUNKS: dict[str, tuple[dict[str, Any], bytes]] = {
    "out of order": ({}, pack_chunk(9, 1, ONE[1:])),
    "longer than a chunk": ({"nbytes": 2 * CHUNK_SIZE}, pack_chunk(9, 0, bytes(CHUNK_SIZE + 1))),
    "longer than announced": ({}, pack_chunk(9, 0, ONE + b"x")),
    "another sha256": ({"sha256": "0" * 64}, pack_chunk(9, 0, ONE)),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_wrong_chunk_ends_its_transfer_only(staff: Staff, owner: str, name: str) -> None:
    changes, chunk = CHUNKS[name]
    with staff.client(owner) as client:
        announce(client, ONE, **changes)
        assert client.receive() == m.Ack(9, 0)
        client.socket.send(chunk)
        refused = client.receive()
        assert (type(refused), refused.code, refused.transfer) == (m.Error, "invalid_input", 9)
        client.socket.send(pack_chunk(9, 0, ONE))
        assert client.receive().code == "not_found"
        with pytest.raises(NotFoundError):
            client.ask(m.Publish(1, m.PublishSpec(kind="tensor", name="never"), 9))
        assert client.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS)["shape"] == [12, 1]


UPLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "of nothing": ({"nbytes": 0}, "limit_exceeded"),
    "of less than nothing": ({"nbytes": -1}, "limit_exceeded"),
    "of more than there is": ({"nbytes": 2**62}, "limit_exceeded"),
    "for another purpose": ({"purpose": "../../etc"}, "invalid_input"),
    "of a constant without header": ({"purpose": "constant"}, "invalid_input"),
    "with number 0": ({"transfer": 0}, "invalid_input"),
    "with a negative number": ({"transfer": -1}, "invalid_input"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_upload_that_cannot_be_is_refused_before_its_first_byte(staff: Staff, owner: str, name: str) -> None:
    changes, code = UPLOADS[name]
    with staff.client(owner) as client:
        command = announce(client, ONE, **changes)
        reply = client.receive()
        assert (type(reply), reply.code, reply.transfer) == (m.Error, code, command.transfer)
        goes_on(client)


def test_number_of_a_transfer_is_used_once(staff: Staff, owner: str) -> None:
    with staff.client(owner) as client:
        announce(client, ONE)
        assert client.receive() == m.Ack(9, 0)
        announce(client, ONE)
        assert client.receive().code == "invalid_input"


def test_open_uploads_are_counted(staff: Staff, owner: str) -> None:
    with staff.client(owner) as client:
        for transfer in range(1, 17):
            announce(client, ONE, transfer=transfer)
            assert client.receive() == m.Ack(transfer, 0)
        announce(client, ONE, transfer=17)
        assert client.receive().code == "limit_exceeded"


def test_chunk_of_an_unknown_transfer_is_refused(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        client.socket.send(pack_chunk(77, 0, b"x"))
        reply = client.receive()
        assert (type(reply), reply.code, reply.transfer) == (m.Error, "not_found", 77)
        goes_on(client)


def test_constant_that_is_not_what_its_digest_says_is_refused(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        client.send(m.Constant("0" * 64, m.TensorHeader("float64", [1], 8), bytes(8)))
        with pytest.raises(GridError):
            client.get(client.node("grid::constant", "0" * 64))
        goes_on(client)


def test_uploaded_constant_that_is_not_what_its_name_says_is_refused(staff: Staff, scientist: str) -> None:
    values = np.arange(1024.0)
    header = m.TensorHeader("float64", [1024], values.nbytes)
    transposed = tensor_digest("float64", [32, 32], values.tobytes())
    with staff.client(scientist) as client:
        for name in ("0" * 64, hashlib.sha256(values).hexdigest(), transposed):
            with pytest.raises(InvalidInputError, match="digest"):
                client.upload(values.tobytes(), "constant", name, header)
            with pytest.raises(GridError, match="never sent"):
                client.get(client.node("grid::constant", name))
        assert client.get(client.constant(values)).tolist() == values.tolist()


def test_ask_is_answered_while_an_upload_runs(staff: Staff, owner: str) -> None:
    data = bytes(2 * CHUNK_SIZE)
    with staff.client(owner) as client:
        announce(client, data)
        assert client.receive() == m.Ack(9, 0)
        client.socket.send(pack_chunk(9, 0, data[:CHUNK_SIZE]))
        assert client.receive() == m.Ack(9, CHUNK_SIZE)
        goes_on(client)
        client.socket.send(pack_chunk(9, CHUNK_SIZE, data[CHUNK_SIZE:]))
        assert client.receive() == m.Ack(9, 2 * CHUNK_SIZE)


def test_download_never_runs_ahead_of_its_acknowledgements(staff: Staff, scientist: str) -> None:
    values = np.random.default_rng(1).random(BIG // 8)
    with staff.client(scientist) as client:
        answer, received = begin_download(client, values)
        # None of these says that anything of this transfer has arrived.
        wrong = [(999, BIG), (answer.transfer, 0), (answer.transfer, -5), (answer.transfer, len(received) + 1)]
        client.send(*(m.Ack(transfer, offset) for transfer, offset in wrong))
        # A whole question and answer, and no further chunk in front of it.
        goes_on(client)
        while len(received) < BIG:
            client.send(m.Ack(answer.transfer, len(received) - (CHUNKS_IN_FLIGHT - 1) * CHUNK_SIZE))
            take_chunk(client, answer, received)
        assert bytes(received) == values.tobytes()
        assert hashlib.sha256(received).hexdigest() == answer.sha256
        goes_on(client)


def test_upload_may_have_a_window_of_chunks_in_flight(staff: Staff, owner: str) -> None:
    data = np.random.default_rng(2).integers(0, 255, BIG, dtype=np.uint8).tobytes()
    with staff.client(owner) as client:
        announce(client, data)
        assert client.receive() == m.Ack(9, 0)
        sent = acknowledged = 0
        while acknowledged < BIG:
            while sent < BIG and sent - acknowledged < CHUNKS_IN_FLIGHT * CHUNK_SIZE:
                client.socket.send(pack_chunk(9, sent, data[sent : sent + CHUNK_SIZE]))
                sent += CHUNK_SIZE
            reply = client.receive()
            assert reply == m.Ack(9, acknowledged + CHUNK_SIZE)
            acknowledged = reply.offset


def test_an_answer_does_not_wait_for_ever_for_its_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rights were looked at when it was released: a receiver cannot keep it open beyond them."""
    monkeypatch.setattr(transfers, "ACKNOWLEDGE_WITHIN", 0.05)
    path = tmp_path / "answer"
    path.write_bytes(bytes((CHUNKS_IN_FLIGHT + 1) * CHUNK_SIZE))

    received = []

    async def receive() -> None:
        async for chunk in transfers.Outgoing(1, path, path.stat().st_size).chunks():
            received.append(len(chunk))

    with pytest.raises(TimeoutError):
        asyncio.run(receive())
    assert len(received) == CHUNKS_IN_FLIGHT


@pytest.mark.parametrize(
    ("file", "mode", "error"), [("/dev/full", "wb", LimitExceededError), ("/dev/null", "rb", InternalError)]
)
def test_a_disk_that_takes_nothing_ends_the_transfer_and_says_so(
    tmp_path: Path, file: str, mode: str, error: type[GridError]
) -> None:
    """Not the connection: whatever else it carries goes on, and another upload has its place."""
    uploads = transfers.Uploads(tmp_path, BIG)
    data = bytes(2 * CHUNK_SIZE)
    for number in range(1, transfers.MAX_OPEN_UPLOADS + 2):
        command = m.Upload(number, len(data), hashlib.sha256(data).hexdigest(), "values")
        uploads.begin(command)
        uploads._open[number].file.close()
        uploads._open[number].file = open(file, mode, buffering=0)  # noqa: SIM115
        frame = unpack(pack_chunk(number, 0, data[:CHUNK_SIZE]))
        with pytest.raises(error, match=f"transfer {number}"):
            asyncio.run(uploads.chunk(frame))
        with pytest.raises(NotFoundError):
            asyncio.run(uploads.chunk(frame))
