"""The pointer: a tensor that records what is done with it and holds no value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from gridclient.recorder.places import Cell, Place, View
from gridclient.recorder.rewrites import DECOMPOSE, WRITTEN
from gridclient.recorder.rules import refusal, remote_value, rule_of
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value
from gridclient.wire.errors import DifferentNodesError, GridError, LimitExceededError, OperationNotAllowedError

MAX_ITERATED = 1_000
"""Rows that iterating over a pointer takes apart; more would be a program of its own for each row."""


class Pointer(torch.Tensor):
    """A value on a node. Computes like any tensor; `.get()` asks the node for the value.

    `.location` is the node, `.dataset` the name of the dataset that it shows or was computed from. A pointer to a
    dataset also has `.description`, `.tags`, `.columns`, `.bounds` and `.mock`.
    """

    _place: Place
    _info: Any

    @staticmethod
    def __new__(cls, place: Place, info: Any = None) -> Pointer:
        spec = place.spec
        made: Pointer = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, spec.shape, strides=spec.stride, dtype=spec.dtype, device="cpu"
        )
        made._place = place
        made._info = info
        return made

    def __init__(self, place: Place, info: Any = None) -> None:
        """All is done in `__new__`: torch makes the object."""

    # --- what is asked of the node ---

    def get(self) -> torch.Tensor:
        """The value, exactly, as a tensor on the CPU. Raises GetNotPermittedError, which carries `.request(reason=...)`."""
        value = self._place.current()
        found: torch.Tensor = value.tape.channel.get(value.ref, self)
        return found

    def request(self, reason: str) -> Any:
        """Ask the people who decide about the data for this value."""
        value = self._place.current()
        return value.tape.channel.request(value.ref, reason, self)

    def count(self) -> Pointer:
        """How many records are behind the rows, as a pointer: int64 []."""
        value = self._place.current()
        number = value.tape.write("grid::count", [value.ref], {}, Spec.dense((), torch.int64), value.sources)
        return Pointer(Cell(number))

    # --- what is known here ---

    @property
    def location(self) -> Any:
        """The node that holds the value."""
        return self._place.tape.channel

    @property
    def dataset(self) -> str:
        """Name of the dataset; of several, joined by commas; "" for a value of one's own."""
        return ", ".join(sorted(self._place.sources))

    @property
    def description(self) -> str:
        return str(self._known("description"))

    @property
    def tags(self) -> list[str]:
        found: list[str] = self._known("tags")
        return found

    @property
    def columns(self) -> list[str]:
        found: list[str] = self._known("columns")
        return found

    @property
    def bounds(self) -> Any:
        return self._known("bounds")

    @property
    def mock(self) -> Any:
        """Public rows that look alike."""
        return self._known("mock")

    def _known(self, name: str) -> Any:
        if self._info is None:
            raise AttributeError(
                f"{name} belongs to a dataset; this pointer was computed. Ask the pointer that it came from."
            )
        return getattr(self._info, name)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        source = f" from {self.dataset}" if self.dataset else ""
        return f"<Pointer {list(self.shape)} {dtype}{source} on {self.location.node_id}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        if spec:
            raise remote_value(f"format(pointer, {spec!r})")
        return repr(self)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.dim() == 0:
            raise TypeError("iteration over a 0-d tensor")
        if len(self) > MAX_ITERATED:
            raise LimitExceededError(
                f"Iterating takes at most {MAX_ITERATED} rows apart, and here are {len(self)}: compute on all rows at "
                "once instead.",
                limit=MAX_ITERATED,
            )
        return iter(self.unbind(0))

    # --- torch's ways in ---

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        refused = _REFUSED.get(func)
        if refused is not None:
            raise refused()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tape = _tape_of(args, kwargs, func)
        rule = rule_of(func)
        operands = [_operand(tape, arg) for arg in args]
        options = {name: _operand(tape, value) for name, value in kwargs.items()} if kwargs else kwargs
        result = rule(tape, operands, options)
        if result is WRITTEN:
            return args[0]
        if result is DECOMPOSE:
            parts = func.decompose(*args, **kwargs)
            if parts is NotImplemented:
                refusal(func.name())(tape, operands, options)
            return parts
        return _wrapped(result)

    # --- values that a pointer does not have ---

    def numpy(self, *, force: bool = False) -> NoReturn:
        raise remote_value("numpy()")

    def tolist(self) -> NoReturn:
        raise remote_value("tolist()")

    def item(self) -> NoReturn:
        raise remote_value("item()")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise remote_value("A conversion to numpy")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise remote_value("__dlpack__()")

    def __bool__(self) -> NoReturn:
        raise remote_value("A condition")

    def __index__(self) -> NoReturn:
        raise remote_value("An index")

    def __int__(self) -> NoReturn:
        raise remote_value("int()")

    def __float__(self) -> NoReturn:
        raise remote_value("float()")

    def __complex__(self) -> NoReturn:
        raise remote_value("complex()")

    def __contains__(self, element: Any) -> NoReturn:
        raise remote_value("`in`")

    def data_ptr(self) -> NoReturn:
        raise remote_value("data_ptr()")

    def untyped_storage(self) -> NoReturn:
        raise remote_value("untyped_storage()")

    def storage(self) -> NoReturn:
        raise remote_value("storage()")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise remote_value("Pickling")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise remote_value("copy.deepcopy()")


def _data_assigned() -> OperationNotAllowedError:
    # torch itself would crash the process.
    return OperationNotAllowedError(
        "Assigning to .data would mix a local tensor with a remote one; write into the pointer instead, as in x[:] = y.",
        operation="data",
    )


_REFUSED: dict[Any, Callable[[], GridError]] = {
    torch.tensor: lambda: remote_value("torch.tensor()"),
    torch.Tensor.data.__set__: _data_assigned,  # type: ignore[attr-defined]
}


def _tape_of(args: Any, kwargs: dict[str, Any], func: Any) -> Tape:
    """The one session that the operands belong to. Raises DifferentNodesError."""
    found: Tape | None = None
    for arg in _flat(args, kwargs):
        tape = arg._place.tape
        if found is None:
            found = tape
        elif tape is not found:
            raise DifferentNodesError(
                f"{func.name()} has operands on {found.channel.node_id} and on {tape.channel.node_id}: data do not move "
                "between nodes. .get() what may leave, then compute here."
            )
    if found is None:
        raise remote_value(func.name())
    return found


def _flat(args: Any, kwargs: dict[str, Any]) -> Iterator[Pointer]:
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Pointer):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from _flat(arg, {})


def _operand(tape: Tape, arg: Any) -> Any:
    if isinstance(arg, Pointer):
        return arg._place
    if isinstance(arg, torch.Tensor):
        return tape.constant(arg)
    if isinstance(arg, (list, tuple)):
        return [_operand(tape, item) for item in arg]
    return arg


def _wrapped(result: Any) -> Any:
    if isinstance(result, Value):
        return Pointer(Cell(result))
    if isinstance(result, (Cell, View)):
        return Pointer(result)
    if isinstance(result, (list, tuple)):
        return type(result)(_wrapped(item) for item in result)
    return result
