"""The routes between deployments: each role answers its own, to whom it should, within its caps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings

from apps.accounts.actions import create_token
from apps.accounts.models import User
from apps.core import clock, keys
from apps.network import actions, announcements, messages
from apps.network.models import Membership, Node, State
from apps.network.signing import sign_request
from tests.factories.network import acting_as, join_of, member, metadata, push_of, session_key
from tests.factories.people import People
from tests.unit.test_network_sign_in import SignIn

pytestmark = pytest.mark.django_db
JSON = "application/json"


def ask(method: str, path: str, body: Any = None, *, user: User | None = None, headers: Any = None) -> Any:
    headers = dict(headers or {})
    if user is not None:
        _, text = create_token(user=user, name="test", expires=None, by=user, kind="session")
        headers["Authorization"] = f"Bearer {text}"
    raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    client = Client(raise_request_exception=False)
    if method == "GET":
        return client.get(f"/api/{path}", secure=True, headers=headers)
    return client.post(f"/api/{path}", raw, content_type=JSON, secure=True, headers=headers)


def ask_signed(name: str, path: str, body: bytes) -> Any:
    audience = keys.public_key()
    with acting_as(name):
        headers = sign_request("POST", f"/api/{path}", body, audience=audience, now=clock.now())
    return ask("POST", path, body, headers=headers)


@pytest.fixture
def network() -> Iterator[None]:
    with acting_as("grid", "network"):
        yield


def test_identity_proves_the_key() -> None:
    challenge = os.urandom(32)
    found = ask("GET", f"identity/?challenge={challenge.hex()}").json()
    assert (found["role"], found["name"], found["id"], found["protocol"]) == ("node", "ward", "ward", 1)
    signed = challenge + settings.GRID_URL.encode()
    assert keys.verify(found["public_key"], "gridsite/identity/1", signed, found["signature"])
    assert ask("GET", "identity/").json()["signature"] == ""


@pytest.mark.parametrize("challenge", ["zz", "00", "00" * 65, "é"])
def test_identity_signs_no_odd_challenge(challenge: str) -> None:
    assert ask("GET", f"identity/?challenge={challenge}").status_code == 400


NETWORK_ROUTES = ["nodes/", "nodes/x/approve/", "nodes/x/reject/", "nodes/x/remove/", "announcements/", "assertions/"]


@pytest.mark.parametrize("path", NETWORK_ROUTES)
def test_a_node_is_no_network(people: People, path: str) -> None:
    assert ask("POST", path, {"node": "x", "session_key": "x"}, user=people.administrator).status_code == 404
    assert ask("GET", "search/", user=people.administrator).status_code == 404


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("path", ["challenge/", "sign-in/assertion/"])
def test_a_network_is_no_node(path: str) -> None:
    assert ask("POST", path).status_code == 404


@pytest.mark.usefixtures("network")
def test_a_node_asks_to_join_and_unsigned_or_hostile_bodies_are_refused() -> None:
    body = messages.msgspec.json.encode(join_of("hospital"))
    assert ask_signed("hospital", "nodes/", body).json() == {"id": "hospital", "state": "pending", "reason": ""}
    assert ask("POST", "nodes/", body).status_code == 401
    assert ask_signed("impostor", "nodes/", body).status_code == 401
    assert ask_signed("hospital", "nodes/", b"[" * 100_000).status_code == 400
    assert ask_signed("hospital", "nodes/", b"x" * (messages.MAX_BODY + 1)).status_code == 429
    assert Node.objects.count() == 1


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("verb", ["approve", "reject", "remove"])
def test_who_is_not_the_operator_decides_nothing(people: People, verb: str) -> None:
    wanted = join_of("hospital")
    actions.join(wanted, key=wanted.public_key, address="198.51.100.7", now=clock.now())
    assert ask("POST", f"nodes/hospital/{verb}/").status_code == 401
    for person in (people.stranger, people.scientist, people.owner, people.reviewer, people.auditor):
        for node in ("hospital", "absent"):
            assert ask("POST", f"nodes/{node}/{verb}/", user=person).status_code == 403
    assert ask("POST", f"nodes/absent/{verb}/", user=people.administrator).status_code == 404
    assert Node.objects.get().state == State.PENDING


@pytest.mark.usefixtures("network")
def test_the_operator_decides(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = join_of("hospital")
    actions.join(wanted, key=wanted.public_key, address="198.51.100.7", now=clock.now())

    async def ask_identity(url: str, *, role: str) -> messages.Identity:
        return messages.Identity("node", "hospital", "hospital", 1, 1, wanted.public_key, "")

    monkeypatch.setattr(actions, "ask_identity", ask_identity)
    admin = people.administrator
    assert ask("POST", "nodes/hospital/approve/", {"reason": "known"}, user=admin).json()["state"] == "approved"
    assert ask("POST", "nodes/hospital/approve/", user=admin).status_code == 409
    assert ask("POST", "nodes/hospital/remove/", {"reason": "left"}, user=admin).json()["state"] == "removed"


@pytest.mark.usefixtures("network")
def test_members_are_shown_to_everybody_signed_in_and_the_rest_to_the_operator(people: People) -> None:
    member("hospital", people.administrator, now=clock.now())
    wanted = join_of("company")
    actions.join(wanted, key=wanted.public_key, address="198.51.100.7", now=clock.now())
    assert ask("GET", "nodes/").status_code == 401
    (shown,) = ask("GET", "nodes/", user=people.stranger).json()["results"]
    assert set(shown) == {"id", "name", "url", "state", "last_seen"}
    assert len(ask("GET", "nodes/", user=people.administrator).json()["results"]) == 2


@pytest.mark.usefixtures("network")
def test_announced_datasets_are_found_page_by_page(people: People) -> None:
    node = member("hospital", people.administrator, now=clock.now())
    body = messages.msgspec.json.encode(push_of(metadata(1), metadata(2), metadata(3)))
    assert ask_signed("hospital", "announcements/", body).json()["in_step"]
    assert ask_signed("impostor", "announcements/", body).status_code == 404
    first = ask("GET", "search/?q=%23february&q=weight&limit=2", user=people.stranger).json()
    rest = ask("GET", f"search/?q=%23february&q=weight&limit=2&after={first['next']}", user=people.stranger).json()
    found = first["results"] + rest["results"]
    assert {each["dataset"]["slug"] for each in found} == {"births-1", "births-2", "births-3"} and rest["next"] is None
    assert found[0]["node"] == {"id": "hospital", "name": "Hospital", "url": node.url, "public_key": node.public_key}
    assert ask("GET", "search/?q=%23march", user=people.stranger).json()["results"] == []


@pytest.mark.usefixtures("network")
def test_guests_search_only_where_they_may() -> None:
    assert ask("GET", "search/").status_code == 401
    with override_settings(GRID_GUEST_SEARCH=True):
        assert ask("GET", "search/").json() == {"results": [], "next": None}


def sign_in(user: User) -> SignIn:
    """What the network `grid` gives `user` for this node, over its route."""
    private, public = session_key()
    with acting_as("ward") as here:
        pass
    with acting_as("grid", "network"):
        Node.objects.filter(pk="ward").update(public_key=here)
        answer = ask("POST", "assertions/", {"node": "ward", "session_key": public}, user=user)
    assert answer.status_code == 200, answer.json()
    challenge = ask("POST", "challenge/").json()["challenge"]
    return SignIn(answer.json()["assertion"], answer.json()["signature"], private, challenge).prove()


def belong() -> None:
    with acting_as("grid", "network") as key:
        pass
    Membership.objects.create(
        url="https://grid.example",
        public_key=key,
        fingerprint=keys.fingerprint(key),
        pinned=clock.now(),
        state=State.APPROVED,
    )


def test_a_signed_in_network_user_gets_a_session_here_without_a_password(people: People) -> None:
    member("ward", people.administrator, now=clock.now())
    with acting_as("ward"):
        belong()
        presented = sign_in(people.scientist)
        body = {name: getattr(presented, name) for name in ("assertion", "signature", "challenge", "proof")}
        answer = ask("POST", "sign-in/assertion/", body)
        assert answer.status_code == 200, answer.json()
        found = answer.json()
        assert set(found) == {"token", "expires", "user"} and found["user"]["username"] == "scientist@grid"
        me = ask("GET", "me/", headers={"Authorization": f"Bearer {found['token']}"})
        assert me.json()["roles"] == []
        assert ask("POST", "sign-in/assertion/", body).status_code == 401


@pytest.mark.usefixtures("network")
def test_nobody_is_vouched_for_without_a_sign_in_or_at_an_unknown_node(people: People) -> None:
    _, public = session_key()
    assert ask("POST", "assertions/", {"node": "ward", "session_key": public}).status_code == 401
    wanted = join_of("ward")
    actions.join(wanted, key=wanted.public_key, address="198.51.100.7", now=clock.now())
    for node in ("ward", "absent"):
        answer = ask("POST", "assertions/", {"node": node, "session_key": public}, user=people.scientist)
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"[" * 100_000, b'{"assertion":{"a":1},"signature":"","challenge":"","proof":""}']
)
def test_a_hostile_sign_in_is_one_typed_error(body: bytes) -> None:
    answer = ask("POST", "sign-in/assertion/", body)
    assert answer.status_code in (400, 401) and set(answer.json()["error"]) == {"code", "message", "details"}


def test_challenges_are_capped_per_address() -> None:
    from apps.api.network import SIGN_INS_PER_MINUTE

    codes = [ask("POST", "challenge/").status_code for _ in range(2 * SIGN_INS_PER_MINUTE + 1)]
    # A minute may begin in between, on a slow machine.
    assert codes[0] == 200 and 429 in codes


def test_the_membership_is_the_operators_business(people: People) -> None:
    assert ask("GET", "membership/", user=people.administrator).status_code == 404
    belong()
    with acting_as("usurper", "network") as other:
        pass
    Membership.objects.update(frozen=True, offered_key=other)
    for person in (people.stranger, people.scientist, people.owner, people.reviewer):
        assert ask("GET", "membership/", user=person).status_code == 403
        assert ask("POST", "membership/", {"public_key": other}, user=person).status_code == 403
    assert ask("GET", "membership/", user=people.administrator).json()["frozen"] is True
    answer = ask("POST", "membership/", {"public_key": other, "reason": "by telephone"}, user=people.administrator)
    assert answer.json()["public_key"] == other and answer.json()["frozen"] is False


@pytest.mark.usefixtures("network")
def test_no_route_shows_a_private_key(people: People) -> None:
    member("hospital", people.administrator, now=clock.now())
    announcements.receive(push_of(metadata()), key=Node.objects.get().public_key, now=clock.now())
    from django.conf import settings

    secrets = [path.read_bytes().hex() for path in settings.GRID_KEYS_DIR.glob("*.key")]
    assert secrets
    for path in ("identity/?challenge=" + "00" * 32, "nodes/", "search/"):
        shown = ask("GET", path, user=people.administrator).content.decode()
        assert not any(secret in shown for secret in secrets)
