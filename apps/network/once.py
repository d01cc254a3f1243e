"""Things that may be used once, and how often strangers may ask."""

from __future__ import annotations

from datetime import datetime

from django.core.cache import cache
from django.db import IntegrityError, transaction

from apps.network.models import UsedOnce
from gridclient.wire.errors import LimitExceededError


def use_once(kind: UsedOnce.Kind, value: str, *, expires: datetime, now: datetime) -> bool:
    """Whether `value` is used for the first time. After `expires` its owner must refuse it by its age."""
    try:
        with transaction.atomic():
            UsedOnce.objects.filter(expires__lt=now).delete()
            UsedOnce.objects.create(kind=kind, value=value, expires=expires)
    except IntegrityError:
        return False
    return True


def check_rate(what: str, address: str, *, per_minute: int, now: datetime, cost: int = 1) -> None:
    """Raises LimitExceededError when what one address asks for costs more than `per_minute`."""
    key = f"network:{what}:{address}:{int(now.timestamp()) // 60}"
    cache.add(key, 0, timeout=120)
    try:
        count = cache.incr(key, cost)
    except ValueError:  # evicted between the two calls
        return
    if count > per_minute:
        raise LimitExceededError("Too many requests from this address; wait a minute.", limit=per_minute)
