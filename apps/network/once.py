"""Things that may be used once, and how often strangers may ask."""

from __future__ import annotations

from datetime import datetime

from django.core.cache import BaseCache, caches
from django.db import IntegrityError, transaction
from redis import RedisError

from apps.core.database import delete_unlocked
from apps.network.models import UsedOnce
from gridclient.wire.errors import LimitExceededError


def use_once(kind: UsedOnce.Kind, value: str, *, expires: datetime, now: datetime) -> bool:
    """Whether `value` is used for the first time. After `expires` its owner must refuse it by its age."""
    try:
        with transaction.atomic():
            delete_unlocked(UsedOnce.objects.filter(expires__lt=now))
            UsedOnce.objects.create(kind=kind, value=value, expires=expires)
    except IntegrityError:
        return False
    return True


def check_rate(what: str, address: str, *, per_minute: int, now: datetime, cost: int = 1) -> None:
    """Raises LimitExceededError when what one address asks for costs more than `per_minute`."""
    key = f"network:{what}:{address}:{int(now.timestamp()) // 60}"
    try:
        count = _counted(caches["default"], key, cost)
    except RedisError:
        # Nobody is turned away because Redis is: each process counts by itself meanwhile.
        count = _counted(caches["process"], key, cost)
    if count > per_minute:
        raise LimitExceededError("Too many requests from this address; wait a minute.", limit=per_minute)


def _counted(cache: BaseCache, key: str, cost: int) -> int:
    cache.add(key, 0, timeout=120)
    try:
        return cache.incr(key, cost)
    except ValueError:  # evicted between the two calls
        return 0
