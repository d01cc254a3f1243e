"""What an answer costs and what a pot holds: Renyi divergence at one fixed order, in integers.

Every function errs to the side of privacy: caps are rounded down, charges and reported epsilons up. Where a figure
decides (caps, charges) it is computed in rationals or in 50 decimal digits, so that the direction of its rounding is
certain; floats serve where a figure is only chosen or shown, with a margin that outweighs their error.

Symbols: alpha is the order, a divergence is in nats, amounts are divergences in units of 2^-40.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction

GAUSSIAN, ARGMAX = "gaussian", "argmax"
"""Mechanisms: noise on sums over people, and the choice of a largest one."""
UNIT = 2**40
"""Amounts in one nat of Renyi divergence."""
ORDER_GRID = 1024
"""Orders are multiples of its inverse: exact in a float, in a fraction and in a column of integers."""
MOST_ORDER = 4096
MOST_EPSILON = 100.0
LEAST_DELTA = 1e-18
_DIGITS = Context(prec=50)
_SLACK = Decimal("1e-40")
"""More than a few operations with 50 digits can be wrong by, where values stay below a million."""
_MARGIN = 1e-9
"""Relative: more than the floats of this module can be wrong by."""
_TERM = 2**120

Real = float | Fraction


def _check(epsilon: Real, delta: Real) -> None:
    if not (math.isfinite(epsilon) and 0 < epsilon <= MOST_EPSILON):
        raise ValueError(f"epsilon is above 0 and at most {MOST_EPSILON:g}.")
    if not LEAST_DELTA <= delta < 1:
        raise ValueError(f"delta is at least {LEAST_DELTA:g} and below 1.")


def _check_order(order: Real) -> None:
    if not (1 < order <= MOST_ORDER and (Fraction(order) * ORDER_GRID).denominator == 1):
        raise ValueError(f"An order is above 1, at most {MOST_ORDER}, and a multiple of 1/{ORDER_GRID}.")


def _decimal(value: Real) -> Decimal:
    exact = Fraction(value)
    return Decimal(exact.numerator) / Decimal(exact.denominator)


def _up(value: Decimal) -> float:
    """The next float above: a conversion alone may round down."""
    return math.nextafter(float(value), math.inf)


# --- pots ---------------------------------------------------------------------------------------------------------


def _gap(order: Real, delta: Real) -> Decimal:
    """epsilon minus divergence at `order`: log((a-1)/a) - (log delta + log a)/(a-1).

    Canonne, Kamath, Steinke 2020, proposition 12. Within `_SLACK`; inside a context of 50 digits.
    """
    alpha, least = _decimal(order), _decimal(delta)
    return ((alpha - 1) / alpha).ln() - (least.ln() + alpha.ln()) / (alpha - 1)


def cap(epsilon: Real, delta: Real, order: Real) -> int:
    """The most that may be spent at `order` so that (epsilon, delta) holds: an amount, rounded down.

    0 where the order is too small for the epsilon. Raises ValueError for values that are no privacy.
    """
    _check(epsilon, delta)
    _check_order(order)
    with localcontext(_DIGITS):
        return max(0, math.floor((_decimal(epsilon) - _gap(order, delta) - _SLACK) * UNIT))


def epsilon_of(spent: int, order: Real, delta: Real) -> float:
    """The epsilon that holds with `delta` after this much was spent at `order`, rounded up; 0 after nothing."""
    _check_order(order)
    if spent <= 0:
        return 0.0
    with localcontext(_DIGITS):
        return max(0.0, _up(Decimal(spent) / UNIT + _gap(order, delta) + _SLACK))


def share(part: int, whole: int, amount: int) -> int:
    """`part / whole` of an amount, rounded down: what an allowance of epsilon `part` is of a pot of `whole`."""
    return min(amount, amount * part // whole)


def order_of(epsilon: float, delta: float) -> float:
    """The order at which a pot of (epsilon, delta) answers the most Gaussian questions: the largest cap / alpha.

    Any order is private; this one is only the most useful. For 1e-6: 0.5 -> 40.0, 1 -> 22.0, 2 -> 12.3, 3 -> 8.92.
    """
    _check(epsilon, delta)

    def capacity(alpha: float) -> float:
        gap = math.log1p(-1 / alpha) - (math.log(delta) + math.log(alpha)) / (alpha - 1)
        return (epsilon - gap) / alpha

    best = math.exp(_peak(lambda x: capacity(1 + math.exp(x)), math.log(1 / ORDER_GRID), math.log(MOST_ORDER - 1))) + 1
    return max(ORDER_GRID + 1, round(best * ORDER_GRID)) / ORDER_GRID


def training_order(epsilon: float, delta: float, *, rate: float, noise: float) -> int:
    """The integer order at which a pot lasts for the most steps of a planned run: the largest cap / charge of a step.

    `rate`: chance of each entity to be in a batch; `noise`: sigma / C. Raises ValueError where none gives any step.
    """
    best, order = max((cap(epsilon, delta, order) / subsampled(order, rate, noise), order) for order in range(2, 257))
    if best <= 0:
        raise ValueError("No order up to 256 leaves anything of this epsilon and delta.")
    return order


def _peak(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one maximum has it, to 1e-9 of the interval (ternary search)."""
    for _ in range(120):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if function(left) < function(right):
            low = left
        else:
            high = right
    return (low + high) / 2


