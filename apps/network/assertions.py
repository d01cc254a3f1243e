"""One sign-in: the network says who its user is, the user proves to hold the session's key, the node lets them in.

The challenge is a signed statement of ours, so that asking for one costs this node no memory.
"""

from __future__ import annotations

import hashlib
import os
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from django.db import transaction
from msgspec import Meta

from apps.accounts.actions import federated_user
from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import keys
from apps.core.canonical import canonical
from apps.network.messages import Count, Key, clean
from apps.network.models import Membership, Node, State, UsedOnce
from apps.network.once import use_once
from gridclient.wire.errors import AuthenticationError, InvalidInputError, NotFoundError, NotPermittedError

ASSERTION = "gridsite/assertion/1"
PROOF = "gridsite/proof/1"
CHALLENGE = "gridsite/challenge/1"
LIFETIME = timedelta(seconds=60)
SKEW = timedelta(seconds=5)
"""How far the network's clock may be ahead of ours."""
_RANDOM, _TIME = 16, 8


class Assertion(msgspec.Struct, forbid_unknown_fields=True):
    """Times are whole seconds since 1970. `username` and `network` are for display only."""

    protocol: str
    network_key: Key
    network: Annotated[str, Meta(max_length=80)]
    user_id: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[0-9a-zA-Z-]+$")]
    username: Annotated[str, Meta(min_length=1, max_length=150)]
    node_key: Key
    session_key: Key
    issued: Count
    expires: Count
    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


def issue(user: User, *, node: Node, network: str, session_key: str, now: datetime) -> tuple[dict[str, Any], str]:
    """An assertion that `node` accepts once within a minute from the holder of `session_key`, and its signature.

    `network` is our name, for display. Raises NotPermittedError for an account that another network vouches for,
    NotFoundError for a node that is no member.
    """
    if user.is_federated or not user.is_active:
        raise NotPermittedError("Only this network's own accounts are vouched for.")
    if node.state != State.APPROVED:
        raise NotFoundError(f"There is no node '{node.id}' on this network.")
    try:
        proven = len(bytes.fromhex(session_key)) == 32 and session_key == session_key.lower()
    except ValueError:
        proven = False
    if not proven:
        raise InvalidInputError("session_key must be an Ed25519 public key: 64 lower-case hexadecimal digits.")
    issued = int(now.timestamp())
    assertion = msgspec.to_builtins(
        Assertion(
            protocol=ASSERTION,
            network_key=keys.public_key(),
            network=network[:80],
            user_id=str(user.id),
            username=user.username,
            node_key=node.public_key,
            session_key=session_key,
            issued=issued,
            expires=issued + int(LIFETIME.total_seconds()),
            id=os.urandom(16).hex(),
        )
    )
    return assertion, keys.sign(ASSERTION, canonical(assertion))


def new_challenge(*, now: datetime) -> str:
    """A challenge of this node, hex, good for a minute and one sign-in."""
    stated = os.urandom(_RANDOM) + int((now + LIFETIME).timestamp()).to_bytes(_TIME, "big")
    return stated.hex() + keys.sign(CHALLENGE, stated)


def _challenge_bytes(challenge: str, now: datetime) -> bytes:
    try:
        raw = bytes.fromhex(challenge)
    except ValueError:
        raise AuthenticationError("The challenge is not one of this node.") from None
    stated, signature = raw[: _RANDOM + _TIME], raw[_RANDOM + _TIME :].hex()
    if challenge != raw.hex() or not keys.verify(keys.public_key(), CHALLENGE, stated, signature):
        raise AuthenticationError("The challenge is not one of this node.")
    if int.from_bytes(stated[_RANDOM:], "big") < now.timestamp():
        raise AuthenticationError("The challenge is too old; ask for a new one.")
    return raw


def _network() -> Membership:
    membership = Membership.objects.first()
    if membership is None or membership.state != State.APPROVED:
        raise AuthenticationError("This node belongs to no network, so it accepts accounts of none.")
    if membership.frozen:
        raise AuthenticationError(
            "The network's key has changed: its accounts may not sign in until this node's operator decides."
        )
    return membership


def _checked(
    assertion: dict[str, Any], signature: str, membership: Membership, now: datetime
) -> tuple[Assertion, bytes]:
    try:
        stated = msgspec.convert(assertion, Assertion)
        signed = canonical(assertion)
    except (msgspec.ValidationError, ValueError, TypeError):
        raise AuthenticationError("The assertion has another shape than this node understands.") from None
    if stated.protocol != ASSERTION:
        raise AuthenticationError(f"This node understands assertions of protocol {ASSERTION} only.")
    if stated.network_key != membership.public_key or not keys.verify(
        membership.public_key, ASSERTION, signed, signature
    ):
        raise AuthenticationError("The assertion was not made by this node's network.")
    if stated.node_key != keys.public_key():
        raise AuthenticationError("The assertion was made for another node.")
    at = now.timestamp()
    if stated.issued > at + SKEW.total_seconds() or stated.expires <= at:
        raise AuthenticationError(
            "The assertion is not valid at this time; ask the network for a new one, or set the clocks right."
        )
    if not 0 < stated.expires - stated.issued <= LIFETIME.total_seconds():
        raise AuthenticationError("The assertion claims a longer life than a minute.")
    return stated, signed


def accept(assertion: dict[str, Any], signature: str, challenge: str, proof: str, *, now: datetime) -> User:
    """The local account of the network's user who presents this assertion. Raises AuthenticationError.

    `proof` is the session key's signature over our challenge and the sha256 of the canonical assertion.
    """
    membership = _network()
    stated, signed = _checked(assertion, signature, membership, now)
    asked = _challenge_bytes(challenge, now)
    if not keys.verify(stated.session_key, PROOF, asked + hashlib.sha256(signed).digest(), proof):
        raise AuthenticationError("The proof does not show that you hold the session's key.")
    until = now + 2 * LIFETIME
    if not use_once(UsedOnce.Kind.CHALLENGE, hashlib.sha256(asked).hexdigest(), expires=until, now=now):
        raise AuthenticationError("The challenge was used before; ask for a new one.")
    if not use_once(UsedOnce.Kind.ASSERTION, f"{membership.fingerprint}:{stated.id}", expires=until, now=now):
        raise AuthenticationError("The assertion was used before; ask the network for a new one.")
    with transaction.atomic():
        user = federated_user(
            network_key=membership.fingerprint,
            user_id=stated.user_id,
            display=f"{clean(stated.username)}@{clean(stated.network)}",
            now=now,
        )
        record(Verb.SIGNED_IN, by=user, target=f"user:{user.id}", network=membership.fingerprint, assertion=stated.id)
    return user
