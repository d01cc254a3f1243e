"""The tape: writes operations on recorded values into the session's program.

Everything here is functional: a `Value` never changes. Cells and views, which do change, are in `places`.
"""

from __future__ import annotations

import collections
import functools
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gridclient.program import graph
from gridclient.program.graph import Node, Ref
from gridclient.program.operations import OPERATIONS
from gridclient.recorder.channel import Channel
from gridclient.recorder.lines import user_line
from gridclient.recorder.shapes import ShapeMemo, Specs
from gridclient.recorder.spec import DTYPES, Spec
from gridclient.wire.errors import InvalidInputError, LimitExceededError, OperationNotAllowedError

MAX_NODES = 1_000_000
MAX_PROGRAM_BYTES = 64 * 1024 * 1024
RECENT_CONSTANTS = 32
"""So many of the last constants stay named on the node, for loops that use the same ones again."""
_NODE_BYTES, _ARGUMENT_BYTES = 16, 7  # what a node and each of its arguments take on the wire, about
_NO_SOURCES: frozenset[str] = frozenset()
_SHAPES = ShapeMemo()


class Operation(NamedTuple):
    """An ATen operation of the table: its name on the wire and the function that torch calls."""

    name: str
    call: Any


def not_in_table(name: str) -> str:
    """What is said of an operation that no node computes."""
    return (
        f"{name} is not in the table of operations that a node computes "
        "(the list: docs/reference/operations.md; ask for what is missing there)."
    )


@functools.cache
def operation(name: str) -> Operation:
    """The operation of the table with this name. Raises OperationNotAllowedError for any other."""
    if name not in OPERATIONS:
        raise OperationNotAllowedError(not_in_table(name), operation=name)
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return Operation(name, getattr(getattr(torch.ops.aten, packet), overload or "default"))


class Value:
    """One output of one node of the program. When the last holder is gone, the node hears of it."""

    __slots__ = ("__weakref__", "ref", "sources", "spec", "tape")

    def __init__(self, tape: Tape, ref: Ref, spec: Spec, sources: frozenset[str]) -> None:
        self.tape = tape
        self.ref = ref
        self.spec = spec
        self.sources = sources

    def current(self) -> Value:
        return self

    def __del__(self) -> None:
        self.tape.channel.drop(self.ref)


