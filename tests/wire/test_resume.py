"""A session outlives its socket: nothing said is lost, nothing is done twice, and nobody else goes on with it."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.program.graph import CONSTANT, Node, Ref, tensor_digest
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, GridError, InvalidInputError
from gridclient.wire.frames import CHUNK, CHUNK_SIZE, pack_batch, pack_chunk, unpack
from tests.factories.raw import RawClient
from tests.factories.sockets import begin_download, goes_on, take_chunk
from tests.factories.staff import Staff, names

COLUMNS = [m.Column("a", low=0.0, high=50.0)]
BIG = 16 * CHUNK_SIZE


def test_values_are_still_there_over_the_next_socket(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value, session = client.constant(np.array([2.5])), client.welcome.session
        assert client.get(value).tolist() == [2.5]
        client.lose()
        client.come_back()
        assert client.welcome.session == session
        assert client.get(client.node("aten::neg", value)).tolist() == [-2.5]


def test_an_answer_that_was_lost_with_its_socket_comes_over_the_next(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value = client.constant(np.array([2.5]))
        client.get(value)
        client.send(m.Get(100, value), m.Get(101, value))
        seen = client.seen
        assert {client.receive().ask, client.receive().ask} == {100, 101}
        client.lose()
        client.seen = seen  # as if neither had arrived
        client.come_back()
        assert {client.receive().ask, client.receive().ask} == {100, 101}


def test_what_was_seen_does_not_come_again(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value = client.constant(np.array([2.5]))
        client.get(value)
        client.lose()
        client.come_back()
        client.send(m.Get(7, value))
        assert client.receive().ask == 7


def test_the_node_says_what_had_arrived_so_that_only_the_rest_is_sent_again(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value = client.constant(np.array([2.5]))  # batches 2 and 3
        client.get(value)  # batch 4
        client.lose()
        client.come_back()
        assert client.taken == 4
        again = m.ClientBatch(4, [m.Get(1, value)], client.seen)
        client.socket.send(pack_batch(m.encode(again)))  # other bytes than batch 4 had: `seen` has grown
        with suppress(ConnectionClosed), pytest.raises(GridError, match="with other bytes"):
            client.receive()


def test_a_client_that_only_records_hears_what_has_arrived(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        first = client.constant(np.array([1.0]))
        for number in range(1000, 1070):
            client.send(m.Run([Node(number, "aten::neg", [first])]))
        batch = m.decode_node(unpack(client.socket.recv(timeout=10, decode=False)).body)
        assert batch.commands == [] and batch.seen >= 64


# --- long values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrived", [0, 3, 15])
def test_an_upload_goes_on_where_it_was_cut(staff: Staff, scientist: str, arrived: int) -> None:
    values = np.random.default_rng(arrived).random(BIG // 8)
    data = values.tobytes()
    digest = tensor_digest("float64", [values.size], data)
    header = m.TensorHeader("float64", [values.size], len(data))
    with staff.client(scientist) as client:
        client.send(m.Upload(1, len(data), hashlib.sha256(data).hexdigest(), "constant", digest, header))
        client._acknowledged(1)
        for number in range(arrived):
            client.socket.send(pack_chunk(1, number * CHUNK_SIZE, data[number * CHUNK_SIZE :][:CHUNK_SIZE]))
            client._acknowledged(1)
        client.lose()
        client.come_back()
        reply = client.receive()
        assert reply == m.Ack(1, arrived * CHUNK_SIZE)
        for offset in range(reply.offset, len(data), CHUNK_SIZE):
            client.socket.send(pack_chunk(1, offset, data[offset : offset + CHUNK_SIZE]))
            client._acknowledged(1)
        assert (client.get(client.node(CONSTANT, digest)) == values).all()


def test_an_upload_whose_last_acknowledgement_was_lost_is_acknowledged_again(staff: Staff, owner: str) -> None:
    with staff.client(owner) as client:
        transfer = client.upload(bytes(CHUNK_SIZE + 1), "values")
        client.lose()
        client.come_back()
        assert client.receive() == m.Ack(transfer, CHUNK_SIZE + 1)


@pytest.mark.parametrize("arrived", [0, 5, 8])
def test_a_download_goes_on_where_it_was_cut(staff: Staff, scientist: str, arrived: int) -> None:
    values = np.random.default_rng(arrived).random(BIG // 8)
    with staff.client(scientist) as client:
        answer, received = begin_download(client, values)
        del received[arrived * CHUNK_SIZE :]
        client.lose()
        client.come_back()
        client.send(m.Ack(answer.transfer, len(received)))
        while len(received) < BIG:
            take_chunk(client, answer, received)
            client.send(m.Ack(answer.transfer, len(received)))
        assert hashlib.sha256(received).hexdigest() == answer.sha256
        goes_on(client)


def test_a_download_whose_announcement_was_lost_begins_again(staff: Staff, scientist: str) -> None:
    values = np.random.default_rng(0).random(BIG // 8)
    with staff.client(scientist) as client:
        value = client.constant(values)
        seen = client.seen
        client.send(m.Get(1000, value))
        assert isinstance(client.receive(), m.Answer)
        client.lose()
        client.seen = seen
        client.come_back()
        answer = _until(client, 1000)
        received = bytearray()
        while len(received) < BIG:
            take_chunk(client, answer, received)
            client.send(m.Ack(answer.transfer, len(received)))
        assert hashlib.sha256(received).hexdigest() == answer.sha256


# --- who may go on ----------------------------------------------------------------------------------------------


def test_each_welcome_brings_another_token_and_the_last_one_stays_good_until_then(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        session, tokens = client.welcome.session, [client.welcome.resume]
        for presented in (0, 0, 2, 2):  # the first welcome back is lost, and so is the third
            client.lose()
            client.come_back(tokens[presented])
            assert client.welcome.session == session
            tokens.append(client.welcome.resume)
        assert len(set(tokens)) == 5
        client.lose()
        for stale in (0, 1, 3):
            with RawClient(staff.url, staff.tokens[scientist]) as other:
                other.lose()
                other.come_back(tokens[stale])
                assert other.welcome.session != session
        client.come_back(tokens[4])
        assert client.welcome.session == session


@pytest.mark.parametrize("whose", ["another account", "another token of the account"])
def test_nobody_else_goes_on_with_a_session(staff: Staff, owner: str, scientist: str, whose: str) -> None:
    with staff.client(owner) as publisher:
        dataset = publisher.publish(np.ones((12, 1)), name=next(names), columns=COLUMNS)
    with staff.client(owner) as client:
        value, session, stolen = client.asset(dataset), client.welcome.session, client.welcome.resume
        client.get(value)
        client.lose()
        token = staff.tokens[scientist] if whose == "another account" else _second_token(staff, owner)
        with RawClient(staff.url, token) as thief:
            thief.lose()
            thief.come_back(stolen)
            assert thief.welcome.session != session
            with pytest.raises(InvalidInputError):
                thief.get(value)
        client.come_back(stolen)
        assert client.welcome.session == session and client.get(value).shape == (12, 1)


def _second_token(staff: Staff, name: str) -> str:
    return str(staff.call(name, "POST", "tokens/", {"name": "phone"})["token"])


def test_a_revoked_token_ends_a_session_that_waits_for_its_client(staff: Staff, owner: str) -> None:
    token = _second_token(staff, owner)
    with RawClient(staff.url, token) as client:
        client.lose()
        staff.call(owner, "DELETE", f"tokens/{token.split('_')[1]}/")
        with pytest.raises(AuthenticationError):
            client.come_back()


def test_the_older_socket_is_closed_when_another_one_comes(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        older = client.socket
        client.come_back()
        with pytest.raises(ConnectionClosed) as closed:
            older.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4409
        goes_on(client)


def test_a_client_that_stopped_reading_can_come_back(staff: Staff, scientist: str) -> None:
    """Its old socket never takes another byte: what was on its way there does not hold up the new one."""
    values = np.random.default_rng(1).random(BIG // 8)
    with staff.client(scientist) as client:
        value = client.constant(values)
        client.send(*(m.Get(ask, value) for ask in range(1000, 1020)))
        time.sleep(0.5)
        began = time.monotonic()
        client.come_back()
        assert time.monotonic() - began < 5
        client.send(m.Get(5000, client.constant(np.array([1.0]))))
        assert _until(client, 5000)


def _until(client: RawClient, ask: int) -> Any:
    while True:
        reply = client.receive()
        if getattr(reply, "kind", None) != CHUNK and getattr(reply, "ask", 0) == ask:
            return reply


def test_a_client_that_leaves_on_purpose_leaves_nothing_behind(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        session = client.welcome.session
    client.come_back()
    assert client.welcome.session != session
    client.send(m.Bye())


# --- a worker ends ----------------------------------------------------------------------------------------------


def test_after_a_begin_the_program_is_another_one(staff: Staff, scientist: str) -> None:
    with staff.client(scientist) as client:
        value = client.constant(np.array([2.5]))
        assert client.get(value).tolist() == [2.5]
        client.send(m.Begin())
        with pytest.raises(InvalidInputError):
            client.get(value)
        client._ids = iter(range(1, 100))  # type: ignore[assignment]
        assert client.get(client.constant(np.array([7.0]))).tolist() == [7.0]
        assert client.get(Ref(1)).tolist() == [7.0]
