"""Who is there, and who am I: identities, passwords, tokens, and the one sign-in over a network.

A password goes to the address that the user typed, once. To an address that came from a search goes neither password
nor token: the node there proves the key that the network names, and the user proves to hold the session's key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gridclient.http import Http
from gridclient.websocket import stranger
from gridclient.wire.errors import AuthenticationError, GridError, InvalidInputError, VersionMismatchError
from gridclient.wire.messages import PROTOCOL_VERSION

IDENTITY, PROOF = b"gridsite/identity/1\n", b"gridsite/proof/1\n"


@dataclass(frozen=True)
class Account:
    """A signed-in account on one deployment. `session`: the token was made by this sign-in and ends with it.
    `scopes`: what the token may be used for at most; None: all that the rights allow."""

    http: Http
    username: str
    rights: tuple[str, ...]
    session: bool
    scopes: tuple[str, ...] | None = None


def identity_of(http: Http, *, role: str | None, challenge: str = "") -> dict[str, Any]:
    """What the deployment says of itself; `role` None: whichever it has.

    Raises ConnectionLostError, VersionMismatchError, InvalidInputError.
    """
    try:
        found = http.get("identity/", challenge=challenge or None)
    except GridError as error:
        if error.status == 404:
            raise stranger(http.url) from error
        raise
    if not isinstance(found, dict) or not {"role", "id", "name", "protocol", "public_key"} <= found.keys():
        raise stranger(http.url)
    if found["protocol"] != PROTOCOL_VERSION:
        older = (
            "gridclient (pip install --upgrade gridclient)"
            if found["protocol"] > PROTOCOL_VERSION
            else "the deployment"
        )
        raise VersionMismatchError(
            f"{http.url} speaks protocol {found['protocol']}, this gridclient {PROTOCOL_VERSION}: upgrade {older}.",
            protocol=found["protocol"],
        )
    if role is not None and found["role"] != role:
        right = "grid.connect_network" if found["role"] == "network" else "grid.connect"
        raise InvalidInputError(f"{http.url} is a {found['role']}, not a {role}: use {right}(...).")
    return found


def sign_in(url: str, username: str, password: str) -> Account:
    """Exchange the password for a token of this session. The password is not kept."""
    open_http = Http(url)
    try:
        answer = open_http.once("POST", "sign-in/", username=username, password=password)
    except AuthenticationError as error:
        raise AuthenticationError(
            f"{url} does not let {username!r} in: {error.message} "
            "Check the name and the password, or ask the administrator there.",
            **error.details,
        ) from None
    finally:
        open_http.close()
    return _account(url, answer)


def with_token(url: str, token: str) -> Account:
    """The account that an access token stands for."""
    http = Http(url, token)
    try:
        me = http.get("me/")
    except GridError as error:
        http.close()
        if not isinstance(error, AuthenticationError):
            raise
        raise AuthenticationError(f"{url} does not accept this token: {error.message}", **error.details) from None
    scopes = me.get("scopes")
    return Account(http, me["username"], tuple(me["rights"]), False, None if scopes is None else tuple(scopes))


def with_assertion(network: Http, node: Mapping[str, str]) -> Account:
    """Sign in at a node that a search named, by the word of the network. `node`: its id, url and public key.

    Raises AuthenticationError where what answers does not hold the node's key, or the node accepts no such accounts.
    """
    http = Http(node["url"])
    try:
        check_key(http, node["public_key"])
        key = Ed25519PrivateKey.generate()
        issued = network.once(
            "POST", "assertions/", node=node["id"], session_key=key.public_key().public_bytes_raw().hex()
        )
        challenge = http.once("POST", "challenge/")["challenge"]
        stated = hashlib.sha256(_canonical(issued["assertion"])).digest()
        answer = http.once(
            "POST",
            "sign-in/assertion/",
            assertion=issued["assertion"],
            signature=issued["signature"],
            challenge=challenge,
            proof=key.sign(PROOF + bytes.fromhex(challenge) + stated).hex(),
        )
    except AuthenticationError as error:
        raise AuthenticationError(
            f"Sign-in at {node['id']} through the network failed: {error.message}", **error.details
        ) from None
    finally:
        http.close()
    return _account(node["url"], answer)


def proven_identity(http: Http, *, role: str | None = None) -> dict[str, Any] | None:
    """What the deployment says of itself; None where it does not prove to hold its key, at this address."""
    challenge = os.urandom(32)
    found = identity_of(http, role=role, challenge=challenge.hex())
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found["public_key"]))
        # Signed with the address: who relays us to the node from another one proves nothing.
        key.verify(bytes.fromhex(found["signature"]), IDENTITY + challenge + http.url.encode())
    except (InvalidSignature, KeyError, TypeError, ValueError):
        return None
    return found


def check_key(http: Http, public_key: str) -> None:
    """Have the node prove that it holds this key. Raises AuthenticationError."""
    found = proven_identity(http, role="node")
    if found is None or found["public_key"] != public_key:
        raise AuthenticationError(
            f"What answers at {http.url} is not the node that the network names: it does not hold the node's key. "
            "Nothing was sent to it; tell the network's operator."
        )


def _account(url: str, answer: Mapping[str, Any]) -> Account:
    user = answer["user"]
    return Account(Http(url, answer["token"], met=True), user["username"], tuple(user["rights"]), session=True)


def _canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
