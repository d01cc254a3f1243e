"""The release kernel: per-entity sums, clipped and quantised; an exact integer sum; noise; rescaling.

One entity moves the integer sum by at most `Mechanism.bound` in L2, whatever its rows are and whatever the program did:
the bound is enforced here, in integers, and believed of nobody. Design: privacy.md, "The release kernel"; why integers:
Mironov 2012 (floating-point noise tells of what it was added to), Canonne, Kamath, Steinke 2020 (integer noise).

What is done depends on shapes and on public values, not on rows: a condition on rows is a `where`. What can go wrong
with rows makes a contribution 0; errors tell of public values only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from apps.compute.mechanism import Mechanism
from apps.compute.noise import discrete_gaussian, noisy_max

SLACK = 1 - 2.0**-32
"""Contributions are scaled to a little less than C, so that rounding can't make one too long: this is less than one
unit of the grid, and more than what a float sum of 2^20 squares can be wrong by."""
FAR = 400
"""Coordinates are bounded by 2^FAR C: with clips of at most 2^256, no square then overflows a float."""
BLOCK = 2**18
"""Numbers at a time: what is needed on the way takes next to no memory."""

_LIMB = 31
_BEYOND = 2**31 + 1


def release(
    rows: NDArray[np.float64],
    codes: NDArray[np.int64] | None,
    keep: NDArray[np.bool_] | None,
    how: Mechanism,
    active: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """A private answer: the sum over entities of their clipped contributions, with noise. Returns float64 [k].

    rows: float64 [n, k]; codes: int64 [n], the entity of each row, or None where row i is entity i; keep: bool [n],
    or None for all. A row that isn't kept, or whose code is no entity, contributes 0; so does an entity that isn't
    active, bool [entities].
    Charge: (bound g)^2 / (2 sigma^2) in zCDP, which is at most C^2 / (2 sigma^2); Canonne, Kamath, Steinke 2020,
    proposition 5, coordinate by coordinate. Raises ValueError for shapes and dtypes that don't fit.
    """
    return noisy(integer_sum(quantised(rows, codes, keep, how), active), how)


def quantised(
    rows: NDArray[np.float64], codes: NDArray[np.int64] | None, keep: NDArray[np.bool_] | None, how: Mechanism
) -> NDArray[np.int64]:
    """Each entity's contribution in units of the grid. Arguments as of `release`; returns int64 [entities, k].

    Sum of its rows in float64, non-finite numbers as 0 before and after; scaled to norm at most C; toward zero.
    A row of the result depends on the rows of its entity and on public values, to the last bit.
    """
    _check(rows, codes, keep, how)
    if codes is not None:
        sums, keep = _entity_sums(rows, codes, keep, how.entities), None
    else:
        sums = rows
    made = np.zeros((how.entities, how.size), dtype=np.int64)
    for some in _blocks(len(sums), how.size):
        block = sums[some]
        kept = np.isfinite(block) if keep is None else np.isfinite(block) & keep[some, None]
        made[some] = _contributions(np.ascontiguousarray(np.where(kept, block, 0.0)), how)
    return made


def _check(
    rows: NDArray[np.float64], codes: NDArray[np.int64] | None, keep: NDArray[np.bool_] | None, how: Mechanism
) -> None:
    count = len(rows)
    if rows.dtype != np.float64 or rows.shape != (count, how.size):
        raise ValueError(f"rows are float64 [n, {how.size}], not {rows.dtype} {list(rows.shape)}")
    if codes is None and count > how.entities:
        raise ValueError(f"{count} rows without codes are more than {how.entities} entities")
    if codes is not None and (codes.dtype != np.int64 or codes.shape != (count,)):
        raise ValueError(f"codes are int64 [{count}], not {codes.dtype} {list(codes.shape)}")
    if keep is not None and (keep.dtype != np.bool_ or keep.shape != (count,)):
        raise ValueError(f"keep is bool [{count}], not {keep.dtype} {list(keep.shape)}")


def _blocks(count: int, size: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(size, 1))
    return (slice(begin, min(begin + step, count)) for begin in range(0, count, step))


def _entity_sums(
    rows: NDArray[np.float64], codes: NDArray[np.int64], keep: NDArray[np.bool_] | None, entities: int
) -> NDArray[np.float64]:
    """Sum of each entity's kept rows. Returns float64 [entities, k].

    `bincount` adds one row after the other. A sum that takes several numbers at once may group them by where they lie
    in memory, hence by how many rows others have, and the last bit of one entity would tell of another.
    """
    count, size = rows.shape
    sums = np.zeros((entities, size))
    kept = (codes >= 0) & (codes < entities)
    codes = np.where(kept, codes, 0)
    if keep is not None:
        kept &= keep
    if entities and count:
        step = max(1, BLOCK // count)
        for begin in range(0, size, step):
            columns = rows[:, begin : begin + step].T
            columns = np.where(kept & np.isfinite(columns), columns, 0.0)
            for number, column in enumerate(columns, begin):
                sums[:, number] = np.bincount(codes, weights=column, minlength=entities)
    return sums


def _contributions(v: NDArray[np.float64], how: Mechanism) -> NDArray[np.int64]:
    """Finite sums, clipped and quantised: float64 [n, k] to int64 [n, k], each row of L2 norm at most `how.bound`.

    Over a last axis without gaps numpy adds pairwise, in one order wherever numbers lie and whatever is beside them.
    """
    far = math.ldexp(how.clip, FAR)
    most = how.bound * SLACK
    with np.errstate(all="ignore"):
        v = np.clip(v, -far, far) * 2.0**-how.grid
        norms = np.sqrt(np.square(v).sum(axis=1, keepdims=True))
        v *= most / np.maximum(norms, most)
        v = np.clip(np.where(np.isfinite(v), v, 0.0), -how.bound, how.bound)
    q = v.astype(np.int64)  # toward zero
    return np.where(squared_norms(q)[:, None] <= how.bound**2, q, 0)


def squared_norms(q: NDArray[np.int64]) -> NDArray[np.int64]:
    """Squared L2 norms of rows, in units of the grid squared: int64 [n, k] to int64 [n].

    Exact for what `quantised` makes; where it would be more than 2^62, it is some number above that, never a wrapped
    one. Squares are summed in two limbs of 31 bits: a sum of 2^32 of them fits.
    """
    made = np.empty(len(q), dtype=np.int64)
    for some in _blocks(*q.shape):
        squares = np.square(np.clip(q[some], -_BEYOND, _BEYOND))
        low = (squares & (2**_LIMB - 1)).sum(axis=1)
        high = (squares >> _LIMB).sum(axis=1) + (low >> _LIMB)
        made[some] = np.where(high > 2**_LIMB, 2**63 - 1, (high << _LIMB) + (low & (2**_LIMB - 1)))
    return made


def integer_sum(q: NDArray[np.int64], active: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Exact sum over entities: int64 [entities, k] to int64 [k]. active: bool [entities]; the others contribute 0.

    Raises ValueError for another shape or dtype of `active`.
    """
    if active is not None and (active.dtype != np.bool_ or active.shape != (len(q),)):
        raise ValueError(f"active is bool [{len(q)}], not {active.dtype} {list(active.shape)}")
    total = np.zeros(q.shape[1], dtype=np.int64)
    for some in _blocks(*q.shape):
        block = q[some] if active is None else np.where(active[some, None], q[some], 0)
        total += block.sum(axis=0)
    return total


