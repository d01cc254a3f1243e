"""The network's verbs: nodes ask to join, the operator decides."""

from __future__ import annotations

from datetime import datetime, timedelta

from asgiref.sync import async_to_sync
from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import clock, keys
from apps.network.identity import ask_identity
from apps.network.messages import Join, checked_url, clean
from apps.network.models import KIND, NEXT, Node, State
from apps.network.policies import check_can_operate
from apps.tags import index
from gridclient.wire.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)

MOST_PENDING = 100
MOST_PENDING_PER_ADDRESS = 10
TIME_TO_LIVE = timedelta(seconds=45)


def join(message: Join, *, key: str, address: str, now: datetime) -> Node:
    """A node, proven to hold `key`, asks for an id, or asks again what became of it. Nobody is let in by this.

    An approved node that asks with another name or url waits for the operator again. Raises ConflictError for an id
    that belongs to another key, LimitExceededError while too many wait.
    """
    if message.public_key != key:
        raise AuthenticationError("The request is signed by another key than the one that wants to join.")
    url, name = checked_url(message.url), clean(message.name)
    if not name:
        raise InvalidInputError("The name must have visible characters.")
    try:
        with transaction.atomic():
            node = Node.objects.select_for_update(no_key=True).filter(public_key=key).first()
            if node is not None and node.id != message.id:
                if node.state != State.REJECTED:
                    raise ConflictError(f"This key stands for the id '{node.id}' here; ask for that one.")
                node.delete()
                node = None
            if node is None:
                return _ask(message.id, name, url, key, address, now)
            if (node.name, node.url) != (name, url):
                _ask_again(node, name, url, now)
            node.last_seen = now
            node.save()
            return node
    except IntegrityError:
        raise ConflictError(f"The id '{message.id}' was asked for by another key at the same moment.") from None


def _ask(node_id: str, name: str, url: str, key: str, address: str, now: datetime) -> Node:
    holder = Node.objects.filter(pk=node_id).first()
    if holder is not None:
        if holder.state != State.REJECTED:
            raise ConflictError(f"The id '{node_id}' belongs to another key; choose another GRID_NAME.")
        holder.delete()
    pending = Node.objects.filter(state=State.PENDING)
    if pending.count() >= MOST_PENDING or pending.filter(address=address).count() >= MOST_PENDING_PER_ADDRESS:
        raise LimitExceededError("Too many nodes wait for the network's operator; try again later.", limit=MOST_PENDING)
    node = Node.objects.create(
        id=node_id,
        name=name,
        url=url,
        public_key=key,
        fingerprint=keys.fingerprint(key),
        address=address,
        asked=now,
        last_seen=now,
    )
    record(
        Verb.NODE_JOINED,
        by=None,
        target=f"node:{node_id}",
        name=name,
        url=url,
        fingerprint=node.fingerprint,
        address=address,
    )
    return node


def _ask_again(node: Node, name: str, url: str, now: datetime) -> None:
    if node.state == State.APPROVED:
        node.state, node.asked, node.reason = State.PENDING, now, "It asks for another name or address."
        node.decided_at = node.decided_by = None
        unlist(node)
        record(Verb.NODE_JOINED, by=None, target=f"node:{node.id}", name=name, url=url, fingerprint=node.fingerprint)
    node.name, node.url = name, url


def unlist(node: Node) -> None:
    """Take what the node announced out of the search index. It is put back when the node, as a member, is heard."""
    index.hide(KIND, node.announcements.values_list("pk", flat=True))
    node.findable = False


def approve(node: Node, *, by: User, reason: str = "", now: datetime | None = None) -> Node:
    """Let a node in, after its URL has shown that it holds its key. Calls the node: never within a transaction.

    Raises ConnectionLostError, AuthenticationError or ConflictError when it did not show that; the node then waits on.
    """
    check_can_operate(by)
    _check_next(node, State.APPROVED)
    identity = async_to_sync(ask_identity)(node.url, role="node")
    if identity.public_key != node.public_key:
        raise ConflictError(f"{node.url} holds another key than the one that asked to join as '{node.id}'.")
    now = now or clock.now()
    with transaction.atomic():
        current = _locked(node.id)
        if (current.url, current.public_key) != (node.url, node.public_key):
            raise ConflictError(f"Node '{node.id}' changed while its address was checked; look at it again.")
        current.joined = current.joined or now
        return _decide(current, State.APPROVED, Verb.NODE_APPROVED, by=by, reason=reason, now=now)


def reject(node: Node, *, by: User, reason: str = "", now: datetime | None = None) -> Node:
    """Refuse a node that was never let in. Its id is free again."""
    check_can_operate(by)
    with transaction.atomic():
        current = _locked(node.id)
        if current.joined is not None:
            raise ConflictError(f"Node '{node.id}' was a member; remove it instead.")
        return _decide(current, State.REJECTED, Verb.NODE_REJECTED, by=by, reason=reason, now=now or clock.now())


def remove(node: Node, *, by: User, reason: str = "", now: datetime | None = None) -> Node:
    """Put a member out and forget what it announced. Its id stays reserved for its key."""
    check_can_operate(by)
    with transaction.atomic():
        current = _locked(node.id)
        if current.joined is None:
            raise ConflictError(f"Node '{node.id}' never was a member; reject it instead.")
        index.remove(KIND, current.announcements.values_list("pk", flat=True))
        current.announcements.all().delete()
        current.revision, current.expires, current.findable = 0, None, True
        return _decide(current, State.REMOVED, Verb.NODE_REMOVED, by=by, reason=reason, now=now or clock.now())


def _locked(node_id: str) -> Node:
    node = Node.objects.select_for_update(no_key=True).filter(pk=node_id).first()
    if node is None:
        raise NotFoundError(f"There is no node '{node_id}' any more.")
    return node


def _check_next(node: Node, state: State) -> None:
    if state not in NEXT[State(node.state)]:
        raise ConflictError(f"Node '{node.id}' is {node.state}: it cannot become {state}.")


def _decide(node: Node, state: State, verb: Verb, *, by: User, reason: str, now: datetime) -> Node:
    _check_next(node, state)
    node.state, node.decided_by, node.decided_at, node.reason = state, by, now, clean(reason)[:500]
    node.save()
    record(verb, by=by, target=f"node:{node.id}", url=node.url, fingerprint=node.fingerprint, reason=node.reason)
    return node
