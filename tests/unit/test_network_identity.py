"""Who answers at an address: nobody passes for a deployment whose key they do not hold."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from apps.core import keys
from apps.network import messages, outbound
from apps.network.identity import ask_identity, own_identity
from gridclient.wire.errors import AuthenticationError, ConnectionLostError, GridError, VersionMismatchError
from tests.factories.network import acting_as

pytestmark = pytest.mark.django_db


def answering(monkeypatch: pytest.MonkeyPatch, **change: Any) -> None:
    """Whoever is asked answers with an identity in which `change` is different."""
    mine = own_identity("00" * 32)

    async def call(method: str, url: str, **_: Any) -> outbound.Reply:
        challenge = bytes.fromhex(parse_qs(urlsplit(url).query)["challenge"][0])
        signature = keys.sign("gridsite/identity/1", challenge + b"https://ward.example")
        proven = msgspec.to_builtins(mine) | {"signature": signature} | change
        return outbound.Reply(200, msgspec.json.encode(proven))

    monkeypatch.setattr(outbound, "call", call)


def asked(role: str = "node") -> messages.Identity:
    return asyncio.run(ask_identity("https://ward.example", role=role))


def test_who_holds_the_key_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    assert asked().public_key == keys.public_key()


def test_who_names_another_key_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with acting_as("hospital") as other:
        pass
    answering(monkeypatch, public_key=other)
    with pytest.raises(AuthenticationError, match="does not hold the key"):
        asked()


@pytest.mark.parametrize("signature", ["", "00" * 64, "zz"])
def test_an_answer_recorded_earlier_proves_nothing(monkeypatch: pytest.MonkeyPatch, signature: str) -> None:
    answering(monkeypatch, signature=signature or own_identity("11" * 32).signature)
    with pytest.raises(AuthenticationError):
        asked()


def test_a_signature_for_another_purpose_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.network.identity.os.urandom", lambda size: bytes(size))
    answering(monkeypatch, signature=keys.sign("gridsite/challenge/1", bytes(32)))
    with pytest.raises(AuthenticationError):
        asked()


def test_another_protocol_and_another_role_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, protocol=2)
    with pytest.raises(VersionMismatchError):
        asked()
    answering(monkeypatch)
    with pytest.raises(ConnectionLostError, match="not a network"):
        asked("network")


@pytest.mark.parametrize("change", [{"public_key": "x"}, {"public_key": 5}, {"protocol": "1"}, {"role": None}])
def test_another_shape_is_no_deployment(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    answering(monkeypatch, **change)
    with pytest.raises(GridError):
        asked()


def test_a_relay_at_another_address_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    with pytest.raises(AuthenticationError):
        asyncio.run(ask_identity("https://relay.example", role="node"))
