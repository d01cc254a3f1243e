"""What runs behind each name: the ATen overload, looked up once at start, its total form, and its schema for checking.

No name from the wire is ever looked up in torch: `TARGETS` is made from the table. For workers only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from apps.compute.alongside import beside_slowest
from apps.compute.operations import TABLE
from apps.compute.steady import steadied
from apps.compute.totals import arithmetic, indexing, layout, matrices, networks, random, reductions
from apps.compute.totals.dense import DENSE, densely
from gridclient.program.graph import AGGREGATE, Dtype, Node, Ref
from gridclient.wire.errors import InternalError, InvalidInputError
from gridclient.wire.tensors import ITEM_SIZES, MAX_EXTENT

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_SIZES}
MAX_LIST = 64
MAX_TENSORS = MAX_NAMES = 4096
SIZES = frozenset({"size", "input_size", "input_sizes", "repeats"})
"""Arguments that are shapes: held to what a shape may be."""


class Parameter(NamedTuple):
    """One argument of a schema. `type` without "Optional[...]"."""

    name: str
    type: str
    optional: bool
    required: bool
    default: Any
    keyword: bool


@dataclass(frozen=True, slots=True)
class Target:
    """`call` never raises because of a value, and no shape of it depends on one. It changes none of its inputs."""

    name: str
    call: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    outputs: int
    positional: tuple[Parameter, ...] = field(init=False)
    keywords: tuple[Parameter, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positional", tuple(each for each in self.parameters if not each.keyword))
        object.__setattr__(self, "keywords", tuple(each for each in self.parameters if each.keyword))


TOTAL: dict[str, Callable[..., Any]] = {
    name: form
    for theme in (arithmetic, indexing, layout, matrices, networks, random, reductions)
    for name, form in theme.TOTAL.items()
}
"""Where the overload itself raises by value or by memory layout, and what has no overload."""


def _overload(name: str) -> Any:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _numbers(form: Callable[..., Any] | None) -> frozenset[str]:
    """The arguments of a total form that may be a number in place of a tensor: their annotation says so."""
    found = inspect.signature(form).parameters.values() if inspect.isfunction(form) else ()
    return frozenset(parameter.name for parameter in found if parameter.annotation == "Number")


def _parameter(argument: Any, *, reference: bool) -> Parameter:
    kind = str(argument.real_type)
    optional = kind.startswith("Optional[")
    kind = kind.removeprefix("Optional[")[:-1] if optional else kind
    if kind == "List[int]" and argument.N is not None:
        kind = "List[int] or int"
    elif kind == "Tensor" and reference:
        kind = "Reference"
    return Parameter(
        argument.name,
        kind,
        optional,
        not argument.has_default_value(),
        argument.default_value if argument.has_default_value() else None,
        argument.kwarg_only,
    )


def _target(name: str) -> Target:
    overload = _overload(name)
    schema = overload._schema
    if schema.is_mutable or any(argument.is_out for argument in schema.arguments):
        raise InternalError(f"{name} changes its inputs and cannot be in the table of operations.")
    if not all(str(returned.type) == "Tensor" for returned in schema.returns):
        raise InternalError(f"{name} returns something that is not a tensor.")
    numbers = _numbers(TOTAL.get(name))
    parameters = tuple(
        _parameter(argument, reference=name in TOTAL and argument.name not in numbers) for argument in schema.arguments
    )
    form = beside_slowest(name, TOTAL.get(name) or steadied(name, overload))
    return Target(name, densely(form) if name in DENSE else form, parameters, len(schema.returns))


def _own(name: str, call: Callable[..., Any], outputs: int = 1, /, **types: str) -> Target:
    """A composite of ours: the types of its arguments by name, all of them required."""
    parameters = tuple(Parameter(argument, kind, False, True, None, False) for argument, kind in types.items())
    return Target(name, call, parameters, outputs)


_COMPOSITES = [
    _own("grid::column", torch.tensor, self="Reference", names="str"),
    _own("grid::columns", torch.tensor, self="Reference", names="List[str]"),
    _own("grid::count", torch.tensor, self="Reference"),
    Target(
        AGGREGATE,
        torch.tensor,
        (
            Parameter("self", "Reference", False, True, None, False),
            Parameter("kind", "str", False, True, None, False),
            Parameter("other", "Reference", True, False, None, False),
            Parameter("by", "Reference", True, False, None, False),
        ),
        1,
    ),
    Target(
        "grid::parameter",
        lambda self, module, name, trainable: self,
        (
            Parameter("self", "Reference", False, True, None, False),
            Parameter("module", "str", False, True, None, False),
            Parameter("name", "str", False, True, None, False),
            Parameter("trainable", "bool", False, False, True, False),
        ),
        1,
    ),
    _own("grid::rand", random.rand, size="List[int]", dtype="ScalarType", seed="Seed"),
    _own("grid::randn", random.randn, size="List[int]", dtype="ScalarType", seed="Seed"),
    _own("grid::randint", random.randint, low="int", high="int", size="List[int]", dtype="ScalarType", seed="Seed"),
    _own("grid::randperm", random.randperm, n="int", dtype="ScalarType", seed="Seed"),
    _own("grid::bernoulli", random.bernoulli, self="Reference", seed="Seed"),
    _own("grid::dropout", random.dropout, 2, self="Reference", p="float", seed="Seed"),
]
TARGETS: dict[str, Target] = {name: _target(name) for name in TABLE if name.startswith("aten::")} | {
    target.name: target for target in _COMPOSITES
}
"""By name, for everything but inputs. Columns, counts and aggregates are computed by the torch reader itself."""
FACTORIES = frozenset({"grid::rand", "grid::randn", "grid::randint", "grid::randperm"})
"""What takes no operand."""


def bind(target: Target, node: Node) -> dict[str, Any]:
    """The node's arguments by the schema's names, defaults filled in, every type and length checked.

    References stay `Ref`; a dtype becomes its name. Raises InvalidInputError. Nothing deeper than a list of scalars
    or references passes, so that what is bound may be walked.
    """
    positional = target.positional
    if len(node.args) > len(positional):
        raise _wrong(target, f"takes at most {len(positional)} positional arguments, not {len(node.args)}")
    given = {parameter.name: value for parameter, value in zip(positional, node.args, strict=False)}
    for name, value in node.kwargs.items():
        if name in given or all(name != parameter.name for parameter in target.parameters):
            raise _wrong(target, f"has no argument {name[:32]!r}, or has it twice")
        given[name] = value
    bound: dict[str, Any] = {}
    for parameter in target.parameters:
        if parameter.name in given:
            bound[parameter.name] = _checked(target, parameter, given[parameter.name])
        elif parameter.required:
            raise _wrong(target, f"needs the argument {parameter.name!r}")
        else:
            bound[parameter.name] = parameter.default
    return bound


def called(target: Target, bound: dict[str, Any], value: Callable[[Any], Any]) -> list[torch.Tensor]:
    """The outputs for bound arguments. `value` gives the tensor in place of a reference, and everything else as it is.

    The one way to call a target, however the arguments were written: what is judged is what runs.
    """

    def given(parameter: Parameter) -> Any:
        found = bound[parameter.name]
        if parameter.type == "ScalarType":
            return DTYPES.get(found)
        return [value(item) for item in found] if isinstance(found, list) else value(found)

    args = [given(parameter) for parameter in target.positional]
    kwargs = {parameter.name: given(parameter) for parameter in target.keywords}
    made = target.call(*args, **kwargs)
    return list(made) if isinstance(made, (tuple, list)) else [made]


def _wrong(target: Target, what: str) -> InvalidInputError:
    return InvalidInputError(f"{target.name} {what}.", operation=target.name)


def _checked(target: Target, parameter: Parameter, value: Any) -> Any:
    if value is None and (parameter.optional or parameter.type in _ABSENT):
        return None
    check = _CHECKS.get(parameter.type)
    if check is None or not check(value):
        expected = _WORDS.get(parameter.type, "None")
        raise _wrong(target, f"expects {expected} for {parameter.name!r}, not {type(value).__name__}")
    if parameter.type == "ScalarType":
        return value.name
    if parameter.type == "MemoryFormat":
        return None
    if parameter.type.startswith("List[int]"):
        value = value if isinstance(value, list) else [value]
        if parameter.name in SIZES and any(not -1 <= extent <= MAX_EXTENT for extent in value):
            raise _wrong(target, f"expects extents of at most 2**40 (or -1) for {parameter.name!r}")
    return value


def _int(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _ints(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LIST and all(map(_int, value))


def _number(value: Any) -> bool:
    return isinstance(value, (bool, float)) or _int(value)


def _floats(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LIST and all(map(_number, value))


_ABSENT = frozenset({"Layout", "Device", "MemoryFormat"})
_CHECKS: dict[str, Callable[[Any], bool]] = {
    # A number in place of a tensor is what torch calls a wrapped number: `x + 1`.
    "Tensor": lambda value: isinstance(value, Ref) or _number(value),
    "List[Tensor]": lambda value: (
        isinstance(value, list) and 0 < len(value) <= MAX_TENSORS and all(isinstance(item, Ref) for item in value)
    ),
    "List[Optional[Tensor]]": lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= MAX_LIST
        and all(item is None or isinstance(item, Ref) for item in value)
        and any(isinstance(item, Ref) for item in value)
    ),
    "Reference": lambda value: isinstance(value, Ref),
    "int": _int,
    "Seed": lambda value: _int(value) and value >= 0,
    "float": _number,
    "List[float]": _floats,
    "List[bool]": lambda value: (
        isinstance(value, list) and len(value) <= MAX_LIST and all(isinstance(item, bool) for item in value)
    ),
    "number": _number,
    "bool": lambda value: isinstance(value, bool),
    "List[int]": _ints,
    "List[int] or int": lambda value: _int(value) or _ints(value),
    "ScalarType": lambda value: isinstance(value, Dtype) and value.name in DTYPES,
    # All our values are; what else there is would only change how they lie in memory.
    "MemoryFormat": lambda value: value == "contiguous_format",
    "str": lambda value: isinstance(value, str),
    "List[str]": lambda value: (
        isinstance(value, list) and len(value) <= MAX_NAMES and all(isinstance(item, str) for item in value)
    ),
}
_WORDS = {
    "Tensor": "a value",
    "Reference": "a value",
    "List[Tensor]": f"a list of 1 to {MAX_TENSORS} values",
    "List[Optional[Tensor]]": f"a list of at most {MAX_LIST} values or None, at least one of them a value",
    "int": "an integer of 64 bits",
    "Seed": "an integer from 0 to below 2**63",
    "float": "a number",
    "List[float]": f"a list of at most {MAX_LIST} numbers",
    "List[bool]": f"a list of at most {MAX_LIST} times true or false",
    "number": "a number",
    "bool": "true or false",
    "List[int]": f"a list of at most {MAX_LIST} integers",
    "List[int] or int": f"a list of at most {MAX_LIST} integers",
    "ScalarType": f"a dtype among {', '.join(DTYPES)}",
    "str": "a text",
    "List[str]": f"a list of at most {MAX_NAMES} texts",
}
