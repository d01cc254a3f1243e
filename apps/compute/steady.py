"""Functions whose time depends on values, made steady: the kernel is given ordinary numbers only.

The vector math library is up to 150 times slower where a number, or one on the way to the result, is denormal, not
finite or out of the domain, whatever the process has set for denormals. The results there are known without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

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


class Steady(NamedTuple):
    """Which numbers of a block the kernel may see, and the results for the others."""

    ordinary: Callable[[torch.Tensor], torch.Tensor]
    others: Callable[[torch.Tensor], torch.Tensor]


def _positive(x: torch.Tensor) -> torch.Tensor:
    return (x >= torch.finfo(x.dtype).tiny) & (x <= torch.finfo(x.dtype).max)


def _not_small(x: torch.Tensor) -> torch.Tensor:
    size = x.abs()
    return (size >= SMALL[x.dtype]) & (size <= torch.finfo(x.dtype).max)


def _with_normal_exp(x: torch.Tensor) -> torch.Tensor:
    return (x.abs() >= NEGLIGIBLE[x.dtype]) & (x >= LOWEST[x.dtype]) & (x <= HIGHEST[x.dtype])


def _exp(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 1, torch.inf, torch.where(x < -1, 0.0, 1 + x))


def _log(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x == 0, -torch.inf, torch.where(x < 0, torch.nan, x))


def _sqrt(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, torch.nan, x)


def _sin(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 1, x, torch.nan)


def _cos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 1, torch.ones((), dtype=x.dtype), torch.nan)


def _tanh(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-1, 1)


STEADY: dict[str, Steady] = {
    "aten::exp": Steady(_with_normal_exp, _exp),
    "aten::log": Steady(_positive, _log),
    "aten::sqrt": Steady(_positive, _sqrt),
    "aten::sin": Steady(_not_small, _sin),
    "aten::cos": Steady(_not_small, _cos),
    "aten::tanh": Steady(_not_small, _tanh),
}


def steadied(name: str, overload: Callable[..., Any]) -> Callable[..., Any]:
    """The overload in steady form, where it needs one. Same results and dtypes, with denormals as 0."""
    if name == "aten::pow.Tensor_Scalar":
        return partial(_power, overload)
    return partial(_applied, STEADY[name], overload) if name in STEADY else overload


def _power(overload: Callable[..., Any], self: Any, exponent: Any) -> Any:
    # Torch takes the square root for this exponent, and only for this one the vector math library.
    if type(exponent) is float and exponent == 0.5:
        return _applied(STEADY["aten::sqrt"], partial(overload, exponent=exponent), self)
    return overload(self, exponent)


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
        x.copy_(torch.where(ordinary, overload(torch.where(ordinary, x, HARMLESS)), steady.others(x)))
    return made
