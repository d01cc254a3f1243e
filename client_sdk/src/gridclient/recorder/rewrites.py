"""Operations that are recorded as others: aliases, copies, splits, fills and everything that begins with uninitialised
memory (`empty` becomes zeros, so that no stale byte of a node can ever be read)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from gridclient.recorder.places import Cell, View, check_writable
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Operation, Tape, Value, operation
from gridclient.wire.errors import OperationNotAllowedError

Rule = Callable[[Tape, list[Any], dict[str, Any]], Any]

WRITTEN = object()
"""The first argument was written to, and is the result."""
DECOMPOSE = object()
"""The composite has no rule of its own: its parts have."""


class Turned(NamedTuple):
    """The first argument became another view of its memory, and is the result."""

    place: Cell | View


_LAYOUT_OPTIONS = frozenset({"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking"})
_TURNS = frozenset({"aten::t", "aten::transpose.int", "aten::permute"})


def remote_options(name: str, args: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that mean nothing on a node. Raises OperationNotAllowedError for devices and
    layouts that a node does not have."""
    kept = {}
    for option, value in options.items():
        if value is None and option in _LAYOUT_OPTIONS:
            continue
        if option == "device":
            if torch.device(value).type != "cpu":
                raise _no_option(name, f"device {value}")
        elif option == "layout":
            if value is not torch.strided:
                raise _no_option(name, f"layout {value}")
        elif option == "pin_memory":
            if value:
                raise _no_option(name, "pinned memory")
        elif option == "memory_format":
            if value is torch.contiguous_format:
                if not args[0].spec.contiguous:
                    kept[option] = value
            elif value is not torch.preserve_format:
                raise _no_option(name, f"memory format {value}")
        elif option != "non_blocking":
            kept[option] = value
    return kept


def view(tape: Tape, op: Operation, args: list[Any]) -> Cell | View:
    """A view of the first argument; the argument itself when the view would change nothing."""
    parent, *static = args
    spec = tape.infer(op.name, op.call, args, {})
    assert isinstance(spec, Spec)
    if spec is parent.spec and op.name not in _TURNS:
        return parent
    return View(parent, op, tuple(static), spec)


def _no_option(name: str, what: str) -> OperationNotAllowedError:
    return OperationNotAllowedError(
        f"{name} asks for {what}; values on a node are dense and on its CPU.", operation=name
    )