def noisy(total: NDArray[np.int64], how: Mechanism) -> NDArray[np.float64]:
    """One draw of noise on an integer sum, in units of the rows: int64 [k] to float64 [k].

    The noisy integer times 2^grid, which is exact up to 2^53 units. Beyond, it is rounded to the nearest float: that
    is a function of the noisy integer, so it costs accuracy of 2^-53 and no privacy.
    """
    if total.dtype != np.int64 or total.shape != (how.size,):
        raise ValueError(f"a sum is int64 [{how.size}], not {total.dtype} {list(total.shape)}")
    return np.ldexp((total + discrete_gaussian(how.scale, how.size)).astype(np.float64), how.grid)


def noisy_argmax(scores: NDArray[np.int64], sensitivity: int, epsilon: float) -> int:
    """Index of a large score, by the exponential mechanism: P(i) in proportion to exp(epsilon s_i / (2 sensitivity)).

    scores: int64 [k]; sensitivity: the most by which one entity moves any of them, up or down. As the largest score
    after Gumbel noise (McSherry, Talwar 2007; Durfee, Rogers 2019), by OpenDP. It is epsilon-DP;
    the price is `budgets.accountant.argmax`.
    Raises ValueError where there is no score, or a public value isn't positive.
    """
    if scores.dtype != np.int64 or scores.ndim != 1 or not len(scores):
        raise ValueError("scores are int64 [k], and there is one at least")
    if sensitivity < 1 or not 0 < epsilon < math.inf:
        raise ValueError("a sensitivity and an epsilon are positive")
    return noisy_max(scores.tolist(), argmax_scale(sensitivity, epsilon))


def argmax_scale(sensitivity: int, epsilon: float) -> float:
    """Scale of the Gumbel noise of `noisy_argmax`, rounded up: no less noise than was paid for."""
    return math.nextafter(2 * sensitivity / epsilon, math.inf)
