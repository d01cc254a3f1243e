"""Elements found and written by index tensors: a position that does not exist gives 0, or is not written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from apps.compute.branchless import choose

_POSITIONS = (torch.int64, torch.int32)


def index_select(self: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """A position that does not exist gives 0."""
    if index.dim() > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    extent = self.shape[dim] if self.dim() else 1
    inside = (index >= 0) & (index < extent)
    if extent == 0:
        shape = list(self.shape)
        shape[dim] = index.numel()
        return torch.zeros(shape, dtype=self.dtype, device=self.device)
    chosen = torch.ops.aten.index_select.default(self, dim, choose(inside, index, 0))
    if self.dim():
        shape = [1] * self.dim()
        shape[dim] = index.numel()
        inside = inside.reshape(shape)
    else:
        inside = inside.reshape(())
    return _kept(inside, chosen)


def gather(self: torch.Tensor, dim: int, index: torch.Tensor, *, sparse_grad: bool = False) -> torch.Tensor:
    """A position that does not exist gives 0."""
    _check_positions(index)
    if self.dim() and self.shape[dim] == 0:
        self = _resized(self, dim, 1)
    inside, safe = _inside(index, self.shape[dim] if self.dim() else 1, wrap=False)
    return _kept(inside, torch.ops.aten.gather.default(self, dim, safe))


def take(self: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """A position that does not exist gives 0."""
    _check_positions(index)
    inside, safe = _inside(index, self.numel(), wrap=True)
    if not self.numel():
        self = self.new_zeros(1)
    return _kept(inside, torch.ops.aten.take.default(self, safe))


def index(self: torch.Tensor, indices: list[torch.Tensor | None]) -> torch.Tensor:
    """Positions of which one does not exist give 0."""
    inside, safe = _all_inside(self, indices)
    touched = [axis for axis, index in enumerate(indices) if index is not None]
    for axis in touched:
        if self.shape[axis] == 0:
            self = _resized(self, axis, 1)
    chosen = torch.ops.aten.index.Tensor(self, safe)
    together = touched == list(range(touched[0], touched[-1] + 1))
    before = touched[0] if together else 0
    after = chosen.dim() - before - inside.dim()
    return _kept(inside.reshape([1] * before + list(inside.shape) + [1] * after), chosen)


def index_put(
    self: torch.Tensor, indices: list[torch.Tensor | None], values: torch.Tensor, accumulate: bool = False
) -> torch.Tensor:
    """Positions of which one does not exist are not written."""
    inside, safe = _all_inside(self, indices)
    if not self.numel():
        return self.clone()
    first, index = next((axis, index) for axis, index in enumerate(safe) if index is not None)
    extent = self.shape[first]
    safe[first] = choose(inside, index, extent)
    made = torch.ops.aten.index_put.default(_resized(self, first, extent + 1), safe, values, accumulate)
    return made.narrow(first, 0, extent).contiguous()


def put(self: torch.Tensor, index: torch.Tensor, source: torch.Tensor, accumulate: bool = False) -> torch.Tensor:
    """A position that does not exist is not written."""
    _check_positions(index)
    inside, safe = _inside(index, self.numel(), wrap=True)
    flat = _resized(self.reshape(-1), 0, self.numel() + 1)
    made = torch.ops.aten.put.default(flat, choose(inside, safe, self.numel()), source, accumulate)
    return made.narrow(0, 0, self.numel()).reshape(self.shape)


def along(
    overload: Callable[..., Any], self: torch.Tensor, dim: int, index: torch.Tensor, *given: Any, **options: Any
) -> torch.Tensor:
    """scatter, index_add and their like: a position that does not exist is not written."""
    _check_positions(index)
    if not self.dim():
        rest = given if overload in _WRAPPING else [_vector(part) for part in given]
        return along(overload, self.reshape(1), dim, _vector(index), *rest, **options).reshape(())
    extent = self.shape[dim]
    inside, safe = _inside(index, extent, wrap=overload in _WRAPPING)
    made = overload(_resized(self, dim, extent + 1), dim, choose(inside, safe, extent), *given, **options)
    return made.narrow(dim, 0, extent).contiguous()


def searchsorted(
    sorted_sequence: torch.Tensor,
    self: torch.Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: torch.Tensor | None = None,
) -> torch.Tensor:
    """A position in `sorter` that does not exist counts as the first one."""
    if sorter is not None:
        _, sorter = _inside(sorter, sorted_sequence.shape[-1], wrap=False)
    return torch.ops.aten.searchsorted.Tensor(
        sorted_sequence, self, out_int32=out_int32, right=right, side=side, sorter=sorter
    )


def searchsorted_number(sorted_sequence: torch.Tensor, self: float, **options: Any) -> torch.Tensor:
    """As searchsorted, for one number in one order."""
    if sorted_sequence.dim() != 1:
        raise ValueError("a number has its place in an order with one axis")
    if options.get("sorter") is not None:
        _, options["sorter"] = _inside(options["sorter"], sorted_sequence.shape[0], wrap=False)
    return torch.ops.aten.searchsorted.Scalar(sorted_sequence, self, **options)


def isin(
    elements: torch.Tensor, test_elements: torch.Tensor, *, assume_unique: bool = False, invert: bool = False
) -> torch.Tensor:
    """How values lie in memory does not matter."""
    return torch.ops.aten.isin.Tensor_Tensor(
        elements.contiguous(), test_elements.contiguous(), assume_unique=assume_unique, invert=invert
    )


def _vector(given: Any) -> Any:
    return given.reshape(1) if isinstance(given, torch.Tensor) and not given.dim() else given


def _check_positions(index: torch.Tensor) -> None:
    if index.dtype in (torch.bool, torch.uint8):
        raise NotImplementedError("a mask as an index gives a shape that depends on values; use torch.where")
    if index.dtype not in _POSITIONS:
        raise TypeError(f"positions are int64 or int32, not {index.dtype}")


def _inside(index: torch.Tensor, extent: int, *, wrap: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Which positions exist, and the positions with 0 for the others."""
    if wrap:
        index = choose(index < 0, index + extent, index)
    inside = (index >= 0) & (index < extent)
    return inside, choose(inside, index, 0)


