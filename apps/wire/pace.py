"""How fast one account may speak: a token bucket over all of its sessions in this process.

Who is faster waits: frames are read later, and the socket's own flow control slows the sender down. Nothing is refused.
The cost of a frame is what it takes of the event loop, which everybody shares; computing has processes of its own.
"""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from django.conf import settings

UNIT = 16 * 1024
"""Bytes of a batch that take about as long to decode as a frame takes in all."""
IDLE = 1024
"""Buckets, after which those that are full again are forgotten."""

_buckets: dict[UUID, Bucket] = {}


class Bucket:
    """Fills at `rate` a second up to one second's worth. What is spent beyond that is waited for."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = rate
        self._at = now

    def spend(self, amount: float, now: float) -> float:
        """Seconds to wait before the next spending."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._left / self._rate)

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._left + (now - self._at) * self._rate >= self._rate


async def keep(user: UUID, nbytes: int) -> None:
    """Account for a frame with a batch of so many bytes; wait where the account was too fast."""
    now = time.monotonic()
    bucket = _buckets.get(user)
    if bucket is None:
        if len(_buckets) >= IDLE:
            for key in [key for key, each in _buckets.items() if each.is_full(now)]:
                del _buckets[key]
        bucket = _buckets[user] = Bucket(settings.GRID_ACCOUNT_RATE, now)
    wait = bucket.spend(1 + nbytes // UNIT, now)
    if wait:
        await asyncio.sleep(wait)
