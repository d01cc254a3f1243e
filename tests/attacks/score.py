"""How much an attacker got: private values found among everything that came back, to 1e-6 of their size.

Private values are drawn at random, so that finding one by chance is next to impossible; `CHANCE` still measures it,
with values that nobody published.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gridclient.wire.errors import GridError

TOLERANCE = 1e-6
MOST_PAIRS = 400
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def numbers(seen: Any) -> Iterator[float]:
    """Every number in an answer, an error, a text or JSON."""
    match seen:
        case None:
            return
        case bool() | int() | float():
            yield float(seen)
        case str():
            yield from map(float, _NUMBER.findall(seen))
        case bytes():
            for dtype in (np.float64, np.float32):
                whole = len(seen) // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize
                yield from np.frombuffer(seen[:whole], dtype).astype(np.float64).tolist()
        case np.ndarray():
            yield from seen.astype(np.float64).reshape(-1).tolist()
        case GridError():
            yield from numbers([seen.message, seen.details])
        case dict():
            yield from numbers(json.dumps(seen, default=str))
        case _:
            for item in seen:
                yield from numbers(item)


def recovered(private: Any, seen: Iterable[Any]) -> float:
    """Share of `private` that is among the numbers of `seen`, or is a sum or a difference of two answers."""
    found = np.array(sorted({value for value in numbers(list(seen)) if np.isfinite(value)}))
    few = found[:: max(1, len(found) // MOST_PAIRS)]
    pairs = [sign * a + b for a, b in itertools.permutations(few, 2) for sign in (1, -1)]
    every = np.sort(np.concatenate([found, np.array(pairs, dtype=np.float64)]))
    wanted = np.asarray(private, dtype=np.float64).reshape(-1)
    if not len(every) or not len(wanted):
        return 0.0
    place = np.searchsorted(every, wanted)
    near = np.minimum(
        np.abs(every[np.clip(place, 0, len(every) - 1)] - wanted), np.abs(every[np.clip(place - 1, 0, None)] - wanted)
    )
    return float(np.mean(near <= TOLERANCE * np.abs(wanted)))


def check_nothing_recovered(private: Any, seen: list[Any]) -> None:
    """Fail where more of `private` came out than of values that nobody published."""
    decoys = np.random.default_rng(7).uniform(np.min(private), np.max(private), np.size(private))
    share, chance = recovered(private, seen), recovered(decoys, seen)
    assert share <= chance + 1 / np.size(private) / 2, (
        f"{share:.0%} of the private values came out ({chance:.0%} by chance)"
    )