def _all_inside(
    self: torch.Tensor, indices: list[torch.Tensor | None]
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    if len(indices) > self.dim():
        raise IndexError(f"too many indices for a value of dimension {self.dim()} (got {len(indices)})")
    inside = torch.ones((), dtype=torch.bool, device=self.device)
    safe: list[torch.Tensor | None] = []
    for axis, index in enumerate(indices):
        if index is None:
            safe.append(None)
            continue
        _check_positions(index)
        here, index = _inside(index, self.shape[axis], wrap=True)
        inside = inside & here
        safe.append(index)
    if all(index is None for index in safe):
        raise IndexError("an index names at least one axis")
    return inside, safe


def _kept(inside: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return choose(inside, value, torch.zeros((), dtype=value.dtype, device=value.device))


def _resized(self: torch.Tensor, dim: int, extent: int) -> torch.Tensor:
    """The value with zeros after its end along an axis."""
    shape = list(self.shape)
    shape[dim] = extent - shape[dim]
    return torch.cat([self, self.new_zeros(shape)], dim)


_ALONG = {
    f"aten::{name}": getattr(getattr(torch.ops.aten, name.partition(".")[0]), name.partition(".")[2] or "default")
    for name in """scatter.src scatter.value scatter.reduce scatter.value_reduce scatter_add scatter_reduce.two
    index_add index_copy index_reduce index_fill.int_Scalar index_fill.int_Tensor""".split()
}
_WRAPPING = {_ALONG["aten::index_fill.int_Scalar"], _ALONG["aten::index_fill.int_Tensor"]}
"""These count negative positions from the end."""


def where(condition: torch.Tensor, self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """In a time that does not tell how often the condition holds."""
    return choose(condition, self, other)


def masked_fill(self: torch.Tensor, mask: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A value that the dtype does not hold is cast to it; the kernel would raise."""
    if self.is_meta:
        return torch.ops.aten.masked_fill.Tensor(self, mask, value.to(self.dtype))
    return choose(mask, value.to(self.dtype), self)


def masked_fill_number(self: torch.Tensor, mask: torch.Tensor, value: float) -> torch.Tensor:
    """In a time that does not tell how much is masked."""
    if self.is_meta:
        return torch.ops.aten.masked_fill.Scalar(self, mask, value)
    one = torch.ops.aten.masked_fill.Scalar(self.new_zeros(()), torch.ones((), dtype=torch.bool), value)
    return choose(mask, one, self)


def index_fill(self: torch.Tensor, dim: int, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A value that the dtype does not hold is cast to it; the kernel would raise."""
    return along(_ALONG["aten::index_fill.int_Tensor"], self, dim, index, value.to(self.dtype))


TOTAL: dict[str, Callable[..., Any]] = {
    "aten::index_select": index_select,
    "aten::gather": gather,
    "aten::take": take,
    "aten::index.Tensor": index,
    "aten::index_put": index_put,
    "aten::put": put,
    "aten::isin.Tensor_Tensor": isin,
    "aten::searchsorted.Tensor": searchsorted,
    "aten::searchsorted.Scalar": searchsorted_number,
    **{name: partial(along, overload) for name, overload in _ALONG.items()},
    "aten::index_fill.int_Tensor": index_fill,
    "aten::masked_fill.Tensor": masked_fill,
    "aten::masked_fill.Scalar": masked_fill_number,
    "aten::where.self": where,
}
