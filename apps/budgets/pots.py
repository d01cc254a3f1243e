"""What a pot promises, from what its owner says of it. Pure: migrations ask too."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from apps.budgets import accountant

NANO = 10**9
ATTO = 10**18
DEFAULT = "default"
"""Slug of the domain that every dataset is in, unless its owner says otherwise."""
ENTITIES = 100_000
EPSILON_NANO = {"queries": 2 * NANO, "training": 3 * NANO}
MOST_DELTA_ATTO = 10**12
PLANNED_RUN = (256 / 60_000, 1.1)
"""Sampling rate and noise of the run for which a training pot has its order, where its owner plans no other."""


def delta_atto(entities: int) -> int:
    """1e-6 or 1/(10 N), the smaller, in units of 1e-18, rounded down."""
    return min(MOST_DELTA_ATTO, ATTO // (10 * entities))


def promise(
    kind: str,
    *,
    epsilon_nano: int,
    entities: int,
    planned: tuple[float, float] = PLANNED_RUN,
    year_nano: int | None = None,
) -> Mapping[str, int | None]:
    """The fields of a pot that follow from its epsilon and from the most entities of its domain.

    `planned`: sampling rate and noise of the run that a training pot is for; `year_nano`: the part of epsilon that is
    released each year. Raises ValueError for an epsilon that gives nothing.
    """
    delta = delta_atto(entities)
    epsilon = epsilon_nano / NANO
    if delta < 1:
        raise ValueError("A domain has at most 10^17 entities.")
    if kind == "queries":
        order = accountant.order_of(epsilon, delta / ATTO)
    else:
        rate, noise = planned
        order = float(accountant.training_order(epsilon, delta / ATTO, rate=rate, noise=noise))
    cap = accountant.cap(Fraction(epsilon_nano, NANO), Fraction(delta, ATTO), order)
    if cap < 1:
        raise ValueError("This epsilon is too small: nothing could be answered from such a pot.")
    return {
        "epsilon_nano": epsilon_nano,
        "delta_atto": delta,
        "order_grid": round(order * accountant.ORDER_GRID),
        "cap": cap,
        "per_year": None if year_nano is None else accountant.share(year_nano, epsilon_nano, cap),
    }
