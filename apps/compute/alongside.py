"""Kernels that take shorter for some numbers, and for which no other way gives torch's results: the slowest runs too.

Beside the operands such a kernel is given as many numbers that it takes longest for. The time is between once and
twice that of the slowest, whatever the values are. Public values pay as well: an operation has one form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

BLOCK = 2**15
"""Numbers at a time, and how many different ones there are: more than a processor learns by heart."""
Numbers = Callable[[torch.Tensor], torch.Tensor]
"""From random ones, standard normal and in float64."""


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Both signs, every branch, nothing of it foreseeable."""
    kinds = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.3, -1.5], dtype=torch.float64)
    return kinds[(x.abs() * 1e6).long() % len(kinds)]


def _same(number: float) -> Numbers:
    return lambda x: torch.full_like(x, number)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x * 10


def _very_wide(x: torch.Tensor) -> torch.Tensor:
    return x * 1000


def _plain(x: torch.Tensor) -> torch.Tensor:
    return x


def _whole(x: torch.Tensor) -> torch.Tensor:
    return (x * 3).round()


def _every_exponent(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * (x.abs() * 1e6 % 240 - 120).exp2()


def _near(x: torch.Tensor) -> torch.Tensor:
    return 1 + x * 1e-6


def _coin(x: torch.Tensor) -> torch.Tensor:
    return (x > 0).to(x.dtype)


ELEMENTWISE: dict[str, tuple[Numbers, ...]] = {
    "aten::acosh": (_whole,),
    "aten::asinh": (_plain,),
    "aten::digamma": (_wide,),
    "aten::polygamma": (_wide,),
    "aten::sinc": (_every_exponent,),
    "aten::trunc": (_every_exponent,),
    "aten::frexp.Tensor": (_whole,),
    "aten::heaviside": (_mixed, _plain),
    "aten::fmax": (_mixed, _plain),
    "aten::fmin": (_mixed, _plain),
    "aten::igamma": (_same(1.0), _same(1.5)),
    "aten::igammac": (_same(1e-9), _same(1.5)),
    "aten::special_entr": (_mixed,),
    "aten::special_erfcx": (_plain,),
    "aten::special_log_ndtr": (_wide,),
    "aten::special_ndtri": (_same(1e-5),),
    "aten::_prelu_kernel_backward": (_plain, _plain, _plain),
    **dict.fromkeys(("aten::xlogy.Tensor", "aten::special_xlog1py"), (_mixed, _mixed)),
    **dict.fromkeys(("aten::xlogy.Scalar_Self", "aten::xlogy.Scalar_Other"), (_mixed,)),
    **dict.fromkeys(("aten::special_xlog1py.self_scalar", "aten::special_xlog1py.other_scalar"), (_mixed,)),
}
"""Numbers for each operand, in place of as many as the result has."""
_ORDERING = """
    max.dim min.dim aminmax median median.dim nanmedian nanmedian.dim kthvalue sort sort.stable topk
    searchsorted.Tensor bucketize.Tensor isin.Tensor_Tensor isin.Scalar_Tensor _linalg_svd _linalg_eigh
    linalg_pinv.atol_rtol_tensor
""".split()
WHOLE: dict[str, tuple[Numbers, ...]] = {
    **{f"aten::{name}": (_plain,) for name in _ORDERING},
    "aten::argmax": (_coin,),
    "aten::argmin": (_coin,),
    "aten::mode": (_near,),
    "aten::logcumsumexp": (_very_wide,),
    "aten::norm.ScalarOpt_dim": (_coin,),
    "aten::_cdist_backward": (_plain, _plain, _plain, _coin),
}
"""Numbers for each operand, the last for all that follow, in their shapes: one number's work depends on others."""


def beside_slowest(name: str, form: Callable[..., Any]) -> Callable[..., Any]:
    """The form in steady time, where it needs that."""
    if name in ELEMENTWISE:
        return partial(_each, form, ELEMENTWISE[name])
    return partial(_all, form, WHOLE[name]) if name in WHOLE else form


@cache
def _table(numbers: Numbers, dtype: torch.dtype) -> torch.Tensor:
    """The same in every process: what is drawn must not show, but need not be secret."""
    source = torch.Generator().manual_seed(BLOCK)
    drawn = numbers(torch.randn(BLOCK, dtype=torch.float64, generator=source))
    if dtype.is_floating_point:
        return drawn.to(dtype)
    if dtype is torch.bool:
        return drawn > 0
    limits = torch.iinfo(dtype)
    return (drawn * (limits.max / 8)).clamp(limits.min / 2, limits.max / 2).to(dtype)


def _each(form: Callable[..., Any], kinds: tuple[Numbers, ...], *args: Any, **kwargs: Any) -> Any:
    made = form(*args, **kwargs)
    first = made[0] if isinstance(made, tuple) else made
    if first.is_meta:
        return made
    for start in range(0, first.numel(), BLOCK):
        count = min(BLOCK, first.numel() - start)
        tables = iter([_table(numbers, first.dtype)[:count] for numbers in kinds])
        form(*[next(tables) if isinstance(given, torch.Tensor) else given for given in args], **kwargs)
    return made


def _all(form: Callable[..., Any], kinds: tuple[Numbers, ...], *args: Any, **kwargs: Any) -> Any:
    made = form(*args, **kwargs)
    operands = [given for given in args if isinstance(given, torch.Tensor)]
    if not any(given.is_meta or not given.numel() for given in operands):
        tables = iter([_filled(given, kinds[min(place, len(kinds) - 1)]) for place, given in enumerate(operands)])
        form(*[next(tables) if isinstance(given, torch.Tensor) else given for given in args], **kwargs)
    return made


def _filled(given: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    table = _table(numbers, given.dtype)
    return table.repeat(-(-given.numel() // BLOCK))[: given.numel()].view(given.shape)
