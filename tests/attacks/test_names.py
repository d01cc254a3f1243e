"""Attack 31: be taken for somebody else, by a name, a copied statement or an address.

What a user would lose: the data that were given to their name, and the password that opens their account everywhere.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import gridclient as grid
from apps.core.canonical import canonical
from apps.network import signing
from gridclient.wire.errors import GridError, InvalidInputError
from tests.attacks.conftest import Private
from tests.attacks.ward import PASSWORD, Ward, private_values
from tests.factories.grid import LiveGrid
from tests.factories.network import acting_as, join_of
from tests.factories.raw import RawClient, rest, sign_in

DANA = {"username": "attack-dana", "password": "dana-has-one-password"}


# --- names ------------------------------------------------------------------------------------------------------


def test_a_name_that_is_nobodys_yet_gives_nobody_a_right_later(ward: Ward) -> None:
    before = ward.call("owner", "GET", "datasets/?limit=100")[1]["results"]
    with RawClient(ward.url, ward.tokens["owner"]) as owner:
        for names in (["attack-future"], ["attack-scientist", "attack-future"], ["attack-future@grid"], ["team:none"]):
            with pytest.raises(InvalidInputError, match=r"attack-future|team:none"):
                owner.publish(private_values(12, 2, seed=1), name="For later", allowed_users=names)
    assert ward.call("owner", "GET", "datasets/?limit=100")[1]["results"] == before
    account = {"username": "attack-future", "password": "claimed-it-first-1"}
    assert ward.call("administrator", "POST", "users/", {**account, "roles": ["scientist"]})[0] == 201
    token = sign_in(ward.url, **account)
    rows = rest("GET", f"{ward.url}/api/datasets/?limit=100", token=token)[1]["results"]
    assert all(set(row["rights"]) <= {"compute", "discover"} for row in rows)


def disguises(name: str, source: random.Random) -> list[str]:
    """The name as it reads, written otherwise."""
    spelled = [
        name.upper(),
        name.title(),
        f" {name}",
        f"{name} ",
        f"{name}\u200b",
        f"\u202e{name}",
        name.replace("a", "\uff41"),
        name.replace("e", "e\u0301").replace("e\u0301", "e"),
        f"{name}\x00",
        f"{name}\n",
        name.replace("-", "\u2010"),
        name.replace("a", "а"),
        name.replace("c", "с"),
        "".join(source.choice([c.upper(), c]) for c in name),
    ]
    return sorted({one for one in spelled if one != name})


def test_a_used_name_is_never_given_again(ward: Ward, births: Private) -> None:
    """A deactivated account's name, and whatever reads like it, opens nothing for a newcomer."""
    account = {"username": "attack-leaver", "password": "leaves-the-house-1"}
    assert ward.call("administrator", "POST", "users/", {**account, "roles": ["scientist"]})[0] == 201
    ward.grant(births.dataset, "leaver", "read")
    assert ward.call("administrator", "PATCH", "users/attack-leaver/", {"active": False})[0] == 200
    source = random.Random(31)
    for name in ["attack-leaver", *disguises("attack-leaver", source)]:
        made = {"username": name, "password": "newcomer-is-here-1", "roles": ["scientist"]}
        status, body = ward.call("administrator", "POST", "users/", made)
        assert status >= 400, name
    status, body = rest("POST", f"{ward.url}/api/sign-in/", account)
    assert status in (401, 403)


def test_local_names_cannot_look_federated(ward: Ward) -> None:
    for name in ("dana@network", "dana@grid", "@", "a@b", "dana＠network"):
        made: dict[str, Any] = {"username": name, "password": "newcomer-is-here-1", "roles": []}
        assert ward.call("administrator", "POST", "users/", made)[0] == 400


# --- joining as somebody ----------------------------------------------------------------------------------------


def signed(url: str, path: str, body: bytes, name: str, audience: str) -> tuple[int, Any]:
    """A request signed by the attacker's own key."""
    with acting_as(name):
        headers = signing.sign_request("POST", path, body, audience=audience, now=datetime.now(UTC))
    return rest("POST", f"{url}{path}", json.loads(body), headers=headers)


