"""A choice among numbers that takes as long whatever is chosen.

Torch's own kernels go one of two ways for each number. The processor guesses which, and takes up to eight times as
long where it cannot: where a condition is like the throw of a coin, and not the same for everybody.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

Number: TypeAlias = torch.Tensor | float
"""A tensor, or a number in its place."""
FEW = 32
"""So few numbers are chosen before wrong guesses show."""
BLOCK = 2**15
"""Numbers at a time: what is needed on the way takes next to no memory."""
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def choose(condition: torch.Tensor, self: Number, other: Number) -> torch.Tensor:
    """torch.where, to the last bit: numbers of `self` where `condition`, else of `other`. Either may be a number."""
    if any(map(_is_meta, (condition, self, other))) or max(map(_count, (condition, self, other))) <= FEW:
        return torch.where(condition, self, other)
    condition = condition.to(torch.bool)
    dtype = torch.result_type(self, other)
    bits = _BITS[dtype.itemsize]
    left, right = (
        (given if isinstance(given, torch.Tensor) and given.dtype == dtype else torch.as_tensor(given, dtype=dtype))
        .view(bits) for given in (self, other)
    )  # fmt: skip
    if not condition.is_contiguous() or not all(_flat(given, condition.shape) for given in (left, right)):
        return _laid_as_torch_does(condition, left, right).view(dtype)
    if condition.numel() <= BLOCK:
        return _masked(condition, left, right).view(dtype)
    made = torch.empty(condition.shape, dtype=bits)
    parts = [given.reshape(-1).split(BLOCK) if given.dim() else None for given in (condition, left, right)]
    for number, part in enumerate(made.view(-1).split(BLOCK)):
        which, here, there = (whole if split is None else split[number]
                              for split, whole in zip(parts, (condition, left, right), strict=True))  # fmt: skip
        part.copy_(_masked(which, here, there))
    return made.view(dtype)


def _is_meta(given: Any) -> bool:
    return isinstance(given, torch.Tensor) and given.is_meta


def _count(given: Any) -> int:
    return given.numel() if isinstance(given, torch.Tensor) else 1


def _flat(given: torch.Tensor, shape: torch.Size) -> bool:
    return not given.dim() or (given.shape == shape and given.is_contiguous())


def _masked(condition: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    mask = condition.to(left.dtype).neg_()  # no bit, or all of them
    return mask.bitwise_and_(left ^ right).bitwise_xor_(right)


def _laid_as_torch_does(condition: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """In the order in memory that torch gives it: sums follow that order."""
    lying = [torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device="meta")
             for given in (condition, left, right)]  # fmt: skip
    order = torch.where(lying[0], lying[1], lying[2])
    made = torch.empty_strided(order.shape, order.stride(), dtype=left.dtype)
    mask = condition.to(left.dtype).neg_()
    return torch.bitwise_xor(mask & (left ^ right), right, out=made)