def _alias(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _copy(name: str) -> Rule:
    """A value never changes, so a copy that lies in memory as its source is the same value in a new cell."""
    op = operation(name)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        options = remote_options(name, args, kwargs)
        if tape.infer(name, op.call, args, options) is args[0].spec:
            return args[0].current()
        return tape.apply(op, args, options)

    return rule


def _reshape_alias(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return view(tape, operation("aten::view"), args[:2])


def _squeeze(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    axes = [axis for axis, extent in enumerate(args[0].spec.shape) if extent == 1]
    return view(tape, operation("aten::squeeze.dims"), [args[0], axes]) if axes else args[0]


def _unbind(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    place, axis = args[0], args[1] if len(args) > 1 else 0
    tape.infer("aten::unbind.int", torch.ops.aten.unbind.int, [place, axis], {})
    select = operation("aten::select.int")
    return [view(tape, select, [place, axis, index]) for index in range(place.spec.shape[axis])]


def _split(name: str, call: Any) -> Rule:
    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        place, axis = args[0], args[2] if len(args) > 2 else 0
        parts = tape.infer(name, call, [place, args[1], axis], {})
        assert isinstance(parts, tuple)
        op, begin, views = operation("aten::slice.Tensor"), 0, []
        for part in parts:
            assert part is not None
            end = begin + part.shape[axis]
            views.append(view(tape, op, [place, axis, begin, end]))
            begin = end
        return views

    return rule


def _unsafe_split(name: str, call: Any) -> Rule:
    """Parts that torch promises nobody writes to while the whole is used: values of their own."""
    parts = _split(name, call)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return [part.current() for part in parts(tape, args, kwargs)]

    return rule


def _copy_into(name: str, call: Any) -> Rule:
    """`copy_`, and `fill_` with a tensor: the source, cast and expanded, becomes the target's value."""

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target, source = check_writable(args[0], name), args[1]
        tape.infer(name, call, [target, source], {})
        value: Value = source.current()
        if value.spec.dtype is not target.spec.dtype:
            value = tape.apply(operation("aten::_to_copy"), (value,), {"dtype": target.spec.dtype})
        if value.spec.shape != target.spec.shape:
            value = tape.apply(operation("aten::expand"), (value, list(target.spec.shape)), {})
        target.write(value)
        return WRITTEN

    return rule


def _promoting(name: str) -> Rule:
    """A loss that torch computes in the dtype of its result; the kernel of a node takes operands of one dtype."""
    op = operation(name)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        result = tape.infer(name, op.call, args, kwargs)
        assert isinstance(result, Spec)
        return tape.apply(op, [_cast(tape, arg, result.dtype) for arg in args], kwargs)

    return rule


def _cast(tape: Tape, arg: Any, dtype: torch.dtype) -> Any:
    """An operand in this dtype; any other argument as it is."""
    spec = getattr(arg, "spec", None)
    if spec is None or spec.dtype is dtype:
        return arg
    return tape.apply(operation("aten::_to_copy"), (arg,), {"dtype": dtype})


def _is_same_size(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return bool(args[0].spec.shape == args[1].spec.shape)


def _unchecked(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Whether a decomposition succeeded depends on values: on the node, one that failed is NaN."""
    return None


def _fill(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    target = check_writable(args[0], "aten::fill_.Scalar")
    target.write(tape.apply(operation("aten::full_like"), (target, args[1]), {}))
    return WRITTEN


def _zero(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    target = check_writable(args[0], "aten::zero_")
    target.write(tape.apply(operation("aten::zeros_like"), (target,), {}))
    return WRITTEN


def _zeros_like(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return tape.apply(operation("aten::zeros_like"), args, remote_options("aten::empty_like", args, kwargs))


def _new(name: str, fill: float | None) -> Rule:
    """`new_zeros` and its like: another shape in the session. `fill` None: it is the third argument."""

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        options = remote_options(name, args, kwargs)
        dtype = options.get("dtype", args[0].spec.dtype)
        return tape.filled(args[1], args[2] if fill is None else fill, dtype)

    return rule


def _new_strided(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Zeros that lie in memory as told: autograd writes gradients of views into it."""
    like, size, stride = args
    dtype = remote_options("aten::new_empty_strided", args, kwargs).get("dtype", like.spec.dtype)
    return tape.laid_out(tape.filled(size, 0, dtype), Spec.of(tuple(size), tuple(stride), dtype))


def _of_contiguous(name: str) -> Rule:
    """Autograd asks how the matrix lay when its factors were made: only one way is the same everywhere."""
    op = operation(name)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if not args[0].spec.contiguous:
            raise OperationNotAllowedError(
                f"{name} takes a matrix that lies row by row: call .contiguous() first.", operation=name
            )
        return tape.apply(op, args, kwargs)

    return rule


RULES: dict[str, Rule] = {
    "aten::_linalg_det": _of_contiguous("aten::_linalg_det"),
    "aten::_linalg_slogdet": _of_contiguous("aten::_linalg_slogdet"),
    "aten::detach": _alias,
    "aten::alias": _alias,
    "aten::lift": _alias,
    "aten::lift_fresh": _alias,
    "aten::clone": _copy("aten::clone"),
    "aten::_to_copy": _copy("aten::_to_copy"),
    "aten::_reshape_alias": _reshape_alias,
    "aten::squeeze": _squeeze,
    "aten::unbind.int": _unbind,
    "aten::split.Tensor": _split("aten::split.Tensor", torch.ops.aten.split.Tensor),
    "aten::split_with_sizes": _split("aten::split_with_sizes", torch.ops.aten.split_with_sizes.default),
    "aten::unsafe_split.Tensor": _unsafe_split("aten::split.Tensor", torch.ops.aten.split.Tensor),
    "aten::unsafe_split_with_sizes": _unsafe_split("aten::split_with_sizes", torch.ops.aten.split_with_sizes.default),
    "aten::copy_": _copy_into("aten::copy_", torch.ops.aten.copy_.default),
    "aten::fill_.Tensor": _copy_into("aten::fill_.Tensor", torch.ops.aten.fill_.Tensor),
    "aten::fill_.Scalar": _fill,
    "aten::zero_": _zero,
    "aten::_linalg_check_errors": _unchecked,
    **{
        name: _promoting(name)
        for name in (
            "aten::mse_loss",
            "aten::mse_loss_backward",
            "aten::smooth_l1_loss",
            "aten::smooth_l1_loss_backward",
        )
    },
    "aten::is_same_size": _is_same_size,
    "aten::empty_like": _zeros_like,
    "aten::new_empty": _new("aten::new_empty", 0),
    "aten::new_empty_strided": _new_strided,
    "aten::new_zeros": _new("aten::new_zeros", 0),
    "aten::new_ones": _new("aten::new_ones", 1),
    "aten::new_full": _new("aten::new_full", None),
}
