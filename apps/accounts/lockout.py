"""The lock-out: after some failed sign-ins, a username or an address has to wait until its window has passed.

An attempt is counted as failed before the password is looked at, and given back when it was right: a hundred attempts
at once are no way around the limit.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.crypto import salted_hmac

from apps.accounts.models import LockOut
from apps.core.database import delete_unlocked
from gridclient.wire.errors import LimitExceededError

WINDOW = timedelta(minutes=15)
USER_FAILURES = 5
# Higher: a whole department can share an address.
ADDRESS_FAILURES = 20


def _key(kind: str, text: str) -> str:
    return salted_hmac(f"apps.accounts.lockout.{kind}", text, algorithm="sha256").hexdigest()


def _network_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: a household has 2^64 of those."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)


def _limits(username: str, address: str) -> list[tuple[str, int]]:
    # In one order for everybody, so that two sign-ins cannot deadlock.
    return sorted([(_key("user", username), USER_FAILURES), (_key("address", _network_of(address)), ADDRESS_FAILURES)])


@transaction.atomic(durable=True)
def count(*, username: str, address: str, now: datetime) -> bool:
    """Count an attempt as failed; true when it was the last one allowed. Raises LimitExceededError without counting.

    Durable: within a transaction that the refusal rolls back, it would count nothing.
    """
    delete_unlocked(LockOut.objects.filter(since__lte=now - WINDOW))
    last, rows = False, []
    for key, limit in _limits(username, address):
        row, _ = LockOut.objects.select_for_update(no_key=True).get_or_create(key=key, defaults={"since": now})
        if row.failures >= limit:
            wait = max(1, int((row.since + WINDOW - now).total_seconds()))
            raise LimitExceededError(
                f"Too many failed sign-ins. Try again in {-(-wait // 60)} minutes.", limit=limit, retry_after=wait
            )
        row.failures += 1
        last = last or row.failures == limit
        rows.append(row)
    for row in rows:
        row.save(update_fields=["failures"])
    return last


@transaction.atomic
def give_back(*, username: str, address: str) -> None:
    """The attempt was right: forget the username's failures, and this one of the address."""
    both = LockOut.objects.filter(key__in=[key for key, _ in _limits(username, address)])
    of_user = _key("user", username)
    for row in both.select_for_update().order_by("key"):  # in the order of `count`
        if row.key == of_user:
            row.delete()
        elif row.failures > 0:
            row.failures -= 1
            row.save(update_fields=["failures"])
