"""What the release kernel does to rows, chosen from public values alone.

Needs no numpy: what does not fit is refused by the web process, before anything is charged.
"""

from __future__ import annotations

import math

import msgspec

from gridclient.wire.errors import InvalidInputError

FINENESS = 31
"""C / g is at most 2^31, so that its square, and that of a coordinate, is an int64."""
SUM_BITS = 62
"""All contributions together are below 2^62; noise is, too."""
SHARE = 1 / 16
"""Of sigma: the most by which quantisation moves a number of the answer."""
EXPONENTS = 256
"""Clips and sigmas are in 2^-256 to 2^256."""
LEAST, MOST = 2.0**-10, 2.0**40
"""Scales of noise, in units of the grid, for which the sampler's errors are bounded and sums fit."""


class Mechanism(msgspec.Struct, frozen=True):
    """What is done to rows, from public values only. One that exists is sound: see `mechanism`."""

    clip: float
    """C: the largest L2 norm of one entity's contribution, in units of the rows."""
    grid: int
    """Contributions are multiples of g = 2^grid."""
    sigma: float
    """Of the noise, in units of the rows."""
    size: int
    """k: numbers of one answer."""
    entities: int
    """The most there can be."""

    def __post_init__(self) -> None:
        if not all(2.0**-EXPONENTS <= value <= 2.0**EXPONENTS for value in (self.clip, self.sigma)):
            raise InvalidInputError("A clip and a sigma are positive numbers between 2^-256 and 2^256.")
        if self.size < 0 or not 0 <= self.entities < 2**SUM_BITS or abs(self.grid) > 2 * EXPONENTS:
            raise InvalidInputError("A size, a number of entities or a grid is out of range.")
        if self.scale > MOST or math.ldexp(self.clip, -self.grid) > 2**FINENESS or self.bound < 1:
            raise InvalidInputError(
                "The noise is too large for one grid with the clip: please ask for a larger epsilon."
            )
        if self.bound * self.entities >= 2**SUM_BITS or self.error > SHARE * self.sigma:
            raise InvalidInputError(
                f"The noise is too small for a sum over {self.entities} entities: please ask for a smaller epsilon."
            )

    @property
    def bound(self) -> int:
        """floor(C / g): the most that one entity moves the integer sum, in L2."""
        return math.floor(math.ldexp(self.clip, -self.grid))

    @property
    def scale(self) -> float:
        """Of the noise, in units of the grid. Exact: g is a power of two."""
        return math.ldexp(self.sigma, -self.grid)

    @property
    def error(self) -> float:
        """The most by which quantisation moves a number of the answer: less than two units for each entity."""
        return math.ldexp(2.0 * max(self.entities, 1), self.grid)


def mechanism(*, clip: float, sigma: float, size: int, entities: int) -> Mechanism:
    """The mechanism with the finest grid that fits these public values.

    C / g <= 2^31, sigma / g <= 2^40, entities C / g < 2^62; what quantisation can do to a number is at most 1/16 of
    sigma. Raises InvalidInputError where no grid does.
    """
    fine = all(math.isfinite(value) and value > 0 for value in (clip, sigma))
    finest = max(_exponent(clip) - FINENESS, _exponent(sigma) - round(math.log2(MOST))) if fine else 0
    return Mechanism(clip=clip, grid=finest, sigma=sigma, size=size, entities=entities)


def _exponent(value: float) -> int:
    """The least e with value <= 2^e."""
    mantissa, exponent = math.frexp(value)
    return exponent - (mantissa == 0.5)
