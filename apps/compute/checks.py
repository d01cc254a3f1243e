"""Checks of exact aggregates: may this table of numbers be shown? For workers only.

The four classical ones, with the defaults of the tools that research data centres use (ACRO: Preen et al. 2024,
section 3), and one of our own. They protect against a look at the numbers, not against a determined analyst.

    few          fewer than `k` people stand behind a number, or apart from a value that many share
    p-percent    what all but the two largest contributors bring is less than `p` of the largest: the second largest
                 could tell the largest to within `p` (Hundepool et al. 2012, Statistical Disclosure Control, 4.2.2)
    dominance    the two largest contributors bring `dominance` of the absolute total or more (ibid., the (n, k) rule)
    freedom      fewer than `freedom` people more than there are parameters in a table of second moments

All of them are always computed, so that nobody sees from the time which one failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apps.compute.messages import Thresholds

FEW, P_PERCENT, DOMINANCE, FREEDOM, OVERLAP = "few", "p-percent", "dominance", "freedom", "overlap"
CHECKS = (FEW, P_PERCENT, DOMINANCE, FREEDOM, OVERLAP)
FEW_VALUES = 3
"""Moments of a column with so few values are its histogram: count, sum and sum of squares are three equations."""

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class Cell(NamedTuple):
    """One number of a table, as its people make it.

    `contributions`: float64 [entities], what each of the people behind it brings. `values`: the columns that it is
    made of, float64 [rows] each, none where only rows are counted; `codes`: int64 [rows], whose row it is.
    `parameters`: of a second moment, how many numbers are fitted to the same people; 0 for any other.
    """

    contributions: Floats
    values: tuple[Floats, ...]
    codes: Codes
    parameters: int = 0


def failed(cells: Iterable[Cell], least: Thresholds) -> frozenset[str]:
    """The names of the checks that some cell fails; one failing cell fails the whole table."""
    found: set[str] = set()
    for cell in cells:
        with np.errstate(all="ignore"):
            passed = {
                # Every part is computed, whatever the others say.
                FEW: all([len(cell.contributions) >= least.k, *(spread(v, cell.codes, least.k) for v in cell.values)]),
                P_PERCENT: p_percent(cell.contributions, least.p),
                DOMINANCE: dominated(cell.contributions, least.dominance),
                FREEDOM: not cell.parameters or len(cell.contributions) - cell.parameters >= least.freedom,
            }
        found |= {name for name, passes in passed.items() if not passes}
    return frozenset(found)


def p_percent(contributions: Floats, p: float) -> bool:
    """Whether all but the two largest contributors bring at least `p` of what the largest brings, in absolute size."""
    first, second, total = _largest(contributions)
    return bool(total > 0 and total - first - second >= p * first)


def dominated(contributions: Floats, share: float) -> bool:
    """Whether the two largest contributors stay below `share` of the absolute total; a total of 0 does not."""
    first, second, total = _largest(contributions)
    return bool(first + second < share * total)


def spread(values: Floats, codes: Codes, k: int) -> bool:
    """Whether at least `k` people have a value apart from the most frequent one, where several rows share one.

    Of a column with up to three values, each must be held by `k` people, and one with a single value tells everybody's.
    """
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    common = int(counts.argmax()) if len(counts) else 0
    apart = len(np.unique(codes[place != common])) >= k
    holders = [len(np.unique(codes[place == each])) >= k for each in range(min(len(distinct), FEW_VALUES))]
    if len(distinct) <= FEW_VALUES:
        return len(distinct) > 1 and all(holders)
    return apart or int(counts.max()) == 1


def _largest(contributions: Floats) -> tuple[float, float, float]:
    """The two largest absolute contributions, and the sum of all."""
    sizes: Any = np.abs(contributions)
    if len(sizes) < 2:
        return float(sizes.sum()), 0.0, float(sizes.sum())
    second, first = np.partition(sizes, len(sizes) - 2)[-2:]
    return float(first), float(second), float(sizes.sum())
