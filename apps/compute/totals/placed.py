"""Gradients of choosing parts: the part lies in zeros of the shape that it was taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from apps.compute.totals.checks import MOST, Guarded, shaped

aten = torch.ops.aten
MOST_EXTENT = 2**40


def _taken(grad_output: torch.Tensor, input_sizes: Sequence[int], take: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The gradient has the shape of what `take` takes from a value of that size."""
    if not all(0 <= extent <= MOST_EXTENT for extent in input_sizes):
        raise ValueError("expects extents for 'input_sizes'")
    shaped("grad_output", grad_output, take(torch.empty(list(input_sizes), device="meta")).shape)


def _slice(grad_output: torch.Tensor, input_sizes: list[int], dim: int, start: int, end: int, step: int) -> None:
    _taken(grad_output, input_sizes, lambda value: aten.slice.Tensor(value, dim, start, end, step))


def _select(grad_output: torch.Tensor, input_sizes: list[int], dim: int, index: int) -> None:
    _taken(grad_output, input_sizes, lambda value: aten.select.int(value, dim, index))


def _diagonal(grad_output: torch.Tensor, input_sizes: list[int], offset: int, dim1: int, dim2: int) -> None:
    if abs(offset) > MOST_EXTENT:
        raise ValueError("expects an offset within the value")
    _taken(grad_output, input_sizes, lambda value: aten.diagonal.default(value, offset, dim1, dim2))


def _unfold(grad_in: torch.Tensor, input_sizes: list[int], dim: int, size: int, step: int) -> None:
    if not grad_in.is_floating_point():
        raise NotImplementedError("not implemented for integers")
    if not 1 <= size <= MOST or not 1 <= step <= MOST or not input_sizes:
        raise ValueError("expects windows of at least one element, at least one step apart")
    _taken(grad_in, input_sizes, lambda value: aten.unfold.default(value, dim, size, step))


TOTAL: dict[str, Callable[..., Any]] = {
    "aten::slice_backward": Guarded(_slice, aten.slice_backward.default),
    "aten::select_backward": Guarded(_select, aten.select_backward.default),
    "aten::diagonal_backward": Guarded(_diagonal, aten.diagonal_backward.default),
    "aten::unfold_backward": Guarded(_unfold, aten.unfold_backward.default),
}