class Tape:
    """The program of one session, as far as this client wrote it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.nodes = 0
        self.nbytes = 0
        self._lock = threading.Lock()
        self._constants: weakref.WeakValueDictionary[str, Value] = weakref.WeakValueDictionary()
        self._recent: collections.deque[Value] = collections.deque(maxlen=RECENT_CONSTANTS)

    def write(
        self,
        name: str,
        args: list[Any],
        kwargs: dict[str, Any],
        specs: Specs,
        sources: frozenset[str],
        line: str | None = None,
        arguments: int = 4,
    ) -> Any:
        """Append a node. Returns its `Value`, or a tuple of them (None for None) for a tuple of specs.

        `args` and `kwargs` are as on the wire. Raises LimitExceededError at the caps of a session.
        """
        line = user_line() if line is None else line
        outputs = 1 if isinstance(specs, Spec) else len(specs)
        number = self._append(name, args, kwargs, outputs, line, _ARGUMENT_BYTES * arguments)
        if isinstance(specs, Spec):
            return Value(self, Ref(number), specs, sources)
        for i, spec in enumerate(specs):
            if spec is None:  # nobody can hold it, so nobody would drop it
                self.channel.drop(Ref(number, i))
        return tuple(
            None if spec is None else Value(self, Ref(number, i), spec, sources) for i, spec in enumerate(specs)
        )

    def call(
        self,
        name: str,
        args: list[Any],
        kwargs: dict[str, Any],
        size: int,
        results: Sequence[tuple[Ref, Spec]],
        sources: frozenset[str],
    ) -> list[Value]:
        """Append a node that stands for `size` others, and takes as many ids. `results`: their ids count from 0."""
        line = user_line()
        inside = [ref for ref, _ in results]
        first = self._append(name, args, kwargs, 1, line, _ARGUMENT_BYTES * 4 * size, size, inside)
        return [Value(self, Ref(first + ref.node, ref.output), spec, sources) for ref, spec in results]

    def _append(
        self,
        name: str,
        args: list[Any],
        kwargs: dict[str, Any],
        outputs: int,
        line: str,
        arguments: int,
        size: int = 1,
        inside: Sequence[Ref] = (),
    ) -> int:
        """Append a node that takes `size` ids, with `arguments` bytes of arguments. Returns the first id.

        `inside`: the values of a node that takes several ids, counted from 0.
        """
        with self._lock:
            number = self.nodes
            nbytes = self.nbytes + _NODE_BYTES * size + arguments + len(name) + len(line)
            if number + size > MAX_NODES or nbytes > MAX_PROGRAM_BYTES:
                raise _program_too_long(MAX_NODES if number + size > MAX_NODES else MAX_PROGRAM_BYTES)
            # Counted first: where an interrupt comes in between, an id is left out; else the next would use it again.
            self.nodes, self.nbytes = number + size, nbytes
            node = Node(number, name, args, kwargs, outputs, line)
            if inside:
                self.channel.append(node, [Ref(number + ref.node, ref.output) for ref in inside])
            else:
                self.channel.append(node)
            return number

    def apply(self, op: Operation, args: Sequence[Any], kwargs: dict[str, Any], line: str | None = None) -> Any:
        """Append an operation of the table. Returns its `Value`, or a tuple of them.

        Arguments are values, places and static arguments as torch has them.
        """
        key: list[Any] = [op.call, torch.get_default_dtype()]
        held: list[Value] = []
        wire = [_argument(arg, key, held) for arg in args]
        options = {}
        for name, value in kwargs.items():
            key.append(name)
            options[name] = _argument(value, key, held)
        specs = _SHAPES.infer(tuple(key), op.name, op.call, args, kwargs)
        return self.write(op.name, wire, options, specs, _sources(held), line, len(key))

    def infer(self, name: str, call: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Specs:
        """Spec of what `call` would give, without recording it: places are not asked for their value."""
        specs = [getattr(arg, "spec", arg) for arg in args]
        key: list[Any] = [call, torch.get_default_dtype()]
        for spec in specs:
            _argument(spec, key, [])
        for option, value in kwargs.items():
            key.append(option)
            _argument(value, key, [])
        return _SHAPES.infer(tuple(key), name, call, specs, kwargs)

    def constant(self, tensor: torch.Tensor) -> Value:
        """A local tensor as it is now, with its strides. Raises InvalidInputError for what cannot travel."""
        check_constant(tensor)
        order = _memory_order(tensor)
        value = self.dense_constant(tensor if order is None else tensor.permute(order))
        if order is None:
            return value
        back = sorted(range(len(order)), key=order.__getitem__)
        permuted: Value = self.apply(operation("aten::permute"), (value, back), {})
        return permuted

    def dense_constant(self, tensor: torch.Tensor) -> Value:
        """A local tensor as it is now, contiguous on the node whatever its strides here."""
        check_constant(tensor)
        copy = tensor.detach().clone(memory_format=torch.contiguous_format)
        dtype, shape = DTYPES[copy.dtype].name, tuple(copy.shape)
        digest = graph.tensor_digest(dtype, shape, copy.reshape(-1).view(torch.uint8).numpy().data)
        value = self._constants.get(digest)
        if value is None:
            self.channel.constant(digest, copy)
            spec = Spec.dense(shape, copy.dtype)
            value = self._constants[digest] = self.write(graph.CONSTANT, [digest], {}, spec, _NO_SOURCES, None, 10)
            self._recent.append(value)
        return value

    def count(self, counted: Value) -> Value:
        """Number of rows of a value, or of a table: int64, without axes."""
        rows: Value = self.write("grid::count", [counted.ref], {}, Spec.dense((), torch.int64), counted.sources)
        return rows

    def aggregate(self, value: Value, kind: str, spec: Spec, other: Value | None, by: Value | None) -> Value:
        """An exact aggregate of whole columns; `spec` is that of the result."""
        named = {name: given for name, given in (("other", other), ("by", by)) if given is not None}
        sources = frozenset().union(value.sources, *(given.sources for given in named.values()))
        refs = {name: given.ref for name, given in named.items()}
        made: Value = self.write("grid::aggregate", [value.ref, kind], refs, spec, sources, arguments=4)
        return made

    def filled(self, shape: Sequence[int], fill: float | bool, dtype: torch.dtype) -> Value:
        """A value of one number everywhere, contiguous: one element travels."""
        value = self.constant(torch.full((), fill, dtype=dtype, device="cpu"))
        if shape:
            value = self.contiguous(self.apply(operation("aten::expand"), (value, list(shape)), {}))
        return value

    def contiguous(self, value: Value) -> Value:
        """The same elements, contiguous."""
        if value.spec.contiguous:
            return value
        copy: Value = self.apply(operation("aten::clone"), (value,), {"memory_format": torch.contiguous_format})
        return copy

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """The same elements in their order, with another shape; always contiguous."""
        if value.spec.shape == tuple(shape):
            return value
        viewed: Value = self.apply(operation("aten::view"), (self.contiguous(value), list(shape)), {})
        return viewed

    def laid_out(self, value: Value, spec: Spec) -> Value:
        """The same elements, lying in memory as those of `spec` (same shape), so that later views and the order of
        sums are what they are in local torch."""
        if value.spec is spec or value.spec.lies_as(spec.stride):
            return value
        order = sorted(range(len(spec.shape)), key=lambda axis: -spec.stride[axis])
        if order == list(range(len(order))):
            return self.contiguous(value)
        permute = operation("aten::permute")
        back = sorted(range(len(order)), key=order.__getitem__)
        dense = self.contiguous(self.apply(permute, (value, order), {}))
        restored: Value = self.apply(permute, (dense, back), {})
        return restored


def check_constant(tensor: torch.Tensor) -> None:
    """Raise InvalidInputError for a local tensor that cannot travel."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise InvalidInputError(
            f"A local tensor that meets a pointer is a dense one on the CPU; this one has layout {tensor.layout} on "
            f"{tensor.device}. Convert it with .to_dense() or .cpu() first."
        )
    if tensor.dtype not in DTYPES:
        allowed = ", ".join(dtype.name for dtype in DTYPES.values())
        raise InvalidInputError(f"A tensor of {tensor.dtype} cannot travel to a node; use one of {allowed}.")


