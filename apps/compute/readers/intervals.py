"""Between which numbers the elements of one row lie, operation by operation: a table of rules. For workers.

An interval is a pair of float64 tensors in the shape of one slice of rows (extent 1 along the entity axis). Nothing
here needs to be right for privacy: the kernel clips whatever comes. It has to be right for answers to be good.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isinf, log, pi, sqrt
from typing import Any, NamedTuple

import torch

from apps.compute.labels import Shape

Pair = tuple[torch.Tensor, torch.Tensor]


class Interval(NamedTuple):
    """`norm`: the most that one row's L2 norm can be, each element divided by its largest absolute value."""

    low: torch.Tensor
    high: torch.Tensor
    norm: float

    @property
    def pair(self) -> Pair:
        return self.low, self.high

    @property
    def largest(self) -> torch.Tensor:
        """The largest absolute value of each element."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def finite(self) -> bool:
        return bool(self.low.isfinite().all() and self.high.isfinite().all())


class Given(NamedTuple):
    """One call as a rule sees it. `args`: an Interval in place of what is private, a tensor in place of what is public.

    `shape`: of this output, with extent 1 along `axis`, where its rows lie. `run` is the operation itself.
    """

    op: str
    args: dict[str, Any]
    shape: Shape
    axis: int
    output: int
    run: Callable[..., Any]
    call: Callable[[dict[str, Any]], list[torch.Tensor]]

    def again(self, /, **changed: torch.Tensor | None) -> torch.Tensor:
        """The first output of the operation itself, with other tensors in place of some arguments."""
        return self.call(self.args | changed)[0]

    def interval(self, name: str) -> Interval:
        """An argument that is broadcast against the output, whether public or not."""
        return self.broadcast(self.args[name])

    def broadcast(self, found: Any) -> Interval:
        """A number, a public tensor (its extremes along the rows) or an interval."""
        if isinstance(found, Interval):
            return found
        value = torch.as_tensor(found).to(torch.float64)
        place = self.axis - (len(self.shape) - value.dim())
        if place < 0 or value.shape[place] == 1:
            return public(value)
        return made(value.amin(place, keepdim=True), value.amax(place, keepdim=True))


Rule = Callable[[Given], "Interval | Pair"]
"""A pair has the norm that its size alone gives."""


def public(value: torch.Tensor) -> Interval:
    """A value that is the same for every row."""
    value = value.to(torch.float64)
    return made(value, value)


def made(low: torch.Tensor, high: torch.Tensor, norm: float = inf) -> Interval:
    """An interval whose norm is at most the root of how many elements can be other than 0."""
    return Interval(low, high, min(norm, sqrt(int(((low != 0) | (high != 0)).sum()))))


def cleaned(pair: Pair) -> Pair:
    """What is not a number is unbounded."""
    low, high = pair
    return torch.where(low.isnan(), -inf, low), torch.where(high.isnan(), inf, high)


def hull(*pairs: Pair) -> Pair:
    """The least interval around several."""
    low, high = pairs[0]
    for other in pairs[1:]:
        low, high = torch.minimum(low, other[0]), torch.maximum(high, other[1])
    return low, high


def product(left: Pair, right: Pair) -> Pair:
    """0 times what is unbounded is 0: the numbers themselves are finite."""
    corners = [torch.nan_to_num(a * b, nan=0.0, posinf=inf, neginf=-inf) for a in left for b in right]
    return hull(*((corner, corner) for corner in corners))


def around(centre: torch.Tensor, radius: torch.Tensor) -> Pair:
    return cleaned((centre - radius, centre + radius))


def middle(pair: Pair) -> Pair:
    """Centre and radius."""
    low, high = pair
    return (low + high) / 2, (high - low) / 2


def bilinear(form: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], left: Pair, right: Pair) -> Pair:
    """The bounds of a form that is linear in each of two operands."""
    (a, r), (b, s) = middle(left), middle(right)
    return around(form(a, b), form(a.abs(), s) + form(r, b.abs() + s))


def increasing(function: Callable[[torch.Tensor], torch.Tensor]) -> Rule:
    """A function that never falls."""
    return lambda given: cleaned((function(given.interval("self").low), function(given.interval("self").high)))


def decreasing(function: Callable[[torch.Tensor], torch.Tensor]) -> Rule:
    return lambda given: cleaned((function(given.interval("self").high), function(given.interval("self").low)))


def within(low: float, high: float) -> Callable[[Given], Pair]:
    """Whatever goes in."""

    def rule(given: Given) -> Pair:
        return torch.full(given.shape, low, dtype=torch.float64), torch.full(given.shape, high, dtype=torch.float64)

    return rule


def _absolute(given: Given) -> Interval:
    value = given.interval("self")
    least = torch.where((value.low <= 0) & (value.high >= 0), 0.0, torch.minimum(value.low.abs(), value.high.abs()))
    return Interval(least, value.largest, value.norm)


def _negated(given: Given) -> Interval:
    value = given.interval("self")
    return Interval(-value.high, -value.low, value.norm)


def _even(function: Callable[[torch.Tensor], torch.Tensor]) -> Rule:
    def rule(given: Given) -> Pair:
        value = _absolute(given)
        return cleaned((function(value.low), function(value.high)))

    return rule


def _scaled(pair: Pair, by: Any) -> Pair:
    return product(pair, (torch.tensor(float(by), dtype=torch.float64),) * 2)


def _sum(first: str, second: str, factor: float = 1.0) -> Rule:
    def rule(given: Given) -> Pair:
        (a, b), (c, d) = given.interval(first).pair, given.interval(second).pair
        c, d = _scaled((c, d), factor * given.args.get("alpha", 1))
        return cleaned((a + c, b + d))

    return rule


def _multiplied(given: Given) -> Interval:
    """A row times (scaled) numbers up to 1 is no longer than it was; an outer product has the product of the norms."""
    left, right = given.interval("self"), given.interval("other")
    low, high = product(left.pair, right.pair)
    rank = max(left.low.dim(), right.low.dim())
    shapes = [(1,) * (rank - side.low.dim()) + tuple(side.low.shape) for side in (left, right)]
    apart = all(1 in extents for extents in zip(*shapes, strict=True))
    repeats = [sqrt(max(low.numel(), 1) / max(side.low.numel(), 1)) for side in (left, right)]
    norm = left.norm * right.norm if apart else min(left.norm * repeats[0], right.norm * repeats[1])
    return Interval(low, high, norm)


def _inverse(pair: Pair) -> Pair:
    low, high = pair
    spans = (low <= 0) & (high >= 0)
    return torch.where(spans, -inf, 1 / high), torch.where(spans, inf, 1 / low)


def _quotient(given: Given) -> Pair:
    return product(given.interval("self").pair, _inverse(given.interval("other").pair))


def _divided(given: Given) -> Interval:
    value = given.interval("self")
    low, high = _quotient(given)
    return Interval(low, high, value.norm * sqrt(max(low.numel(), 1) / max(value.low.numel(), 1)))


def _rounded_quotient(given: Given) -> Pair:
    low, high = _quotient(given)
    mode = given.args.get("rounding_mode", "floor")
    if mode is None:
        return low, high
    return (low.floor(), high.floor()) if mode == "floor" else (low.trunc(), high.trunc())


def _power(given: Given) -> Pair:
    value, exponent = given.interval("self"), given.args["exponent"]
    if not isinstance(exponent, int | float):
        found = given.interval("exponent")
        if found.low.numel() != 1 or not torch.equal(found.low, found.high):
            return within(-inf, inf)(given)
        exponent = float(found.low)
    even = exponent == int(exponent) and int(exponent) % 2 == 0 if not isinf(exponent) else False
    low, high = _absolute(given).pair if even else value.pair
    if exponent != int(exponent):
        low, high = low.clamp(min=0), high.clamp(min=0)  # a root of what is negative is not a number, and not counted
    if exponent < 0:
        low, high = _inverse((low, high))
        exponent = -exponent
    return cleaned((low**exponent, high**exponent))


def _where(given: Given) -> Pair:
    condition = given.interval("condition")
    (a, b), (c, d) = given.interval("self").pair, given.interval("other").pair
    always, never = condition.low > 0, condition.high <= 0
    low = torch.where(always, a, torch.where(never, c, torch.minimum(a, c)))
    return low, torch.where(always, b, torch.where(never, d, torch.maximum(b, d)))


def _filled(given: Given) -> Pair:
    return hull(given.interval("self").pair, given.interval("value").pair)


def _clamped(given: Given) -> Pair:
    low, high = given.interval("self").pair
    for name, pick in (("min", torch.maximum), ("max", torch.minimum)):
        if given.args.get(name) is not None:
            limit = given.interval(name)
            low, high = pick(low, limit.low), pick(high, limit.high)
    return low, high


def _picked(pick: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Rule:
    def rule(given: Given) -> Pair:
        (a, b), (c, d) = given.interval("self").pair, given.interval("other").pair
        return pick(a, c), pick(b, d)

    return rule


def _remainder(given: Given) -> Pair:
    """With the sign of the divisor."""
    low, high = given.interval("other").pair
    return low.clamp(max=0), high.clamp(min=0)


def _leaky(given: Given) -> Pair:
    value, slope = given.interval("self"), given.args["negative_slope"]
    if slope < 0:
        return within(-inf, inf)(given)
    return torch.where(value.low > 0, value.low, value.low * slope), torch.where(
        value.high > 0, value.high, value.high * slope
    )


def _dips(least: float) -> Rule:
    """Smooth rectifiers: never below `least`, never above the positive part."""

    def rule(given: Given) -> Pair:
        value = given.interval("self")
        return torch.full_like(value.low, least), value.high.clamp(min=0)

    return rule


def _positive(function: Callable[[torch.Tensor], torch.Tensor]) -> Rule:
    """Functions of what is not negative; elsewhere they are not numbers, which are not counted."""
    return lambda given: cleaned(
        (function(given.interval("self").low.clamp(min=0)), function(given.interval("self").high.clamp(min=0)))
    )


def _softplus(given: Given) -> Pair:
    value, beta = given.interval("self"), given.args["beta"]
    if beta <= 0:
        return within(-inf, inf)(given)
    return torch.zeros_like(value.low), value.high.clamp(min=0) + log(2) / beta


def _hardtanh(given: Given) -> Pair:
    value = given.interval("self")
    low, high = given.args["min_val"], given.args["max_val"]
    return value.low.clamp(low, high), value.high.clamp(low, high)


def _equal(given: Given) -> Interval | Pair:
    """A number is equal to at most one of several that all differ. So is a histogram made."""
    pair = within(0, 1)(given)
    sides = [given.args["self"], given.args["other"]]
    private = [side for side in sides if isinstance(side, Interval)]
    others = [side for side in sides if isinstance(side, torch.Tensor)]
    if len(private) != 1 or len(others) != 1 or len(others[0].unique()) != others[0].numel():
        return pair
    alone = others[0].numel() * private[0].low.numel() == pair[0].numel()
    return Interval(*pair, sqrt(private[0].low.numel()) if alone else inf)


_INCREASING = "relu sigmoid tanh exp exp2 expm1 floor ceil round trunc sign sgn atan asinh sinh erf deg2rad rad2deg"
_BETWEEN = {"sin": (-1, 1), "cos": (-1, 1), "_softmax": (0, 1), "frac": (-1, 1), "atan2": (-pi, pi), "sinc": (-0.22, 1)}
_DIPS = {"silu": -0.279, "gelu": -0.17, "mish": -0.309, "hardswish": -0.375}

POINTWISE: dict[str, Rule] = {
    **{f"aten::{name}": increasing(getattr(torch, name)) for name in _INCREASING.split()},
    "aten::hardtanh": _hardtanh,
    "aten::hardsigmoid": within(0, 1),
    "aten::softplus": _softplus,
    **{f"aten::{name}": _positive(getattr(torch, name)) for name in ("sqrt", "log", "log2", "log10")},
    "aten::log1p": increasing(lambda value: torch.log1p(value.clamp(min=-1))),
    **{f"aten::{name}": within(*limits) for name, limits in _BETWEEN.items()},
    **{f"aten::{name}": _dips(least) for name, least in _DIPS.items()},
    "aten::_log_softmax": within(-inf, 0),
    "aten::erfc": decreasing(torch.erfc),
    "aten::cosh": _even(torch.cosh),
    "aten::abs": _absolute,
    "aten::neg": _negated,
    "aten::add.Tensor": _sum("self", "other"),
    "aten::sub.Tensor": _sum("self", "other", -1.0),
    "aten::rsub.Tensor": _sum("other", "self", -1.0),
    "aten::rsub.Scalar": _sum("other", "self", -1.0),
    "aten::mul.Tensor": _multiplied,
    "aten::div.Tensor": _divided,
    "aten::div.Tensor_mode": _rounded_quotient,
    "aten::floor_divide": _rounded_quotient,
    "aten::reciprocal": lambda given: _inverse(given.interval("self").pair),
    "aten::remainder.Tensor": _remainder,
    "aten::pow.Tensor_Scalar": _power,
    "aten::pow.Tensor_Tensor": _power,
    "aten::eq.Tensor": _equal,
    "aten::where.self": _where,
    "aten::masked_fill.Scalar": _filled,
    "aten::masked_fill.Tensor": _filled,
    **{f"aten::clamp{name}": _clamped for name in ("", ".Tensor", "_min", "_min.Tensor", "_max", "_max.Tensor")},
    "aten::minimum": _picked(torch.minimum),
    "aten::maximum": _picked(torch.maximum),
    "aten::fmin": lambda given: hull(given.interval("self").pair, given.interval("other").pair),
    "aten::fmax": lambda given: hull(given.interval("self").pair, given.interval("other").pair),
    "aten::leaky_relu": _leaky,
}
"""Element by element."""
