"""Quotients that are whole numbers, and what is left of them: no divisor raises, and none takes longer.

Of whole numbers, a quotient by 0 is 0, and so is what is left. Of floating point numbers, results are torch's, with one
exception: nothing is left where the quotient is so large (`DEEPEST`) that no digit of what is left would mean anything,
because the time to find it grows with the quotient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from apps.compute.branchless import Number, choose

HARMLESS = 0.75
DEEPEST = {torch.float32: 2.0**64, torch.float64: 2.0**100}


def _quotient(overload: Callable[..., Any], self: Any, other: Any, *, left: bool) -> Any:
    """`left`: what is left of a quotient, and not the quotient."""
    if not isinstance(self, torch.Tensor) and not isinstance(other, torch.Tensor):
        self = torch.tensor(self)
    found = torch.result_type(self, other)
    if found.is_floating_point:
        return overload(self, other)
    if found is torch.bool:
        raise NotImplementedError("not implemented for 'Bool'")
    given = other if isinstance(other, torch.Tensor) else torch.tensor(other)
    divisor = given.to(found)
    # The processor traps where the lowest number is divided by -1.
    zero, minus = divisor == 0, (divisor == -1) if found.is_signed else torch.zeros_like(divisor, dtype=torch.bool)
    if given is other:
        made = overload(self, choose(zero | minus, 1, other))
    else:
        made = overload(self, 1 if zero or minus else other)
    if not left and found.is_signed:
        made = choose(minus, -made, made)
    return choose(zero, torch.zeros((), dtype=made.dtype, device=made.device), made)


def floor_divide(self: Number, other: Number) -> Any:
    """self / other, rounded down."""
    return _quotient(_floored, self, other, left=False)


def div(self: Number, other: Number, *, rounding_mode: str | None) -> Any:
    """self / other, rounded as `rounding_mode` says: "floor", "trunc" or not at all."""
    overload = partial(torch.ops.aten.div.Tensor_mode, rounding_mode=rounding_mode)
    if rounding_mode is None:
        return overload(self, other)
    return _quotient(_floored if rounding_mode == "floor" else overload, self, other, left=False)


def remainder(self: Number, other: Number) -> Any:
    """What is left of `self`, with the sign of `other`."""
    return _quotient(_left(torch.ops.aten.remainder, signed=True), self, other, left=True)


def fmod(self: Number, other: Number) -> Any:
    """What is left of `self`, with its sign."""
    return _quotient(_left(torch.ops.aten.fmod, signed=False), self, other, left=True)


def _split(self: Any, other: Any) -> tuple[Any, Any, Any, torch.Tensor] | None:
    """Both as tensors of the result's dtype and shape, with harmless ones; and which are ordinary. None: as it is."""
    dtype = torch.result_type(self, other)
    if dtype not in DEEPEST:
        return None
    a, b = torch.broadcast_tensors(*(torch.as_tensor(given, dtype=dtype, device=_device(self, other))
                                     for given in (self, other)))  # fmt: skip
    if a.is_meta:
        return None
    a, b = a * 1.0, b * 1.0  # denormals become 0
    ordinary = (b != 0) & torch.isfinite(a) & torch.isfinite(b) & (a.abs() / DEEPEST[dtype] < b.abs())
    return a, b, ordinary, choose(ordinary, b, HARMLESS)


def _device(*given: Any) -> torch.device:
    return next((value.device for value in given if isinstance(value, torch.Tensor)), torch.device("cpu"))


def _floored(self: Any, other: Any) -> Any:
    found = _split(self, other)
    if found is None:
        return torch.ops.aten.floor_divide(self, other)
    a, b, ordinary, safe = found
    made = torch.ops.aten.floor_divide(choose(ordinary, a, HARMLESS), safe)
    whole = choose(torch.isinf(b) & torch.isfinite(a), choose((a != 0) & ((a < 0) != (b < 0)), -1.0, a / b), a / b)
    return choose(ordinary, made, choose(torch.isfinite(a) | (b == 0), whole, torch.nan))


def _left(overload: Callable[..., Any], *, signed: bool) -> Callable[..., Any]:
    def left(self: Any, other: Any) -> Any:
        found = _split(self, other)
        if found is None:
            return overload(self, other)
        a, b, ordinary, safe = found
        made = overload(choose(ordinary, a, HARMLESS), safe)
        others = choose(torch.isinf(b), a, a * 0)
        if signed:
            others = choose(torch.isinf(b) & (a != 0) & ((a < 0) != (b < 0)), b, others)
        known = torch.isfinite(a) & (b != 0) & ~torch.isnan(b)
        return choose(ordinary, made, choose(known, others, torch.nan))

    return left


def polygamma(n: int, self: torch.Tensor) -> torch.Tensor:
    """Far below 0, where it takes time in proportion, the functions 2 and on are NaN."""
    if n < 2:
        return torch.ops.aten.polygamma.default(n, self)
    low = self < -16
    return choose(low, torch.nan, torch.ops.aten.polygamma.default(n, choose(low, 1, self)))


def mvlgamma(self: torch.Tensor, p: int) -> torch.Tensor:
    """Time and memory grow with p: more than 64 dimensions are refused."""
    if not 1 <= p <= 64:
        raise ValueError("p is between 1 and 64")
    return torch.ops.aten.mvlgamma.default(self, p)


def _incomplete(overload: Callable[..., Any], self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    missing = torch.isnan(self) | torch.isnan(other)
    made: torch.Tensor = overload(choose(missing, 1, self), choose(missing, 1, other))
    return choose(missing, torch.nan, made)


TOTAL: dict[str, Callable[..., Any]] = {
    "aten::floor_divide": floor_divide,
    "aten::div.Tensor_mode": div,
    "aten::remainder.Tensor": remainder,
    "aten::remainder.Scalar_Tensor": remainder,
    "aten::fmod.Tensor": fmod,
    "aten::polygamma": polygamma,
    "aten::mvlgamma": mvlgamma,
    "aten::igamma": partial(_incomplete, torch.ops.aten.igamma.default),
    "aten::igammac": partial(_incomplete, torch.ops.aten.igammac.default),
}
