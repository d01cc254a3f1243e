"""Indexing by tensors: which elements are taken may be private, how many of them never.

Positions may be a local tensor (a constant of the program) or a pointer. A local mask says at once how many elements it
chooses, so it is recorded as their positions. A mask on the node does not; through it one number may be written, which
is a choice between two values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from gridclient.recorder.places import check_writable
from gridclient.recorder.rewrites import WRITTEN, Rule
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value, operation
from gridclient.wire.errors import OperationNotAllowedError, ShapeError

_MASKS = (torch.bool, torch.uint8)


class Prepared(NamedTuple):
    """A rule, and what is done to torch's arguments before local tensors among them become constants."""

    prepare: Callable[[Sequence[Any]], Sequence[Any]]
    rule: Rule


def prepared(name: str, rule: Rule) -> Rule | Prepared:
    """The rule with the check of local positions that the operation needs; the rule itself for most."""
    packet = name.removeprefix("aten::").partition(".")[0].removesuffix("_")
    if packet in ("index", "index_put"):
        return Prepared(_without_masks, rule)
    if packet in _ALONG:
        return Prepared(_along, rule)
    return Prepared(_rows, rule) if packet == "embedding" else rule


def _without_masks(args: Sequence[Any]) -> Sequence[Any]:
    """Arguments of `index` or `index_put` with local masks as positions. Raises IndexError where torch does."""
    target, indices, *rest = args
    found: list[Any] = []
    axis = 0
    for index in indices:
        mask = index is not None and index.dtype in _MASKS
        if not _is_local(index):
            found.append(index)
        elif mask:
            if target.shape[axis : axis + index.dim()] != index.shape:
                raise IndexError(
                    f"The shape of the mask {list(index.shape)} at index {axis} does not match the shape of the "
                    f"indexed tensor {list(target.shape)}"
                )
            found += index.nonzero().unbind(1)
        else:
            _check_range(index, target.shape[axis], axis, target.shape[axis])
            found.append(index)
        axis += index.dim() if mask else 1
    masks = all(index is None or index.dtype in _MASKS for index in indices)
    if rest and masks and target.dtype.is_floating_point and rest[0].numel() == 1 and not any(rest[1:]):
        # Where masks choose, torch fills with a single number, whatever its dtype.
        rest[0] = rest[0].to(target.dtype)
    return [target, found, *rest]


def _along(args: Sequence[Any]) -> Sequence[Any]:
    """Arguments of `gather` and its like, checked: (self, dim, index, ...)."""
    target, axis, index = args[:3]
    if _is_local(index) and -max(target.dim(), 1) <= axis < max(target.dim(), 1):
        _check_range(index, target.shape[axis] if target.dim() else 1, axis, 0)
    return args


def _rows(args: Sequence[Any]) -> Sequence[Any]:
    """Arguments of `embedding`, checked: (weight, indices, ...)."""
    if _is_local(args[1]):
        _check_range(args[1], args[0].shape[0], 0, 0)
    return args


def _is_local(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and not hasattr(index, "_place")


def _check_range(index: torch.Tensor, extent: int, axis: int, negative: int) -> None:
    """Raise IndexError for local positions that do not exist: the node would give 0 there."""
    if not index.numel() or index.dtype.is_floating_point or index.device.type != "cpu":
        return
    for position in index.aminmax():
        if not -negative <= int(position) < extent:
            raise IndexError(f"index {int(position)} is out of bounds for dimension {axis} with size {extent}")


def _index(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Value:
    name = "aten::index.Tensor"
    if any(index is not None and index.spec.dtype in _MASKS for index in args[1]):
        raise OperationNotAllowedError(
            f"{name} with a mask on the node: how many elements it chooses would depend on private values. Use "
            "torch.where(mask, x, 0), or multiply by the mask; positions (integers) may index.",
            operation=name,
        )
    value: Value = tape.apply(operation(name), args, {})
    return value


def _put(tape: Tape, args: list[Any], kwargs: dict[str, Any], name: str = "aten::index_put") -> Value:
    target, indices, source, *accumulate = args
    mask = _single_mask(indices)
    if mask is None and any(index is not None and index.spec.dtype in _MASKS for index in indices):
        raise OperationNotAllowedError(
            f"{name} with a mask among other indices: the places would depend on private values. Use torch.where.",
            operation=name,
        )
    if mask is None:
        written: Value = tape.apply(operation("aten::index_put"), [target, indices, source, *accumulate], kwargs)
        return written
    if source.spec.shape not in ((), (1,)) or any(accumulate) or kwargs.get("accumulate"):
        raise OperationNotAllowedError(
            f"{name} with a mask on the node writes one number, without accumulating; how many elements the mask "
            "chooses would depend on private values. Use torch.where(mask, values, x).",
            operation=name,
        )
    return _choice(tape, target, mask, source)


def _put_into(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    name = "aten::index_put_"
    target = check_writable(args[0], name)
    if _single_mask(args[1]) is None:
        tape.infer(name, torch.ops.aten.index_put_.default, args, kwargs)
    target.write(_put(tape, args, kwargs, name))
    return WRITTEN


def _single_mask(indices: list[Any]) -> tuple[int, Any] | None:
    """First axis and value of the only index, when it is a mask on the node."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    return given[0] if len(given) == 1 and given[0][1].spec.dtype in _MASKS else None


def _choice(tape: Tape, target: Any, mask: tuple[int, Any], source: Any) -> Value:
    """`source` (one element) where the mask is true, else the target's elements."""
    axis, flags = mask[0], mask[1].current()
    shape, over = target.spec.shape, flags.spec.shape
    if shape[axis : axis + len(over)] != over:
        raise ShapeError(f"A mask of shape {list(over)} at index {axis} does not fit {list(shape)}.")
    if source.spec.dtype is not target.spec.dtype:
        raise ShapeError("Index put requires the source and destination dtypes match.")
    if flags.spec.dtype is not torch.bool:
        flags = tape.apply(operation("aten::ne.Scalar"), (flags, 0), {})
    flags = tape.reshaped(flags, [*over, *[1] * (len(shape) - axis - len(over))])
    chosen: Value = tape.apply(operation("aten::where.self"), (flags, tape.reshaped(source.current(), []), target), {})
    # torch writes into a clone, which lies in memory as the target does.
    like = tape.infer("aten::clone", torch.ops.aten.clone.default, [target], {})
    assert isinstance(like, Spec)
    return tape.laid_out(chosen, like)


_ALONG = frozenset("index_select gather scatter scatter_add scatter_reduce index_add index_copy index_fill".split())
RULES: dict[str, Rule] = {
    "aten::index.Tensor": _index,
    "aten::index_put": _put,
    "aten::index_put_": _put_into,
}
