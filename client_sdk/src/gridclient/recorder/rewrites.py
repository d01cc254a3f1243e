"""Operations that are recorded as something else: writes, factories, multiple views, what means nothing remotely."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gridclient.recorder.places import Cell, Place, View, check_writable
from gridclient.recorder.tape import Operation, Tape, Value, operation
from gridclient.wire.errors import OperationNotAllowedError

WRITTEN = object()
"""What a rule returns when its first argument was written to."""
DECOMPOSE = object()
"""What a rule returns when torch shall run the operation's parts instead."""
Rule = Callable[[Tape, list[Any], dict[str, Any]], Any]

_LOCAL_OPTIONS = frozenset({"device", "layout", "pin_memory", "non_blocking"})
_ORDERS = (None, torch.contiguous_format, torch.preserve_format)


def remote_options(name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that mean nothing on a node. Raises OperationNotAllowedError for other devices."""
    device = kwargs.get("device")
    if device is not None and torch.device(device).type not in ("cpu", "meta"):
        raise OperationNotAllowedError(
            f"{name} to {device}: values stay on their node; .get() one, then move it.", operation=name
        )
    if kwargs.get("layout") not in (None, torch.strided) or kwargs.get("memory_format") not in _ORDERS:
        raise OperationNotAllowedError(f"{name}: values on a node are dense and in the usual order.", operation=name)
    return {
        key: value
        for key, value in kwargs.items()
        if key not in _LOCAL_OPTIONS
        and value is not None
        and not (key == "memory_format" and (name != "aten::clone" or value is torch.preserve_format))
    }


def view(tape: Tape, op: Operation, args: list[Any]) -> Any:
    """A view of a place, or a new value made from a value."""
    parent, static = args[0], _normal(op, args)
    spec = tape.infer(op.name, op.call, [parent, *static], {})
    if not isinstance(parent, (Cell, View)):
        return tape.apply(op, (parent, *static), {})
    return View(parent, op, tuple(static), spec)


def _normal(op: Operation, args: list[Any]) -> list[Any]:
    """Static arguments of a view, all of them written out."""
    shape = args[0].spec.shape
    static = list(args[1:])
    if op.name == "aten::slice.Tensor":
        dim, start, end, step = (*static, *(0, None, None, 1)[len(static) :])
        extent = shape[dim] if -len(shape) <= dim < len(shape) else 0
        begin, stop, _ = slice(start, end, None).indices(extent)
        return [dim, begin, max(begin, stop), step]
    return static


def _share(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Another tensor on the same memory: the same place."""
    return args[0]


def _value(tape: Tape, arg: Any) -> Value:
    if hasattr(arg, "current"):
        current: Value = arg.current()
        return current
    return tape.constant(torch.as_tensor(arg))


def _copy(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    target = check_writable(args[0], "aten::copy_")
    _assign(tape, target, _value(tape, args[1]))
    return WRITTEN


def _fill(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    target = check_writable(args[0], "aten::fill_")
    if hasattr(args[1], "current"):
        _assign(tape, target, args[1].current())
    else:
        target.write(tape.filled(target.spec.shape, args[1], target.spec.dtype))
    return WRITTEN


def _zero(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    target = check_writable(args[0], "aten::zero_")
    target.write(tape.filled(target.spec.shape, 0, target.spec.dtype))
    return WRITTEN


def _assign(tape: Tape, target: Place, value: Value) -> None:
    """Write a value into a place, cast and broadcast as `copy_` does."""
    if value.spec.dtype is not target.spec.dtype:
        value = tape.apply(operation("aten::_to_copy"), (value,), {"dtype": target.spec.dtype})
    if value.spec.shape != target.spec.shape:
        value = tape.contiguous(tape.apply(operation("aten::expand"), (value, list(target.spec.shape)), {}))
    target.write(value)


def _empty_like(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    options = remote_options("aten::empty_like", args, kwargs)
    return tape.apply(operation("aten::zeros_like"), (args[0],), options)


def _new(fill: float | None) -> Rule:
    """`x.new_zeros(shape)` and its like; what is in a `new_empty` is nobody's business, so it is zeros."""

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        options = remote_options("aten::new_full", args, kwargs)
        value = args[2] if fill is None else fill
        return tape.filled(args[1], value, options.get("dtype", args[0].spec.dtype))

    return rule


def _unbind(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    dim = args[1] if len(args) > 1 else 0
    select = operation("aten::select.int")
    return [view(tape, select, [args[0], dim, index]) for index in range(args[0].spec.shape[dim])]


def _split(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    size, dim = args[1], args[2] if len(args) > 2 else 0
    extent = args[0].spec.shape[dim]
    sizes = size if isinstance(size, (list, tuple)) else [size] * -(-extent // max(size, 1))
    parts, start = [], 0
    for length in sizes:
        end = min(start + length, extent)
        parts.append(view(tape, operation("aten::slice.Tensor"), [args[0], dim, start, end, 1]))
        start = end
    return parts


def _squeeze(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    ones = [axis for axis, extent in enumerate(args[0].spec.shape) if extent == 1]
    return view(tape, operation("aten::squeeze.dims"), [args[0], ones])


def _index(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Rows by a list of positions: one index of whole numbers, on one axis."""
    given = [(axis, index) for axis, index in enumerate(args[1]) if index is not None]
    axis, index = given[0]
    if len(given) > 1 or len(index.spec.shape) != 1 or index.spec.dtype not in (torch.int64, torch.int32):
        raise OperationNotAllowedError(
            "aten::index.Tensor: select by one list of positions on one axis; instead of a mask use torch.where or "
            "multiply by it, so that no shape depends on private values.",
            operation="aten::index.Tensor",
        )
    return tape.apply(operation("aten::index_select"), (args[0], axis, index), {})


RULES: dict[str, Rule] = {
    "aten::detach": _share,
    "aten::alias": _share,
    "aten::lift_fresh": _share,
    "aten::copy_": _copy,
    "aten::fill_.Scalar": _fill,
    "aten::fill_.Tensor": _fill,
    "aten::zero_": _zero,
    "aten::empty_like": _empty_like,
    "aten::new_zeros": _new(0),
    "aten::new_ones": _new(1),
    "aten::new_empty": _new(0),
    "aten::new_full": _new(None),
    "aten::unbind.int": _unbind,
    "aten::split.Tensor": _split,
    "aten::split_with_sizes": _split,
    "aten::squeeze": _squeeze,
    "aten::index.Tensor": _index,
}
