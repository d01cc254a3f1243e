"""A node's side of belonging to a network: the pinned key, the id, what was acknowledged."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import clock, keys
from apps.network.messages import Joined, Receipt, clean
from apps.network.models import Membership, State
from apps.network.policies import check_can_operate
from gridclient.wire.errors import ConflictError, NotFoundError


def current() -> Membership | None:
    """This node's membership; None before first contact."""
    return Membership.objects.first()


def contact(*, url: str, public_key: str, now: datetime) -> Membership:
    """The network at `url` has proven that it holds `public_key`: pin it at first contact, freeze when it is another.

    Another `url` is a first contact: the node's own settings name it.
    """
    with transaction.atomic():
        membership = Membership.objects.select_for_update(no_key=True).first()
        if membership is None or membership.url != url:
            membership = _pinned(url, public_key, now)
            record(Verb.NETWORK_PINNED, by=None, target=f"network:{membership.fingerprint}", url=url)
        elif membership.public_key != public_key and membership.offered_key != public_key:
            membership.frozen, membership.offered_key = True, public_key
            membership.problem = (
                "The network shows another key. Nobody signs in from there until an administrator decides."
            )
            membership.save()
            offered = keys.fingerprint(public_key)
            record(
                Verb.NETWORK_KEY_CHANGED, by=None, target=f"network:{membership.fingerprint}", url=url, offered=offered
            )
        return membership


def pin(public_key: str, *, by: User, reason: str, now: datetime | None = None) -> Membership:
    """Decide, after a change of key, which key is the network's: the pinned or the offered one.

    Accounts that the old key vouched for stay, but the new key cannot speak for them.
    """
    check_can_operate(by)
    with transaction.atomic():
        membership = Membership.objects.select_for_update(no_key=True).first()
        if membership is None:
            raise NotFoundError("This node belongs to no network.")
        if not membership.frozen or public_key not in (membership.public_key, membership.offered_key):
            raise ConflictError("Only a key that the network has shown can be chosen, and only after it changed.")
        if public_key == membership.public_key:
            membership.frozen, membership.offered_key, membership.problem = False, "", ""
            membership.save()
        else:
            membership = _pinned(membership.url, public_key, now or clock.now())
        record(
            Verb.NETWORK_PINNED,
            by=by,
            target=f"network:{membership.fingerprint}",
            url=membership.url,
            reason=clean(reason)[:500],
        )
        return membership


def _pinned(url: str, public_key: str, now: datetime) -> Membership:
    Membership.objects.all().delete()
    return Membership.objects.create(
        url=url, public_key=public_key, fingerprint=keys.fingerprint(public_key), pinned=now
    )


def decided(joined: Joined) -> State:
    """Keep what the network said about our request; returns the state."""
    turned_away = joined.state in (State.REJECTED, State.REMOVED)
    problem = f"{joined.state.label}. {clean(joined.reason)}"[:500] if turned_away else ""
    Membership.objects.update(node_id=joined.id, state=joined.state, problem=problem)
    return joined.state


def failed(problem: str) -> None:
    """Keep what went wrong, for the console. What a freeze says stays."""
    Membership.objects.filter(frozen=False).exclude(problem=problem[:500]).update(problem=problem[:500])


def acknowledged(receipt: Receipt) -> None:
    """Keep how far the network has followed, and whether we still belong to it."""
    Membership.objects.update(state=receipt.state, acked_revision=receipt.revision, problem="")
