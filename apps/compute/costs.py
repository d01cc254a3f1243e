"""What a release costs each entity for what it really contributed: integers in units of 2^-40, rounded up.

c_i = ceil(alpha |q_i|^2 / (2 sigma^2)), with q_i and sigma in units of the grid (Feldman and Zrnic 2021, individual
Renyi filters; the divergence of shifted discrete Gaussians: Canonne, Kamath, Steinke 2020, proposition 5).
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apps.budgets.accountant import ORDER_GRID, UNIT

BLOCK = 2**18
"""Numbers at a time."""
_LIMB = 31
_MASK = np.uint64(2**_LIMB - 1)
_BITS = 2 * _LIMB
LARGEST = 2**_BITS
"""Squared norms and costs are at most that."""


class Factor(NamedTuple):
    """A cost for each unit of the squared norm, `mantissa` 2^-`shift`: not below the exact one, nor by more than 2^-61
    of it above."""

    mantissa: int
    shift: int


def factor(order_grid: int, scale: float) -> Factor:
    """alpha 2^40 / (2 scale^2). `order_grid`: alpha times 1024; `scale`: of the noise, in units of the grid.

    Raises ValueError where a unit alone would cost more than `LARGEST`.
    """
    exact = Fraction(order_grid, ORDER_GRID) * UNIT / (2 * Fraction(scale) ** 2)
    # The quotient has so many bits, or one less.
    shift = _BITS - 1 - (exact.numerator.bit_length() - exact.denominator.bit_length())
    scaled = exact * 2**shift if shift >= 0 else exact / 2**-shift
    if scaled > LARGEST - 1:
        shift, scaled = shift - 1, scaled / 2
    if shift < 0:
        raise ValueError("The noise is too small for a charge.")
    return Factor(-(-scaled.numerator // scaled.denominator), shift)


def costs(squared: NDArray[np.int64], per_unit: Factor, worst: int) -> NDArray[np.uint64]:
    """ceil(squared times the factor), at most `worst`, which is a bound of the exact cost. int64 [n] to uint64 [n].

    `squared`: from 0 to 2^62. Products of 124 bits, in limbs of 31. Raises ValueError where `worst` is out of range.
    """
    if not 0 <= worst <= LARGEST:
        raise ValueError("The cost of one release is below 2^62.")
    made = np.empty(len(squared), dtype=np.uint64)
    for begin in range(0, len(squared), BLOCK):
        some = slice(begin, begin + BLOCK)
        made[some] = np.minimum(_product(squared[some].astype(np.uint64), per_unit), np.uint64(worst))
    return made


def _product(n: NDArray[np.uint64], per_unit: Factor) -> NDArray[np.uint64]:
    limb = np.uint64(_LIMB)
    n1, n0 = n >> limb, n & _MASK
    m1, m0 = np.uint64(per_unit.mantissa >> _LIMB), np.uint64(per_unit.mantissa & (2**_LIMB - 1))
    lowest = n0 * m0
    middle = n1 * m0 + n0 * m1 + (lowest >> limb)
    high = n1 * m1 + (middle >> limb)
    low = ((middle & _MASK) << limb) | (lowest & _MASK)
    if per_unit.shift <= _BITS:
        up, down = np.uint64(_BITS - per_unit.shift), np.uint64(per_unit.shift)
        # What does not fit is more than any worst case.
        fits = high < np.uint64(1) << down
        shifted = (np.where(fits, high, np.uint64(0)) << up) + (low >> down)
        rest = low & ((np.uint64(1) << down) - np.uint64(1))
        return np.where(fits, shifted + (rest > 0), np.uint64(LARGEST))
    down = np.uint64(min(per_unit.shift - _BITS, 63))
    rest = (high & ((np.uint64(1) << down) - np.uint64(1))) | low
    return (high >> down) + (rest > 0)