# --- charges ------------------------------------------------------------------------------------------------------


def ratio(clips: Sequence[float], sigmas: Sequence[float]) -> Fraction:
    """The sum of C^2 / sigma^2 over the bases of an answer, rounded up. Raises ValueError for a sigma that isn't."""
    total = 0
    for clip, sigma in zip(clips, sigmas, strict=True):
        if not (math.isfinite(clip) and math.isfinite(sigma) and clip >= 0 and sigma > 0):
            raise ValueError("A clip is at least 0 and a sigma above 0, both finite.")
        total += math.ceil((Fraction(clip) / Fraction(sigma)) ** 2 * _TERM)
    return Fraction(total, _TERM)


def charge(order: Real, squares: Real) -> int:
    """What (discrete) Gaussian noise costs at `order`: alpha * squares / 2 as an amount, rounded up.

    `squares`: the sum of C^2 / sigma^2 (see `ratio`). Canonne, Kamath, Steinke 2020, theorem 14; the divergences of
    independent draws add up, so do those of questions that depend on earlier answers (Feldman and Zrnic 2021).
    """
    _check_order(order)
    if not (math.isfinite(squares) and squares >= 0):
        raise ValueError("The sum of C^2 / sigma^2 is at least 0 and finite.")
    return math.ceil(Fraction(order) * Fraction(squares) / 2 * UNIT)


def argmax(order: Real, epsilon: Real) -> int:
    """What one choice by a mechanism of pure epsilon costs at `order`: min(alpha epsilon^2 / 2, epsilon), rounded up.

    Bun and Steinke 2016, proposition 3.3; no divergence is above epsilon. It holds for every mechanism that is
    epsilon-private (also for permute-and-flip, for which the better bound of the exponential mechanism doesn't).
    """
    _check_order(order)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError("epsilon is above 0 and finite.")
    exact = Fraction(epsilon)
    return math.ceil(min(Fraction(order) * exact * exact / 2, exact) * UNIT)


def subsampled(order: int, rate: float, noise: float, steps: int = 1) -> int:
    """What `steps` steps of DP-SGD cost at an integer order: an amount, rounded up. See `subsampled_divergence`."""
    return math.ceil(Fraction(subsampled_divergence(order, rate, noise) * (1 + _MARGIN)) * steps * UNIT)


