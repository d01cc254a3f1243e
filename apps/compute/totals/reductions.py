"""Along axes: what kernels and meta tensors see differently, or do not check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from apps.compute.branchless import choose
from apps.compute.steady import steadied

_exp = steadied("aten::exp", torch.ops.aten.exp.default)
_log = steadied("aten::log", torch.ops.aten.log.default)


def nansum(
    self: torch.Tensor, dim: list[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """No axes mean all of them, for meta tensors too."""
    return torch.ops.aten.nansum.default(self, dim or None, keepdim, dtype=dtype)


def cdist_backward(
    grad: torch.Tensor, x1: torch.Tensor, x2: torch.Tensor, p: float, cdist: torch.Tensor
) -> torch.Tensor:
    """Checks what the kernel does not: it would read beyond the end of a smaller gradient."""
    batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    expected = (*batch, x1.shape[-2], x2.shape[-2])
    if x1.shape[-1] != x2.shape[-1] or grad.shape != expected or cdist.shape != expected:
        raise ValueError(f"expects gradient and distances of shape {expected}")
    if not len({grad.dtype, x1.dtype, x2.dtype, cdist.dtype}) == 1:
        raise TypeError("expects one dtype")
    return torch.ops.aten._cdist_backward.default(grad.contiguous(), x1, x2, p, cdist.contiguous())


def kthvalue(self: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[torch.Tensor, ...]:
    """By sorting: the kernel's own search takes quadratic time for an order that somebody chose."""
    if self.is_meta or not self.dim():
        made: tuple[torch.Tensor, ...] = torch.ops.aten.kthvalue.default(self, k, dim, keepdim)
        return made
    ordered = torch.ops.aten.sort.stable(self, stable=True, dim=dim)
    found = tuple(each.select(dim, k - 1).clone() for each in ordered)
    return tuple(each.unsqueeze(dim) for each in found) if keepdim else found


def logsumexp(self: torch.Tensor, dim: list[int], keepdim: bool = False) -> torch.Tensor:
    """As torch computes it, in a time that does not tell how far the numbers are apart."""
    if self.is_meta or not self.numel():
        return torch.ops.aten.logsumexp.default(self, dim, keepdim)
    if not self.is_floating_point():
        self = self.to(torch.get_default_dtype())
    largest = torch.amax(self, dim, keepdim=True)
    largest = choose(largest.isinf(), 0.0, largest)
    made: torch.Tensor = _log(_exp(self - largest).sum(dim, keepdim=True)) + largest
    return made if keepdim else made.squeeze(dim)


def count_nonzero(self: torch.Tensor, dim: int | list[int] | None = None) -> torch.Tensor:
    """In a time that does not tell how many there are."""
    return (self != 0).sum() if dim is None else (self != 0).sum(dim)


TOTAL: dict[str, Callable[..., Any]] = {
    "aten::nansum": nansum,
    "aten::_cdist_backward": cdist_backward,
    "aten::kthvalue": kthvalue,
    "aten::logsumexp": logsumexp,
    "aten::count_nonzero": count_nonzero,
    "aten::count_nonzero.dim_IntList": count_nonzero,
}