def _argument(arg: Any, key: list[Any], held: list[Value]) -> Any:
    """An argument as on the wire. Appends to the memo's `key`, and to `held` the value that it names."""
    kind = type(arg)
    if kind is int or kind is bool or kind is str:
        key.append(kind)
        key.append(arg)
        return arg
    if kind is float:
        key.append(kind)
        return arg
    if arg is None:
        key.append(None)
        return None
    if kind is list or kind is tuple or kind is torch.Size:
        key.append(list)
        key.append(len(arg))
        if arg and type(arg[0]) is float:  # scale factors: shapes depend on them
            key.extend(arg)
        return [_argument(item, key, held) for item in arg]
    if kind is Spec:
        key.append(arg)
        return None
    if kind is torch.dtype:
        key.append(arg)
        if arg not in DTYPES:
            allowed = ", ".join(dtype.name for dtype in DTYPES.values())
            raise InvalidInputError(f"Values on a node have no dtype {arg}; use one of {allowed}.")
        return DTYPES[arg]
    if kind is torch.memory_format:
        key.append(arg)
        return str(arg).removeprefix("torch.")
    if hasattr(arg, "current"):
        value = arg.current()
        key.append(value.spec)
        held.append(value)
        return value.ref
    raise InvalidInputError(f"A {kind.__name__} cannot be an argument of a recorded operation.")


def _sources(held: list[Value]) -> frozenset[str]:
    sources = _NO_SOURCES
    for value in held:
        if value.sources is not sources:
            sources = value.sources if not sources else sources | value.sources
    return sources


def _memory_order(tensor: torch.Tensor) -> list[int] | None:
    """Order of axes in which a transposed tensor is contiguous; None when it is contiguous or never is."""
    if tensor.is_contiguous():
        return None
    order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride()[axis])
    return order if tensor.permute(order).is_contiguous() else None


def _program_too_long(limit: int) -> LimitExceededError:
    what = "operations" if limit == MAX_NODES else "bytes"
    return LimitExceededError(
        f"The program of this session has reached {limit} {what}. Connect again for a new session, "
        "and do it in smaller programs.",
        limit=limit,
    )