def subsampled_divergence(order: int, rate: float, noise: float) -> float:
    """Divergence of one Gaussian sum over a Poisson sample; of entities by their null records.

    Mironov, Talwar, Zhang 2019, section 3.3: log(A) / (alpha - 1), A = sum_k binom(alpha, k) (1-q)^(alpha-k) q^k
    exp(k (k-1) / (2 sigma^2)). The weights add up to 1, so A - 1 is a sum of positive terms from k = 2 on, and nothing
    cancels. `noise` is sigma / C.
    """
    if order < 2 or order > MOST_ORDER:
        raise ValueError(f"The order of a training pot is a whole number from 2 to {MOST_ORDER}.")
    if not (0 < rate <= 1 and math.isfinite(noise) and noise > 0):
        raise ValueError("The sampling rate is above 0 and at most 1; the noise above 0.")
    if rate == 1:
        return order / (2 * noise**2)
    logs = []
    for k in range(2, order + 1):
        grown = k * (k - 1) / (2 * noise**2)
        binomial = math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        weight = binomial + k * math.log(rate) + (order - k) * math.log1p(-rate)
        logs.append(weight + (math.log(math.expm1(grown)) if grown < 700 else grown))
    largest = max(logs)
    excess = largest + math.log(math.fsum(math.exp(each - largest) for each in logs))
    # log(1 + e^excess) without losing either
    logged = math.log1p(math.exp(excess)) if excess < 0 else excess + math.log1p(math.exp(-excess))
    return logged / (order - 1)


# --- what epsilon means -------------------------------------------------------------------------------------------


def _log_tail(x: float) -> float:
    """log of the chance that a normal variable is below x."""
    if x > -20:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    # Below, erfc loses digits and then vanishes: the first terms of the asymptotic series.
    square = x * x
    return -square / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(-1 / square + 3 / square / square)


def _delta_of(sigma: float, epsilon: float) -> float:
    """The delta of Gaussian noise at sensitivity 1; Balle and Wang 2018, theorem 8."""
    first = math.exp(_log_tail(0.5 / sigma - epsilon * sigma))
    return first - math.exp(epsilon + _log_tail(-0.5 / sigma - epsilon * sigma))


def sigma_of(epsilon: float, delta: float) -> float:
    """The least sigma of Gaussian noise that is (epsilon, delta) alone at sensitivity 1, rounded up.

    Balle and Wang 2018, algorithm 1. Nothing rests on it: the charge is computed from the sigma.
    """
    _check(epsilon, delta)
    low, high = 1e-3, 1e-3
    while _delta_of(high, epsilon) > delta:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(middle, epsilon) > delta else (low, middle)
    return high * (1 + _MARGIN)


def epsilon_of_sigma(sigma: float, delta: float) -> float:
    """The epsilon that Gaussian noise gives alone at sensitivity 1, rounded up; the inverse of `sigma_of`.

    Infinite where it is above `MOST_EPSILON`, 0 where the noise hides all but `delta`. Raises ValueError.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError("sigma is above 0 and finite.")
    _check(1.0, delta)
    if 0.5 / sigma > 40 or _delta_of(sigma, MOST_EPSILON) > delta:
        return math.inf
    if _delta_of(sigma, 0.0) <= delta:
        return 0.0
    low, high = 0.0, MOST_EPSILON
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(sigma, middle) > delta else (low, middle)
    return high * (1 + _MARGIN)


# --- reports ------------------------------------------------------------------------------------------------------


def classic_epsilon(orders: Iterable[float], divergences: Iterable[float], delta: float) -> float:
    """The least epsilon over these orders by divergence + log(1/delta) / (alpha - 1); Mironov 2017, proposition 3."""
    pairs = zip(orders, divergences, strict=True)
    return min(divergence - math.log(delta) / (alpha - 1) for alpha, divergence in pairs)


def cks_epsilon(orders: Iterable[float], divergences: Iterable[float], delta: float) -> float:
    """The least epsilon over these orders; Canonne, Kamath, Steinke 2020, proposition 12. At least 0."""
    pairs = zip(orders, divergences, strict=True)
    found = (
        divergence + math.log1p(-1 / alpha) - (math.log(delta) + math.log(alpha)) / (alpha - 1)
        for alpha, divergence in pairs
    )
    return max(0.0, min(found))


def zcdp_epsilon(rho: float, delta: float) -> float:
    """The epsilon of rho-zero-concentrated privacy: `cks_epsilon` of alpha * rho over all orders."""
    best = _peak(lambda x: -cks_epsilon([1 + math.exp(x)], [(1 + math.exp(x)) * rho], delta), -7.0, 12.0)
    return cks_epsilon([1 + math.exp(best)], [(1 + math.exp(best)) * rho], delta)
