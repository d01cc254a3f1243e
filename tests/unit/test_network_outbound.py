"""Calls to others: an attacker's address reaches nothing inside, and a hostile answer costs little and ends soon."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.test import override_settings

from apps.network import outbound
from gridclient.wire.errors import ConnectionLostError, InvalidInputError, LimitExceededError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def call_server(handler: Handler, *, host: str = "127.0.0.1", allow: bool = True, **options: Any) -> outbound.Reply:
    """Call a server that answers with `handler`."""

    async def talk() -> outbound.Reply:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            with override_settings(GRID_OUTBOUND_ALLOW=[f"{host}:{port}"] if allow else []):
                return await outbound.call("GET", f"http://{host}:{port}/api/", **options)
        finally:
            server.close()

    return asyncio.run(talk())


def says(text: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return handler


OK = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


def test_an_allowed_pair_is_reached() -> None:
    assert call_server(OK) == outbound.Reply(200, b"hi")


def test_loopback_is_not_reached_unless_the_pair_is_allowed() -> None:
    with pytest.raises(InvalidInputError, match="GRID_OUTBOUND_ALLOW"):
        call_server(OK, allow=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "::127.0.0.1",
        "2001::1",
    ],
)
def test_no_form_of_an_inner_address_is_public(address: str) -> None:
    assert not outbound.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_public(address: str) -> None:
    assert outbound.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "localhost"])
def test_other_spellings_of_loopback_are_refused(host: str) -> None:
    with pytest.raises((InvalidInputError, ConnectionLostError)):
        asyncio.run(outbound.call("GET", f"http://{host}:9/"))


def test_a_name_with_one_inner_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*args: Any, **kwargs: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, 80)) for address in ("93.184.215.14", "10.0.0.1")]

    async def call() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        await outbound.call("GET", "http://rebind.example/")

    with pytest.raises(InvalidInputError):
        asyncio.run(call())


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    real, looked_up = socket.getaddrinfo, []

    def once(host: str, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        # A second look-up of the name would lead elsewhere; the connection itself is made to an address.
        return real("127.0.0.1" if host == "hospital.example" else host, *args, **kwargs)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(b"called")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setattr(socket, "getaddrinfo", once)
    assert call_server(handler, host="hospital.example").status == 200
    assert seen and looked_up.count("hospital.example") == 1


def test_a_redirect_is_not_followed() -> None:
    reply = call_server(says(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"))
    assert reply.status == 302


@pytest.mark.parametrize(
    "url",
    ["ftp://hospital.example/", "file:///etc/passwd", "http://user:secret@hospital.example/", "http://", "//x", ""],
)
def test_only_plain_urls_are_called(url: str) -> None:
    with pytest.raises(InvalidInputError):
        asyncio.run(outbound.call("GET", url))


def test_a_node_that_accepts_and_never_answers_is_given_up_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    began = time.monotonic()
    with pytest.raises(ConnectionLostError, match="did not answer"):
        call_server(silent, deadline=0.2)
    assert time.monotonic() - began < 2


def test_a_node_that_answers_a_byte_at_a_time_is_given_up_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    with pytest.raises(ConnectionLostError, match="did not answer"):
        call_server(drip, deadline=0.3)


def test_an_endless_answer_is_cut_at_the_cap() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    with pytest.raises(LimitExceededError):
        call_server(flood, cap=100_000)


def test_a_compressed_answer_does_not_unfold() -> None:
    import gzip

    packed = gzip.compress(bytes(10_000_000))
    reply = call_server(
        says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    )
    assert reply.body == packed


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi"])
def test_nonsense_is_one_typed_error(text: bytes) -> None:
    with pytest.raises(ConnectionLostError):
        call_server(says(text))