def raw_post(url: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("POST", path, body, {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_nobody_else_joins_as_the_hospital(grid_: LiveGrid) -> None:
    network = grid_.network
    operator = sign_in(network.url, network.username, network.password)
    before = rest("GET", f"{network.url}/api/nodes/", token=operator)[1]["results"]
    audience = rest("GET", f"{network.url}/api/identity/")[1]["public_key"]
    hospital = rest("GET", f"{grid_.hospital.url}/api/identity/")[1]["public_key"]
    path = "/api/nodes/"
    for number, name in enumerate(
        ["hospital", "company", "Hospital", "hоspital", "hospital ", "hospital\u200b", "../hospital"]
    ):
        for key in (None, hospital):
            wanted = msgspec.structs.replace(join_of("mallory", grid_.hospital.url, key=key), id=name)
            body = msgspec.json.encode(wanted)
            with acting_as("mallory"):
                headers = signing.sign_request("POST", path, body, audience=audience, now=datetime.now(UTC))
            status, answer = raw_post(network.url, path, body, headers)
            assert status >= 400, (number, name, answer)
            # The same again, or with another's key in the header, is no better.
            assert raw_post(network.url, path, body, headers)[0] >= 400
            assert raw_post(network.url, path, body, {**headers, "Grid-Key": hospital})[0] >= 400
    after = rest("GET", f"{network.url}/api/nodes/", token=operator)[1]["results"]
    assert [(row["id"], row["public_key"], row["url"], row["state"]) for row in after] == [
        (row["id"], row["public_key"], row["url"], row["state"]) for row in before
    ]


# --- statements -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid_(grid: LiveGrid) -> LiveGrid:
    """The live grid; `grid` is the SDK here."""
    return grid


@pytest.fixture(scope="module")
def dana(grid_: LiveGrid) -> str:
    """A token of a scientist of the network."""
    network = grid_.network
    operator = sign_in(network.url, network.username, network.password)
    status, body = rest("POST", f"{network.url}/api/users/", {**DANA, "roles": ["scientist"]}, token=operator)
    assert status == 201, body
    return sign_in(network.url, **DANA)


def presented(grid_: LiveGrid, dana: str, node: str = "hospital") -> dict[str, Any]:
    """What a node is shown at a sign-in, and the session's key."""
    key = Ed25519PrivateKey.generate()
    asked = {"node": node, "session_key": key.public_key().public_bytes_raw().hex()}
    status, issued = rest("POST", f"{grid_.network.url}/api/assertions/", asked, token=dana)
    assert status == 200, issued
    challenge = rest("POST", f"{grid_.nodes[node].url}/api/challenge/", {})[1]["challenge"]
    return {**issued, "challenge": challenge, "proof": proof(key, challenge, issued["assertion"]), "_key": key}


def proof(key: Ed25519PrivateKey, challenge: str, assertion: dict[str, Any]) -> str:
    return key.sign(
        b"gridsite/proof/1\n" + bytes.fromhex(challenge) + hashlib.sha256(canonical(assertion)).digest()
    ).hex()


def present(url: str, shown: dict[str, Any]) -> tuple[int, Any]:
    return rest("POST", f"{url}/api/sign-in/assertion/", {k: v for k, v in shown.items() if k != "_key"})


def test_a_statement_opens_one_door_once(grid_: LiveGrid, dana: str) -> None:
    shown = presented(grid_, dana)
    assert present(grid_.company.url, shown)[0] == 401
    assert present(grid_.hospital.url, shown)[0] == 200
    assert present(grid_.hospital.url, shown)[0] == 401
    fresh = rest("POST", f"{grid_.hospital.url}/api/challenge/", {})[1]["challenge"]
    again = {**shown, "challenge": fresh, "proof": proof(shown["_key"], fresh, shown["assertion"])}
    assert present(grid_.hospital.url, again)[0] == 401
    other = presented(grid_, dana)
    used = {
        **other,
        "challenge": shown["challenge"],
        "proof": proof(other["_key"], shown["challenge"], other["assertion"]),
    }
    assert present(grid_.hospital.url, used)[0] == 401


def test_no_part_of_a_statement_can_be_exchanged(grid_: LiveGrid, dana: str) -> None:
    source, node = random.Random(32), grid_.hospital.url
    mallory = Ed25519PrivateKey.generate()
    admitted = 0
    for shown in [presented(grid_, dana) for _ in range(4)] * 10:
        forged = {**shown, "assertion": dict(shown["assertion"])}
        match source.randrange(6):
            case 0:
                forged["assertion"]["user_id"] = "00000000-0000-0000-0000-000000000001"
            case 1:
                forged["assertion"]["session_key"] = mallory.public_key().public_bytes_raw().hex()
            case 2:
                forged["assertion"][source.choice(["expires", "issued"])] += source.choice([-3600, 3600])
            case 3:
                forged["signature"] = mallory.sign(canonical(forged["assertion"])).hex()
            case 4:
                forged["assertion"]["network_key"] = mallory.public_key().public_bytes_raw().hex()
                forged["signature"] = mallory.sign(b"gridsite/assertion/1\n" + canonical(forged["assertion"])).hex()
            case _:
                forged["challenge"] = source.choice(["", "00" * 88, shown["challenge"][:-2] + "00"])
        key = source.choice([mallory, shown["_key"]])
        if len(forged["challenge"]) % 2 == 0:
            forged["proof"] = proof(key, forged["challenge"], forged["assertion"])
        if forged == shown:
            continue
        admitted += present(node, forged)[0] < 400
    assert admitted == 0


def test_who_comes_by_a_network_has_no_rights_of_a_namesake(
    grid_: LiveGrid, ward: Ward, dana: str, births: Private
) -> None:
    """A network's 'attack-owner' is not the node's."""
    network = grid_.network
    operator = sign_in(network.url, network.username, network.password)
    twin = {"username": "attack-owner", "password": "namesake-of-an-owner"}
    assert (
        rest("POST", f"{network.url}/api/users/", {**twin, "roles": ["owner", "administrator"]}, token=operator)[0]
        == 201
    )
    status, answer = present(grid_.hospital.url, presented(grid_, sign_in(network.url, **twin)))
    assert status == 200 and "@" in answer["user"]["username"] and not answer["user"]["roles"]
    with RawClient(ward.url, answer["token"]) as client, pytest.raises(GridError) as refused:
        client.get(client.asset(births.dataset))
    assert refused.value.code == "get_not_permitted"


# --- addresses --------------------------------------------------------------------------------------------------


@contextmanager
def listening(answer: Any) -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP server that notes every byte it is told. `answer(handler, body)` gives status and JSON."""
    heard: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _all(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard.append(self.requestline.encode() + bytes(str(self.headers), "latin-1") + body)
            status, said = answer(self, body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _all

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lies(kind: str, mallory: Ed25519PrivateKey, real: dict[str, Any]) -> Any:
    """An impostor of a node: it claims the node's key, or shows one of its own, and takes whatever it is given."""

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        if "/identity/" in handler.path:
            challenge = bytes.fromhex(handler.path.partition("challenge=")[2])
            own = mallory.public_key().public_bytes_raw().hex()
            signature = mallory.sign(b"gridsite/identity/1\n" + challenge).hex()
            return 200, {**real, "public_key": own if kind == "own key" else real["public_key"], "signature": signature}
        if "/challenge/" in handler.path:
            return 200, {"challenge": "00" * 88}
        return 200, {"token": "grd_aaaaaaaa_" + "a" * 43, "user": {"username": "x", "rights": []}}

    return answer


@pytest.mark.parametrize("kind", ["claimed key", "own key"])
def test_an_address_from_a_search_is_told_no_password_and_no_token(
    grid_: LiveGrid, ward: Ward, dana: str, births: Private, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search result names the attacker's address. The network in between is the real one but for that."""
    # A guest uses the process's only connection to the node; other tests of this run may have left some open.
    monkeypatch.setattr("gridclient.node._connected", [])
    mallory, real = Ed25519PrivateKey.generate(), rest("GET", f"{grid_.hospital.url}/api/identity/")[1]
    tokens: list[str] = []

    def network(handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        sent = json.loads(body) if body else None
        status, said = rest(handler.command, grid_.network.url + handler.path, sent, token=token)
        if "/search/" in handler.path:
            for row in said["results"]:
                row["node"]["url"] = impostor
        tokens.extend([said["token"]] if "/sign-in/" in handler.path else [])
        return status, said

    with listening(lies(kind, mallory, real)) as (impostor, heard), listening(network) as (address, _):
        with grid.connect_network(address, **DANA) as connected:
            found = connected.search("#attacked")["hospital"]
            for act in (lambda p: p.sum().get(), lambda p: p.get(), lambda p: p.request("x"), lambda p: p.mock):
                with pytest.raises(grid.AuthenticationError):
                    act(found[0])
        with grid.connect(ward.url, username="attack-scientist", password=PASSWORD.format("scientist")) as node:
            guest = grid.connect_network(address)
            try:
                (pointer,) = guest.search("#attacked")["hospital"]
                with pytest.raises(grid.GetNotPermittedError):
                    pointer.get()
            finally:
                guest.close()
            secrets = [node.http.token]
    told = b"\n".join(heard)
    assert heard and tokens
    for secret in [DANA["password"], PASSWORD.format("scientist"), *tokens, *secrets, dana]:
        assert secret.encode() not in told and secret[13:].encode() not in told
    assert b"authorization" not in told.lower() and b"session_key" not in told
    assert not np.isin(births.values, np.frombuffer(told[: len(told) // 8 * 8])).any()
