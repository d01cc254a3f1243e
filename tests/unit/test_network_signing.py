"""Requests between deployments: nobody but the holder of the key can make one, and each is good once, here, now."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.core import keys
from apps.network.signing import NONCE, SIGNATURE, TIMESTAMP, sign_request, signer
from gridclient.wire.errors import AuthenticationError
from tests.factories.network import NOW, acting_as

pytestmark = pytest.mark.django_db
PATH, BODY = "/api/nodes/", b'{"id":"hospital"}'


def signed(*, audience: str | None = None, seconds: float = 0) -> tuple[dict[str, str], str]:
    audience = audience or keys.public_key()
    with acting_as("hospital") as key:
        return sign_request("POST", PATH, BODY, audience=audience, now=NOW + timedelta(seconds=seconds)), key


def test_the_signer_is_known_by_its_key() -> None:
    headers, key = signed()
    assert signer("post", PATH, BODY, headers, now=NOW) == key


def test_a_recorded_request_is_worth_nothing_the_second_time() -> None:
    headers, _ = signed()
    signer("POST", PATH, BODY, headers, now=NOW)
    with pytest.raises(AuthenticationError, match="made before"):
        signer("POST", PATH, BODY, headers, now=NOW + timedelta(seconds=59))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", PATH, BODY), ("POST", "/api/announcements/", BODY), ("POST", PATH, b'{"id":"company"}')],
)
def test_a_request_cannot_be_turned_into_another(method: str, path: str, body: bytes) -> None:
    headers, _ = signed()
    with pytest.raises(AuthenticationError, match="does not fit"):
        signer(method, path, body, headers, now=NOW)


def test_a_request_to_one_network_cannot_be_forwarded_to_another() -> None:
    with acting_as("elsewhere", "network") as other:
        pass
    headers, _ = signed(audience=other)
    with pytest.raises(AuthenticationError, match="another deployment"):
        signer("POST", PATH, BODY, headers, now=NOW)


@pytest.mark.parametrize("seconds", [-61, 61, -86_400])
def test_an_old_or_future_request_is_refused(seconds: float) -> None:
    headers, _ = signed(seconds=seconds)
    with pytest.raises(AuthenticationError, match="clock"):
        signer("POST", PATH, BODY, headers, now=NOW)


def test_a_request_from_the_edge_of_the_window_cannot_be_replayed_at_the_other_edge() -> None:
    headers, _ = signed(seconds=60)
    signer("POST", PATH, BODY, headers, now=NOW)
    with pytest.raises(AuthenticationError, match="made before"):
        signer("POST", PATH, BODY, headers, now=NOW + timedelta(seconds=120))


@pytest.mark.parametrize(
    "change",
    [
        {SIGNATURE: "00" * 64},
        {SIGNATURE: ""},
        {NONCE: "x"},
        {TIMESTAMP: "1e9"},
        {TIMESTAMP: "९"},
        {"Grid-Key": "AA" * 32},
    ],
)
def test_malformed_headers_are_refused(change: dict[str, str]) -> None:
    headers, _ = signed()
    with pytest.raises(AuthenticationError):
        signer("POST", PATH, BODY, headers | change, now=NOW)
