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
from gridclient.recorder import indexing, norms, rewrites, seeded
from gridclient.recorder.indexing import Prepared
from gridclient.recorder.lines import located
from gridclient.recorder.places import VIEWS, check_writable
from gridclient.recorder.rewrites import WRITTEN, Rule, Turned
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Operation, Tape, Value, not_in_table, operation
from gridclient.wire.errors import OperationNotAllowedError, RemoteValueError, ShapeError

_CHANGES_OF_DTYPE = "aten::_to_copy"
_VALUES_ASKED = frozenset({"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero"})
_BY_VALUE = "The shape of its result would depend on private values; use torch.where or multiply by a mask."
_RECURRENT = (
    "An LSTM in float32 runs in one kernel whose sums cannot be replayed; use torch.nn.LSTMCell step by step, or "
    "use model.double() before it is sent, and data as float64, which is computed exactly."
)
_FAST_PATH = "Switch torch's shortcut for evaluation off: torch.backends.mha.set_fastpath_enabled(False)."
_HINTS = {
    "aten::_transformer_encoder_layer_fwd": _FAST_PATH,
    "aten::_native_multi_head_attention": _FAST_PATH,
    "aten::nonzero": _BY_VALUE,
    "aten::masked_select": _BY_VALUE,
    "aten::_unique2": _BY_VALUE,
    "aten::unique_dim": _BY_VALUE,
    "aten::unique_consecutive": _BY_VALUE,
    "aten::bincount": _BY_VALUE,
    "aten::masked_scatter": _BY_VALUE,
    "aten::as_strided": "Use slices, torch.diagonal and reshape.",
    "aten::unfold": "Take slices and torch.stack them.",
    "aten::mkldnn_rnn_layer": _RECURRENT,
    "aten::equal": "Compare with == and reduce the result.",
}

_RULES: dict[str, Rule] = {**rewrites.RULES, **indexing.RULES, **norms.RULES, **seeded.RULES}
_rules: dict[Any, Rule | Prepared] = {}
_OF_TENSORS = {"aten::floor_divide.Scalar": "aten::floor_divide"}


def rule_of(func: Any) -> Rule | Prepared:
    """The rule for an ATen overload. Every overload has one; it may be a refusal."""
    try:
        return _rules[func]
    except KeyError:
        rule = _rules[func] = indexing.prepared(func.name(), _make(func))
        return rule


def remote_value(what: str) -> RemoteValueError:
    """The error for `what` when it needs a value that is on a node."""
    error = RemoteValueError(
        f"{what} needs a value, and a pointer holds none: it is on a node. pointer.get() asks the node for it.",
    )
    located(error)
    return error


def _make(func: Any) -> Rule:
    name = func.name()
    schema = func._schema
    if name in _VALUES_ASKED:
        return _no_value(name)
    if name in _RULES:
        return _RULES[name]
    if name in VIEWS and name in OPERATIONS:
        return _view(operation(name))
    if any(argument.is_out for argument in schema.arguments):
        return refusal(name, "Values are recorded without out=; use the result instead.")
    if torch.Tag.inplace_view in func.tags:
        return _turn(func)
    if schema.is_mutable:
        return _decomposed(func) or _write(func)
    if name in OPERATIONS and not any(argument.alias_info for argument in schema.arguments):
        return _pure(operation(name))
    copied = _copied_view(func)
    if copied is not None:
        return copied
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
    takes_numbers = _takes_numbers(op)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        args = args if takes_numbers else _without_number(tape, args)
        return tape.apply(op, args, rewrites.remote_options(op.name, args, kwargs) if kwargs else kwargs)

    return rule


def _takes_numbers(op: Operation) -> bool:
    """Whether torch takes a number for the second argument, where the schema has a tensor or a number."""
    arguments = op.call._schema.arguments
    if len(arguments) < 2 or arguments[1].name != "other" or str(arguments[1].type) != "Tensor":
        return True
    packet = op.name.removeprefix("aten::").partition(".")[0]
    return bool(torch._C._should_allow_numbers_as_tensors(packet))


def _without_number(tape: Tape, args: list[Any]) -> list[Any]:
    """A number in place of the second tensor, as a constant of the dtype that torch would compute in."""
    number = args[1]
    if type(number) not in (int, float, bool):
        return args
    dtype = torch.result_type(args[0].spec.meta, number)
    return [args[0], tape.constant(torch.tensor(number, dtype=dtype, device="cpu")), *args[2:]]


def _view(op: Operation) -> Rule:
    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return rewrites.view(tape, op, args)

    return rule


def _copied_view(func: Any) -> Rule | None:
    """`diagonal_copy` and its like: a view, whose elements are a new value."""
    packet, dot, overload = func.name().partition(".")
    name = packet.removesuffix("_copy") + dot + overload
    if not packet.endswith("_copy") or name not in VIEWS or name not in OPERATIONS:
        return None
    op = operation(name)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        spec = tape.infer(func.name(), func, args, kwargs)
        assert isinstance(spec, Spec)
        return tape.laid_out(rewrites.view(tape, op, args).current(), spec)

    return rule


def _decomposed(func: Any) -> Rule | None:
    """A composite is run as its parts. Autograd does so before us, except in inference mode.

    Not where the CPU has a kernel of its own: its results would be others.
    """
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    if not has(func.name(), "CompositeImplicitAutograd") or has(func.name(), "CPU"):
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
    takes_numbers = _takes_numbers(twin)

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target = check_writable(args[0], name)
        tape.infer(name, func, args, kwargs)  # torch's own complaints about shapes and dtypes
        value: Value = tape.apply(twin, args if takes_numbers else _without_number(tape, args), kwargs)
        if value.spec.dtype is not target.spec.dtype:
            if not torch.can_cast(value.spec.dtype, target.spec.dtype):
                raise ShapeError(f"{name}: a result of {value.spec.dtype} cannot be written to {target.spec.dtype}.")
            value = tape.apply(operation(_CHANGES_OF_DTYPE), (value,), {"dtype": target.spec.dtype})
        target.write(value)
        return WRITTEN

    return rule


def _turn(func: Any) -> Rule:
    """`squeeze_` and its like. Users are refused them by the pointer's methods; torch's own products call them."""
    name = _functional_name(func)
    if name in rewrites.RULES:
        by = rewrites.RULES[name]
    elif name in VIEWS and name in OPERATIONS:
        by = _view(operation(name))
    else:
        return refusal(func.name())

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return Turned(by(tape, args, kwargs))

    return rule


def _functional_name(func: Any) -> str:
    """Name of the overload that takes the same arguments and writes to none; empty when there is none."""
    schema = func._schema
    packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::").removesuffix("_"), None)
    if packet is None:
        return ""
    taken = [str(argument.type) for argument in schema.arguments]
    for overload in sorted(packet.overloads(), key=lambda overload: overload != schema.overload_name):
        twin = getattr(packet, overload)
        if not twin._schema.is_mutable and [str(argument.type) for argument in twin._schema.arguments] == taken:
            return str(twin.name())
    return ""


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
    """`add.Scalar` and its like are `add.Tensor` with a number, which is how torch defines them.

    Of those whose number is called `other`: `lerp.Scalar` has a kernel of its own.
    """
    tensor = _OF_TENSORS.get(name)
    if tensor is None and name.endswith((".Scalar", ".Scalar_mode")):
        tensor = name.replace(".Scalar", ".Tensor")
    if tensor is None or tensor not in OPERATIONS:
        return None
    op = operation(tensor)
    return op if len(op.call._schema.arguments) > 1 and op.call._schema.arguments[1].name == "other" else None
