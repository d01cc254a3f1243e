"""One sign-in: a node lets in exactly the person whom its network vouches for, here, now, once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.actions import federated_user
from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.core import keys
from apps.core.canonical import canonical
from apps.network import assertions, membership
from apps.network.models import Membership, Node, State
from gridclient.wire.errors import AuthenticationError, GridError, InvalidInputError, NotFoundError, NotPermittedError
from tests.factories.network import NOW, acting_as, session_key
from tests.factories.people import People, make_user

pytestmark = pytest.mark.django_db


@dataclass
class SignIn:
    """What a scientist presents. Tests change one part of it."""

    assertion: dict[str, Any]
    signature: str
    private: Ed25519PrivateKey
    challenge: str = field(default_factory=lambda: assertions.new_challenge(now=NOW))
    proof: str = ""

    def prove(self) -> SignIn:
        message = bytes.fromhex(self.challenge) + hashlib.sha256(canonical(self.assertion)).digest()
        self.proof = self.private.sign(b"gridsite/proof/1\n" + message).hex()
        return self

    def present(self, **later: float) -> User:
        return assertions.accept(
            self.assertion, self.signature, self.challenge, self.proof, now=NOW + timedelta(**later)
        )


def issued(user: User, *, node_key: str | None = None, network: str = "grid", **change: Any) -> SignIn:
    """An assertion of the network `network`; `change` is signed with it: a network that lies."""
    private, public = session_key()
    node = Node(id="ward", public_key=node_key or keys.public_key(), state=State.APPROVED)
    with acting_as(network, "network"):
        assertion, signature = assertions.issue(user, node=node, network=network, session_key=public, now=NOW)
        if change:
            assertion |= change
            signature = keys.sign(assertions.ASSERTION, canonical(assertion))
    return SignIn(assertion, signature, private).prove()


@pytest.fixture
def dana(db: None) -> User:
    return make_user("dana", "scientist")


@pytest.fixture(autouse=True)
def pinned(db: None) -> Membership:
    """This node belongs to the network `grid`."""
    with acting_as("grid", "network") as key:
        pass
    found = membership.contact(url="https://grid.example", public_key=key, now=NOW)
    found.state, found.node_id = State.APPROVED, "ward"
    found.save()
    return found


def test_a_user_of_the_network_has_one_account_here_without_roles(dana: User) -> None:
    user = issued(dana).present()
    assert (user.username, user.is_federated, user.roles.count()) == ("dana@grid", True, 0)
    assert issued(dana).present() == user
    assert AuditEvent.objects.filter(verb="signed_in", actor_id=str(user.id)).count() == 2


def test_an_assertion_is_good_once(dana: User) -> None:
    first = issued(dana)
    first.present()
    with pytest.raises(AuthenticationError, match="challenge was used"):
        first.present()
    first.challenge = assertions.new_challenge(now=NOW)
    with pytest.raises(AuthenticationError, match="assertion was used"):
        first.prove().present()


def test_a_challenge_is_good_once(dana: User) -> None:
    first, second = issued(dana), issued(dana)
    first.present()
    second.challenge = first.challenge
    with pytest.raises(AuthenticationError, match="challenge was used"):
        second.prove().present()


def test_a_challenge_lives_a_minute(dana: User) -> None:
    old = issued(dana)
    old.challenge = assertions.new_challenge(now=NOW - timedelta(seconds=61))
    with pytest.raises(AuthenticationError, match="too old"):
        old.prove().present()


@pytest.mark.parametrize("challenge", ["", "00", "zz", "00" * 88])
def test_a_challenge_must_be_ours(dana: User, challenge: str) -> None:
    forged = issued(dana)
    if len(challenge) > 100:
        with acting_as("elsewhere"):
            challenge = assertions.new_challenge(now=NOW)
    if challenge != "zz":
        forged.challenge = challenge
        forged.prove()
    forged.challenge = challenge
    with pytest.raises(AuthenticationError, match="not one of this node"):
        forged.present()


def test_who_stole_an_assertion_cannot_use_it(dana: User) -> None:
    stolen = issued(dana)
    stolen.private, _ = session_key()
    with pytest.raises(AuthenticationError, match="hold the session's key"):
        stolen.prove().present()


def test_a_proof_for_another_assertion_is_worth_nothing(dana: User) -> None:
    mine, other = issued(dana), issued(dana)
    mine.private, mine.proof = other.private, other.proof
    with pytest.raises(AuthenticationError, match="hold the session's key"):
        mine.present()


def test_a_node_cannot_pass_an_assertion_on_to_another(dana: User) -> None:
    with acting_as("evil") as other:
        pass
    with pytest.raises(AuthenticationError, match="another node"):
        issued(dana, node_key=other).present()


def test_another_network_vouches_for_nobody(dana: User) -> None:
    with pytest.raises(AuthenticationError, match="not made by this node's network"):
        issued(dana, network="elsewhere").present()


def test_another_network_cannot_name_the_pinned_key(dana: User, pinned: Membership) -> None:
    with pytest.raises(AuthenticationError, match="not made by this node's network"):
        issued(dana, network="elsewhere", network_key=pinned.public_key).present()


@pytest.mark.parametrize("field", ["user_id", "username", "session_key", "node_key", "expires", "id", "network"])
def test_no_word_of_an_assertion_can_be_changed(dana: User, field: str) -> None:
    changed = issued(dana)
    old = changed.assertion[field]
    changed.assertion[field] = old + 1 if isinstance(old, int) else ("0" if old[0] != "0" else "1") + old[1:]
    with pytest.raises(AuthenticationError):
        changed.prove().present()
    assert not User.objects.exclude(federated_key="").exists()


@pytest.mark.parametrize("seconds", [60, 3600, -6])
def test_an_assertion_is_good_now_only(dana: User, seconds: float) -> None:
    late = issued(dana)
    late.challenge = assertions.new_challenge(now=NOW + timedelta(seconds=seconds))
    with pytest.raises(AuthenticationError, match="not valid"):
        late.prove().present(seconds=seconds)


def test_even_the_network_cannot_make_one_that_lives_longer(dana: User) -> None:
    at = int(NOW.timestamp())
    with pytest.raises(AuthenticationError, match="longer life"):
        issued(dana, issued=at, expires=at + 86_400).present()


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "gridsite/assertion/2"},
        {"extra": 1},
        {"user_id": ""},
        {"user_id": 7},
        {"id": "x"},
        {"issued": "now"},
    ],
)
def test_another_shape_is_refused(dana: User, change: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError):
        issued(dana, **change).present()


def test_without_a_network_nobody_signs_in_from_one(dana: User) -> None:
    Membership.objects.all().delete()
    with pytest.raises(AuthenticationError, match="no network"):
        issued(dana).present()


@pytest.mark.parametrize("state", ["", State.PENDING, State.REJECTED, State.REMOVED])
def test_only_members_accept_accounts(dana: User, pinned: Membership, state: str) -> None:
    Membership.objects.update(state=state)
    with pytest.raises(AuthenticationError, match="no network"):
        issued(dana).present()


def test_a_changed_key_freezes_the_accounts_until_someone_decides(
    dana: User, people: People, pinned: Membership
) -> None:
    account = issued(dana).present()
    with acting_as("usurper", "network") as other:
        pass
    membership.contact(url=pinned.url, public_key=other, now=NOW)
    for network in ("grid", "usurper"):
        with pytest.raises(AuthenticationError, match="key has changed"):
            issued(dana, network=network).present()
    membership.contact(url=pinned.url, public_key=pinned.public_key, now=NOW)
    assert Membership.objects.get().frozen
    assert AuditEvent.objects.filter(verb="network_key_changed").count() == 1

    for person in (people.stranger, people.owner, people.auditor):
        with pytest.raises(NotPermittedError):
            membership.pin(other, by=person, reason="")
    with pytest.raises(GridError):
        membership.pin("ab" * 32, by=people.administrator, reason="")
    membership.pin(pinned.public_key, by=people.administrator, reason="a mistake of theirs")
    assert issued(dana).present() == account


def test_a_new_key_cannot_speak_for_accounts_of_the_old(dana: User, people: People, pinned: Membership) -> None:
    account = issued(dana).present()
    with acting_as("renewed", "network") as other:
        pass
    membership.contact(url=pinned.url, public_key=other, now=NOW)
    membership.pin(other, by=people.administrator, reason="they told us by telephone")
    Membership.objects.update(state=State.APPROVED)
    assert issued(dana, network="renewed").present() != account


def test_a_network_vouches_for_its_own_active_accounts_and_members_only(dana: User) -> None:
    _, public = session_key()
    here = Node(id="ward", public_key=keys.public_key(), state=State.APPROVED)
    visitor = federated_user(network_key="ab" * 16, user_id="1", display="eve@elsewhere", now=NOW)
    with pytest.raises(NotPermittedError):
        assertions.issue(visitor, node=here, network="grid", session_key=public, now=NOW)
    gone = Node(id="gone", public_key=keys.public_key(), state=State.REMOVED)
    with pytest.raises(NotFoundError):
        assertions.issue(dana, node=gone, network="grid", session_key=public, now=NOW)
    for bad in ("", "zz" * 32, "AB" * 32, "ab" * 31):
        with pytest.raises(InvalidInputError):
            assertions.issue(dana, node=here, network="grid", session_key=bad, now=NOW)
