"""How long to wait before something is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

FIRST, LONGEST = 0.1, 5.0


def pauses(chance: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds before each attempt: none, then a random part of ever more, so that clients do not come all at once."""
    yield 0.0
    most = FIRST
    while True:
        yield most * chance()
        most = min(2 * most, LONGEST)
