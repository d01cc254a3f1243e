"""Discrete Gaussian noise, exact: its law has no rounding in it, so that no bit of it tells of what it was added to.

A candidate is drawn from a discrete Laplace and kept with a probability exp(-x), x rational; Canonne, Kamath, Steinke
2020, "The Discrete Gaussian for Differential Privacy", algorithms 1 to 3. Floats decide where they can't be wrong; the
few candidates that are too close are decided again in integers. Time taken depends on the noise, never on the data.

Random bytes come from the operating system inside each call. OpenDP, which makes the choice of a largest, seeds a
generator once a process and knows a fork by its process id alone, which two processes of two namespaces can share: so a
process whose parent has drawn from it doesn't, and no sum's noise comes from it (docs/adr/0011).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from opendp import domains, measurements, measures, metrics
from opendp.mod import enable_features

from apps.compute.mechanism import LEAST, MOST

BLOCK = 2**16
"""Candidates at a time."""
STEP_BITS, ACCEPT_BITS = 23, 40
"""Of a random word: the number of whole scales, and the acceptance. The bit between them is the sign."""
MARGIN = 2.0**-40
"""A float decides if it is further than this from the probability. Half of it covers the bits that were not drawn; the
error of the probability is below 2^-45. With z = (y - mean) / scale, mean / scale < 1 and y exact, z is wrong by less
than (1 + |z|) 2^-51, hence z^2 / 2 by |z| times that; (|z| + z^2) exp(-z^2 / 2) < 2, and exp is right to 4 units."""

enable_features("contrib")


class _Fork:
    """Whether this process has drawn from OpenDP, and whether one that it was forked from had."""

    drawn = inherited = False

    @classmethod
    def note(cls) -> None:
        cls.inherited |= cls.drawn


os.register_at_fork(after_in_child=_Fork.note)


def discrete_gaussian(scale: float, size: int) -> NDArray[np.int64]:
    """Independent integers with P(y) in proportion to exp(-y^2 / (2 scale^2)). Returns int64 [size].

    Canonne, Kamath, Steinke 2020, definition 1; 2.1 candidates of 16 random bytes for each number. Raises ValueError
    for a scale outside [LEAST, MOST].
    """
    if not LEAST <= scale <= MOST or size < 0:
        raise ValueError(f"scale {scale:g} is not in [2^-10, 2^40], or the size {size} is negative")
    made = np.empty(size, dtype=np.int64)
    done = 0
    while done < size:
        # How many are drawn has nothing to do with what they are, so the first ones kept are as good as any.
        count = min(BLOCK, 3 * (size - done) + 64)
        words = np.frombuffer(os.urandom(16 * count), dtype=np.uint64).reshape(2, count)
        kept = _kept(words[0], words[1], scale)[: size - done]
        made[done : done + len(kept)] = kept
        done += len(kept)
    return made


def noisy_max(scores: Sequence[int], scale: float) -> int:
    """Index of the largest score after Gumbel(scale) noise on each, by OpenDP.

    Raises RuntimeError in a process whose parent has drawn from it.
    """
    _check_own_generator()
    space = domains.vector_domain(domains.atom_domain(T="i64")), metrics.linf_distance(T="i64")
    return int(measurements.make_noisy_max(*space, measures.zero_concentrated_divergence(), scale=scale)(list(scores)))


def _check_own_generator() -> None:
    if _Fork.inherited:
        raise RuntimeError("this process was forked from one that has drawn noise: it could draw the same again")
    _Fork.drawn = True


def _kept(place: NDArray[np.uint64], word: NDArray[np.uint64], scale: float) -> NDArray[np.int64]:
    """The candidates that random words make, less the refused ones.

    Algorithm 2 (s = 1) makes a discrete Laplace of scale t from U, uniform below t and kept with exp(-U / t), and V,
    geometric; algorithm 3 keeps U + t V with exp(-(U + t V - scale^2 / t)^2 / (2 scale^2)). A refusal of either begins
    anew, so that one acceptance with the product does for both.
    """
    t = math.floor(scale) + 1
    whole = np.uint64((2**64 - 1) // t)
    quotient = place // np.uint64(t)
    fair = quotient < whole
    u = (place - quotient * np.uint64(t)).astype(np.int64)
    steps = (word >> np.uint64(ACCEPT_BITS + 1)).astype(np.uint32)
    v = np.zeros(len(word), dtype=np.int64)
    unsure = np.zeros(len(word), dtype=np.bool_)
    for threshold in STEPS:
        v += steps < threshold
        unsure |= steps == threshold
    y = u + t * v
    z = (y - scale * (scale / t)) / scale
    with np.errstate(under="ignore"):
        probability = np.exp(-(u / t + z * z / 2))
    drawn = ((word & np.uint64(2**ACCEPT_BITS - 1)).astype(np.float64) + 0.5) * 2.0**-ACCEPT_BITS
    unsure |= np.abs(drawn - probability) <= MARGIN
    accepted = drawn < probability
    for index in np.flatnonzero(unsure):
        y[index], accepted[index] = _decided(int(u[index]), int(word[index]), t, Fraction(scale))
    negative = (word >> np.uint64(ACCEPT_BITS)) & np.uint64(1) == 1
    # Zero has one sign only, or it would be drawn twice as often.
    accepted &= fair & ~(negative & (y == 0))
    return np.where(negative, -y, y)[accepted]


def _decided(u: int, word: int, t: int, scale: Fraction) -> tuple[int, bool]:
    """One candidate in integers: its size, and whether it is accepted."""
    steps = Uniform(word >> (ACCEPT_BITS + 1), STEP_BITS)
    v = 0
    while steps.is_below_exp(Fraction(v + 1)):
        v += 1
    y = u + t * v
    x = Fraction(u, t) + (y - scale**2 / t) ** 2 / (2 * scale**2)
    return y, Uniform(word & (2**ACCEPT_BITS - 1), ACCEPT_BITS).is_below_exp(x)


class Uniform:
    """A real number, uniform in [0, 1), of which the first `bits` bits are drawn; more are as they are needed."""

    def __init__(self, drawn: int, bits: int) -> None:
        self.drawn, self.bits = drawn, bits

    def is_below_exp(self, x: Fraction) -> bool:
        """Whether it is below exp(-x), x >= 0: true with exactly this probability. As algorithm 1, by inversion."""
        while True:
            low, high = exp_bounds(x, self.bits)
            if self.drawn + 1 <= low:
                return True
            if self.drawn >= high:
                return False
            self.drawn = (self.drawn << 64) | int.from_bytes(os.urandom(8), "little")
            self.bits += 64


def exp_bounds(x: Fraction, bits: int) -> tuple[int, int]:
    """Integers around exp(-x) 2^bits, x >= 0, from integers alone. They are 1 apart but where it is next to one.

    The alternating series of exp(-y), y = x / 2^r below 1/2, squared r times. `one` is 1 in fixed point.
    """
    halvings = math.floor(x).bit_length() + 1
    precision = bits + halvings + 64
    one = 1 << precision
    y = (x.numerator << precision) // (x.denominator << halvings)
    total = term = one
    order = 0
    while term:
        order += 1
        term = term * y // (order << precision)
        total += -term if order % 2 else term
    # Each term is wrong by less than 2, those left out by less than 4 together, y by 1.
    slack = 2 * order + 8
    low, high = max(total - slack, 0), min(total + slack, one)
    for _ in range(halvings):
        low, high = low * low >> precision, (high * high >> precision) + 1
    return low >> (precision - bits), min((high >> (precision - bits)) + 1, 1 << bits)


STEPS = tuple(np.uint32(exp_bounds(Fraction(k), STEP_BITS)[0]) for k in range(1, 17))
"""exp(-k) 2^STEP_BITS, rounded down: a number below it is one more whole scale, one that equals it may be.
The last is 0, and so would be all that follow."""
