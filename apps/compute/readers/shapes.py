"""The shape reader: which shapes and dtypes does an operation give, and may it run at all? Runs on meta tensors.

Nothing here sees a value, so its errors may quote torch: they depend on shapes, dtypes and static arguments only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from math import prod
from typing import Any

import torch

from apps.compute.labels import Operand, Shape
from apps.compute.operations import TABLE
from apps.compute.targets import DTYPES, FACTORIES, Target, called
from gridclient.wire.errors import GridError, InvalidInputError, OperationNotAllowedError, ShapeError
from gridclient.wire.tensors import ITEM_SIZES, MAX_DIMENSIONS

NAMES = {dtype: name for name, dtype in DTYPES.items()}
Make = Callable[[Operand], torch.Tensor]
REFUSED = (RuntimeError, IndexError, TypeError, ValueError, AssertionError, OverflowError)


def nbytes(shape: Shape, dtype: str) -> int:
    """Bytes of a value, counted in full: an expanded view as its whole, an empty axis as one element."""
    return prod(max(extent, 1) for extent in shape) * ITEM_SIZES[dtype]


def infer(target: Target, bound: dict[str, Any]) -> list[tuple[Shape, str]]:
    """Shape and dtype of each output. `bound` holds an `Operand` in place of each reference.

    Raises ShapeError, InvalidInputError or OperationNotAllowedError with torch's own first line.
    """
    outputs = _tried(target, bound, _meta, ShapeError)
    # Kernels know better than meta tensors which dtypes they take and give.
    dtypes: list[torch.dtype] = []
    if TABLE[target.name].probe:
        # A rank among fewer elements must be one of theirs.
        small = bound | {"k": min(bound["k"], 1)} if "k" in bound else bound
        dtypes = [output.dtype for output in _tried(target, small, _tiny, InvalidInputError)]
    found = []
    for output, dtype in zip(outputs, dtypes or [output.dtype for output in outputs], strict=True):
        if dtype not in NAMES:
            raise InvalidInputError(f"{target.name} would give {dtype}, which is not supported.", operation=target.name)
        if any(extent < 0 for extent in output.shape):
            raise ShapeError(f"{target.name} would give a negative extent.", operation=target.name)
        if output.dim() > MAX_DIMENSIONS:
            raise ShapeError(f"{target.name} would give more than {MAX_DIMENSIONS} dimensions.", operation=target.name)
        found.append((tuple(output.shape), NAMES[dtype]))
    return found


def _tried(target: Target, bound: dict[str, Any], make: Make, otherwise: type[GridError]) -> list[torch.Tensor]:
    try:
        # What has no operand makes its values on the default device.
        with torch.device("meta") if make is _meta and target.name in FACTORIES else nullcontext():
            return called(target, bound, lambda given: make(given) if isinstance(given, Operand) else given)
    except REFUSED as error:
        raise refused(target.name, error, otherwise) from None


def refused(name: str, error: Exception, otherwise: type[GridError]) -> GridError:
    """Torch's complaint about shapes or dtypes as ours: its first line."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, NotImplementedError) or "not implemented for" in text:
        return OperationNotAllowedError(f"{name}: {text}", operation=name)
    return otherwise(f"{name}: {text}", operation=name)


def _meta(operand: Operand) -> torch.Tensor:
    return torch.empty(operand.shape, dtype=DTYPES[operand.dtype], device="meta")


def _tiny(operand: Operand) -> torch.Tensor:
    # Extents up to 1 matter (broadcasting, empty reductions), and 3 (cross); larger ones fit together at 3 as well.
    return torch.zeros([min(extent, 3) for extent in operand.shape], dtype=DTYPES[operand.dtype])
