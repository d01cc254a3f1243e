"""Elements moved, joined and repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def reshape(self: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Total form of `view`: how a value lies in memory is the worker's own business."""
    return torch.ops.aten.reshape.default(self, size)


def select_scatter(self: torch.Tensor, src: torch.Tensor, dim: int, index: int) -> torch.Tensor:
    """Checks on meta tensors too what the overload checks on values only."""
    _fits(torch.ops.aten.select.int(self, dim, index), src)
    return torch.ops.aten.select_scatter.default(self, src, dim, index)


def slice_scatter(
    self: torch.Tensor, src: torch.Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> torch.Tensor:
    """Checks on meta tensors too what the overload checks on values only."""
    _fits(torch.ops.aten.slice.Tensor(self, dim, start, end, step), src)
    return torch.ops.aten.slice_scatter.default(self, src, dim, start, end, step)


def diagonal_scatter(
    self: torch.Tensor, src: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> torch.Tensor:
    """Checks on meta tensors too what the overload checks on values only."""
    _fits(torch.ops.aten.diagonal.default(self, offset, dim1, dim2), src)
    return torch.ops.aten.diagonal_scatter.default(self, src, offset, dim1, dim2)


def roll(self: torch.Tensor, shifts: list[int], dims: list[int] | None = None) -> torch.Tensor:
    """Checks of an empty value too what the overload checks of others."""
    if len(shifts) != (len(dims) if dims else 1):
        raise ValueError("shifts and dimensions must align")
    return torch.ops.aten.roll.default(self, shifts, dims or [])


def _fits(part: torch.Tensor, src: torch.Tensor) -> None:
    if part.shape != src.shape:
        raise ValueError(f"cannot write {tuple(src.shape)} into a part of shape {tuple(part.shape)}")


TOTAL: dict[str, Callable[..., Any]] = {
    "aten::select_scatter": select_scatter,
    "aten::slice_scatter": slice_scatter,
    "aten::diagonal_scatter": diagonal_scatter,
    "aten::roll": roll,
    "aten::view": reshape,
    "aten::_unsafe_view": reshape,
}
