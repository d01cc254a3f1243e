"""Where a pointer's elements are: a cell of its own, or a view of another place.

Tensors that share memory in torch (`detach`, `.data`, slices, transposes) share one cell. A write gives the cell a new
value and a new version; a view keeps how it was made, and is derived again when the cell's version has moved.
"""

from __future__ import annotations

from typing import Any

from gridclient.recorder.lines import user_line
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Operation, Tape, Value, operation
from gridclient.wire.errors import OperationNotAllowedError


class Cell:
    """Memory of one value. `version` counts the writes."""

    __slots__ = ("spec", "tape", "value", "version")

    def __init__(self, value: Value) -> None:
        self.tape: Tape = value.tape
        self.value = value
        self.spec = value.spec
        self.version = 0

    @property
    def cell(self) -> Cell:
        return self

    @property
    def sources(self) -> frozenset[str]:
        return self.value.sources

    def current(self) -> Value:
        return self.value

    def write(self, value: Value) -> None:
        """Replace the value by one of the same shape and dtype."""
        self.value = self.tape.laid_out(value, self.spec)
        self.version += 1


class View:
    """Result of a view operation on `parent`, recorded when it is first needed."""

    __slots__ = ("_seen", "_value", "args", "cell", "line", "operation", "parent", "spec", "tape")

    def __init__(self, parent: Cell | View, made_by: Operation, args: tuple[Any, ...], spec: Spec) -> None:
        self.tape: Tape = parent.tape
        self.parent = parent
        self.cell: Cell = parent.cell
        self.operation = made_by
        self.args = args
        self.spec = spec
        self.line = user_line()
        self._seen = -1
        self._value: Value | None = None

    @property
    def sources(self) -> frozenset[str]:
        return self.cell.sources

    def current(self) -> Value:
        """The value as the cell is now."""
        if self._value is not None and self._seen == self.cell.version:
            return self._value
        place: Cell | View = self
        stale: list[View] = []
        while isinstance(place, View) and place._seen != place.cell.version:
            stale.append(place)
            place = place.parent
        value = place.current()
        for view in reversed(stale):
            value = view._value = self.tape.apply(view.operation, (value, *view.args), {}, view.line)
            view._seen = view.cell.version
        return value

    def write(self, value: Value) -> None:
        """Write through to the cell, as functional operations."""
        place: Cell | View = self
        while isinstance(place, View):
            value = _INVERSES[place.operation.name](place, value)
            place = place.parent
        place.write(value)


Place = Cell | View


def check_writable(place: object, name: str) -> Place:
    """Return `place` if an in-place operation may write to it. Raises OperationNotAllowedError."""
    if not isinstance(place, (Cell, View)):
        raise OperationNotAllowedError(
            f"{name} would write a remote value into a local tensor. Take the value with .get() first, or send the "
            "local tensor to the node with grid.send(tensor, node).",
            operation=name,
        )
    above: Cell | View = place
    while isinstance(above, View):
        if above.spec.overlaps:
            raise OperationNotAllowedError(
                f"{name} writes to an expanded tensor, whose elements share memory. Use .clone() before writing.",
                operation=name,
            )
        above = above.parent
    return place


def _select(view: View, value: Value) -> Value:
    written: Value = view.tape.apply(operation("aten::select_scatter"), (view.parent, value, *view.args), {})
    return written


def _slice(view: View, value: Value) -> Value:
    written: Value = view.tape.apply(operation("aten::slice_scatter"), (view.parent, value, *view.args), {})
    return written


def _diagonal(view: View, value: Value) -> Value:
    written: Value = view.tape.apply(operation("aten::diagonal_scatter"), (view.parent, value, *view.args), {})
    return written


def _same(view: View, value: Value) -> Value:
    """`t` and `transpose` are their own inverse."""
    written: Value = view.tape.apply(view.operation, (value, *view.args), {})
    return written


def _permute(view: View, value: Value) -> Value:
    axes = [axis % len(view.spec.shape) for axis in view.args[0]]
    back = sorted(range(len(axes)), key=axes.__getitem__)
    written: Value = view.tape.apply(operation("aten::permute"), (value, back), {})
    return written


def _reshape(view: View, value: Value) -> Value:
    return view.tape.reshaped(value, view.parent.spec.shape)


_INVERSES = {
    "aten::select.int": _select,
    "aten::slice.Tensor": _slice,
    "aten::diagonal": _diagonal,
    "aten::t": _same,
    "aten::transpose.int": _same,
    "aten::permute": _permute,
    "aten::view": _reshape,
    "aten::expand": _reshape,
    "aten::unsqueeze": _reshape,
    "aten::squeeze.dim": _reshape,
    "aten::squeeze.dims": _reshape,
}
VIEWS = frozenset(_INVERSES)
"""View operations that can be recorded: those whose writes can be undone."""
