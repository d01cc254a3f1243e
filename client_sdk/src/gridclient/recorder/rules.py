"""How each ATen operation is recorded: as it is, as a view, as its functional twin, or not at all.

A rule takes the tape and torch's arguments, with places and values where torch had tensors. It returns a place (the
result shares memory with it), a value (the result is new), lists of these, `WRITTEN` (the first argument changed),
`Turned` (it is now a view of what it was) or `DECOMPOSE` (run the composite's parts instead).
Rules are found by the operation's schema, never by its name, and remembered.
"""

from __future__ import annotations

from typing import Any

import torch

from gridclient.program.operations import OPERATIONS
from gridclient.recorder import rewrites
from gridclient.recorder.places import VIEWS, check_writable
from gridclient.recorder.rewrites import WRITTEN, Rule, Turned
from gridclient.recorder.tape import Operation, Tape, Value, not_in_table, operation
from gridclient.wire.errors import OperationNotAllowedError, RemoteValueError

_CHANGES_OF_DTYPE = "aten::_to_copy"
_VALUES_ASKED = frozenset({"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero"})
_BY_VALUE = "The shape of its result would depend on private values; use torch.where or multiply by a mask."
_HINTS = {
    "aten::nonzero": _BY_VALUE,
    "aten::masked_select": _BY_VALUE,
    "aten::_unique2": _BY_VALUE,
    "aten::unique_dim": _BY_VALUE,
    "aten::unique_consecutive": _BY_VALUE,
    "aten::bincount": _BY_VALUE,
    "aten::index.Tensor": "Select rows with slices or torch.index_select, and in place of a mask use torch.where.",
    "aten::equal": "Compare with == and reduce the result.",
}

_rules: dict[Any, Rule] = {}


def rule_of(func: Any) -> Rule:
    """The rule for an ATen overload. Every overload has one; it may be a refusal."""
    try:
        return _rules[func]
    except KeyError:
        rule = _rules[func] = _make(func)
        return rule


def remote_value(what: str) -> RemoteValueError:
    """The error for `what` when it needs a value that is on a node."""
    return RemoteValueError(
        f"{what} needs a value, and a pointer holds none: it is on a node. pointer.get() asks the node for it.",
    )


def _make(func: Any) -> Rule:
    name = func.name()
    schema = func._schema
    if name in _VALUES_ASKED:
        return _no_value(name)
    if name in rewrites.RULES:
        return rewrites.RULES[name]
    if name in VIEWS:
        return _view(operation(name))
    if any(argument.is_out for argument in schema.arguments):
        return refusal(name, "Values are recorded without out=; use the result instead.")
    if torch.Tag.inplace_view in func.tags:
        return _turn(func)
    if schema.is_mutable:
        return _decomposed(func) or _write(func)
    if name in OPERATIONS and not any(argument.alias_info for argument in schema.arguments):
        return _pure(operation(name))
    tensor = _tensor_overload(name)
    if tensor is not None:
        return _pure(tensor)
    return _decomposed(func) or refusal(name)


def refusal(name: str, hint: str = "") -> Rule:
    """A rule that raises OperationNotAllowedError by the operation's name."""
    text = f"{not_in_table(name)} {hint or _HINTS.get(name, '')}".strip()

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        raise OperationNotAllowedError(text, operation=name)

    return rule


def _no_value(name: str) -> Rule:
    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        raise remote_value(name)

    return rule


def _pure(op: Operation) -> Rule:
    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return tape.apply(op, args, rewrites.remote_options(op.name, args, kwargs) if kwargs else kwargs)

    return rule


def _view(op: Operation) -> Rule:
    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return rewrites.view(tape, op, args)

    return rule


def _decomposed(func: Any) -> Rule | None:
    """A composite is run as its parts. Autograd does so before us, except in inference mode."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        return None

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return rewrites.DECOMPOSE

    return rule


def _write(func: Any) -> Rule:
    """In-place operations are recorded as their functional twin, whose result becomes the target's new value."""
    name = func.name()
    twin = _twin(func)
    if twin is None:
        return refusal(name)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target = check_writable(args[0], name)
        tape.infer(name, func, args, kwargs)  # torch's own complaints about shapes and dtypes
        value: Value = tape.apply(twin, args, kwargs)
        if value.spec.dtype is not target.spec.dtype:
            value = tape.apply(operation(_CHANGES_OF_DTYPE), (value,), {"dtype": target.spec.dtype})
        target.write(value)
        return WRITTEN

    return rule


def _turn(func: Any) -> Rule:
    """`squeeze_` and its like. Users are refused them by the pointer's methods; torch's own products call them."""
    name = _functional_name(func)
    if name in rewrites.RULES:
        by = rewrites.RULES[name]
    elif name in VIEWS:
        by = _view(operation(name))
    else:
        return refusal(func.name())

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return Turned(by(tape, args, kwargs))

    return rule


def _functional_name(func: Any) -> str:
    schema = func._schema
    packet: str = schema.name.removesuffix("_")
    return f"{packet}.{schema.overload_name}" if schema.overload_name else packet


def _twin(func: Any) -> Operation | None:
    """The functional twin of an overload that writes to its first argument and nothing else, if it is in the table."""
    schema = func._schema
    written = [argument for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write]
    only_self = len(written) == 1 and written[0].name == schema.arguments[0].name
    if not only_self:
        return None
    name = _functional_name(func)
    return operation(name) if name in OPERATIONS else _tensor_overload(name)


def _tensor_overload(name: str) -> Operation | None:
    """`add.Scalar` and its like are `add.Tensor` with a number, which is how torch defines them."""
    tensor = name.removesuffix(".Scalar") + ".Tensor"
    return operation(tensor) if name.endswith(".Scalar") and tensor in OPERATIONS else None
