"""Functions whose time depends on values, made steady: the kernel is given ordinary numbers only.

The vector math library is up to 150 times slower where a number, or one on the way to the result, is denormal, not
finite or out of the domain, whatever the process has set for denormals. The results there are known without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from apps.compute.branchless import choose

BLOCK = 2**15
"""Numbers at a time: what is needed on the way takes next to no memory."""
HARMLESS = 0.75
Bounds = dict[torch.dtype, float]

SMALL: Bounds = {torch.float64: 2.0**-30, torch.float32: 2.0**-16}
"""Below it sin x = tanh x = x and cos x = 1, as rounded."""
NEGLIGIBLE: Bounds = {torch.float64: 2.0**-60, torch.float32: 2.0**-28}
"""Below it 1 + x = 1, as rounded even by a kernel that is not right in the last bit."""
LOWEST: Bounds = {torch.float64: -708.3964185322641, torch.float32: -87.33654022216797}
HIGHEST: Bounds = {torch.float64: 709.782712893384, torch.float32: 88.72283172607422}
"""Between them e to the power x is a normal number."""
FAINT: Bounds = {torch.float64: 2.0**-500, torch.float32: 2.0**-60}
"""Below it the square of x is no normal number."""
FADED: Bounds = {torch.float64: 26.54, torch.float32: 9.194}
"""Above it 1 - erf x is no normal number."""


class Steady(NamedTuple):
    """Which numbers of a block the kernel may see, and the results for the others."""

    ordinary: Callable[[torch.Tensor], torch.Tensor]
    others: Callable[[torch.Tensor], torch.Tensor]


def _positive(x: torch.Tensor) -> torch.Tensor:
    return (x >= torch.finfo(x.dtype).tiny) & (x <= torch.finfo(x.dtype).max)


def _not_small(x: torch.Tensor) -> torch.Tensor:
    size = x.abs()
    return (size >= SMALL[x.dtype]) & (size <= torch.finfo(x.dtype).max)


def _inside(x: torch.Tensor) -> torch.Tensor:
    size = x.abs()
    return (size >= FAINT[x.dtype]) & (size < 1)


def _inside_and_not_tiny(x: torch.Tensor) -> torch.Tensor:
    size = x.abs()
    return (size >= torch.finfo(x.dtype).eps) & (size < 1)


def _not_faint(x: torch.Tensor) -> torch.Tensor:
    size = x.abs()
    return (size >= FAINT[x.dtype]) & (size <= torch.finfo(x.dtype).max)


def _not_faded(x: torch.Tensor) -> torch.Tensor:
    return _not_faint(x) & (x <= FADED[x.dtype])


def _probability(x: torch.Tensor) -> torch.Tensor:
    return (x >= torch.finfo(x.dtype).tiny) & (x < 1)


def _with_normal_exp(x: torch.Tensor) -> torch.Tensor:
    return (x.abs() >= NEGLIGIBLE[x.dtype]) & (x >= LOWEST[x.dtype]) & (x <= HIGHEST[x.dtype])


def _exp(x: torch.Tensor) -> torch.Tensor:
    return choose(x > 1, torch.inf, choose(x < -1, 0.0, 1 + x))


def _log(x: torch.Tensor) -> torch.Tensor:
    return choose(x == 0, -torch.inf, choose(x < 0, torch.nan, x))


def _sqrt(x: torch.Tensor) -> torch.Tensor:
    return choose(x < 0, torch.nan, x)


def _sin(x: torch.Tensor) -> torch.Tensor:
    return choose(x.abs() < 1, x, torch.nan)


def _cos(x: torch.Tensor) -> torch.Tensor:
    return choose(x.abs() < 1, torch.ones((), dtype=x.dtype), torch.nan)


def _tanh(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-1, 1)


def _asin(x: torch.Tensor) -> torch.Tensor:
    return choose(x.abs() < 1, x, choose(x.abs() == 1, x * (math.pi / 2), torch.nan))


def _acos(x: torch.Tensor) -> torch.Tensor:
    return math.pi / 2 - _asin(x)


def _atan(x: torch.Tensor) -> torch.Tensor:
    return choose(x.abs() < 1, x, x.clamp(-1, 1) * (math.pi / 2))


def _erf(x: torch.Tensor) -> torch.Tensor:
    return choose(x.abs() < 1, _times(x, 2 / math.sqrt(math.pi)), x.clamp(-1, 1))


def _erfc(x: torch.Tensor) -> torch.Tensor:
    return choose(x.abs() < 1, 1.0, choose(x > 1, 0.0, choose(x < -1, 2.0, x)))


def _erfinv(x: torch.Tensor) -> torch.Tensor:
    beyond = choose(x.abs() == 1, x * torch.inf, torch.nan)
    return choose(x.abs() < 1, _times(x, math.sqrt(math.pi) / 2), beyond)


def _times(x: torch.Tensor, factor: float) -> torch.Tensor:
    return (x.to(torch.float64) * factor).to(x.dtype)


def _logit(x: torch.Tensor) -> torch.Tensor:
    return choose(x == 0, -torch.inf, choose(x == 1, torch.inf, torch.nan))


STEADY: dict[str, Steady] = {
    "aten::exp": Steady(_with_normal_exp, _exp),
    "aten::log": Steady(_positive, _log),
    "aten::log2": Steady(_positive, _log),
    "aten::log10": Steady(_positive, _log),
    "aten::logit": Steady(_probability, _logit),
    "aten::sqrt": Steady(_positive, _sqrt),
    "aten::sin": Steady(_not_small, _sin),
    "aten::cos": Steady(_not_small, _cos),
    "aten::tan": Steady(_not_small, _sin),
    "aten::tanh": Steady(_not_small, _tanh),
    "aten::asin": Steady(_inside, _asin),
    "aten::acos": Steady(_inside, _acos),
    "aten::atan": Steady(_not_faint, _atan),
    "aten::erf": Steady(_not_faint, _erf),
    "aten::erfc": Steady(_not_faded, _erfc),
    "aten::erfinv": Steady(_inside_and_not_tiny, _erfinv),
}


def steadied(name: str, overload: Callable[..., Any]) -> Callable[..., Any]:
    """The overload in steady form, where it needs one. Same results and dtypes, with denormals as 0."""
    if name == "aten::pow.Tensor_Scalar":
        return partial(_power, overload)
    if name == "aten::logit":
        return partial(_logit_of, overload)
    return partial(_applied, STEADY[name], overload) if name in STEADY else overload


def _power(overload: Callable[..., Any], self: Any, exponent: Any) -> Any:
    # Torch takes the square root for this exponent, and only for this one the vector math library.
    if type(exponent) is float and exponent == 0.5:
        return _applied(STEADY["aten::sqrt"], partial(overload, exponent=exponent), self)
    return overload(self, exponent)


def _logit_of(overload: Callable[..., Any], self: Any, eps: float | None = None) -> Any:
    if not isinstance(self, torch.Tensor):
        return overload(self, eps)
    if eps is not None and eps >= 0 and self.is_floating_point():
        self = self.clamp(eps, 1 - eps)
    return _applied(STEADY["aten::logit"], overload, self)


def _applied(steady: Steady, overload: Callable[..., Any], self: Any) -> Any:
    if not isinstance(self, torch.Tensor) or self.is_meta or not self.numel():
        return overload(self)
    if not self.is_floating_point():
        self = self.to(torch.get_default_dtype())
    if self.dtype not in SMALL:
        return overload(self)
    made = self.clone()  # dense, in the order of the operand's axes, like a result of the overload
    for x in made.as_strided((made.numel(),), (1,)).split(BLOCK):
        x.mul_(1.0)  # denormals become 0
        ordinary = steady.ordinary(x)
        x.copy_(choose(ordinary, overload(choose(ordinary, x, HARMLESS)), steady.others(x)))
    return made
