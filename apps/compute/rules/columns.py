"""Which declared columns a value depends on: narrowed where a program publicly chooses some of them.

A value has `Columns` along an axis where each slice depends on one declared column, and on nothing else that is
private. Choosing slices then chooses columns. Operations that aren't named here lose the axis and narrow nothing.
"""

from __future__ import annotations

import msgspec

from apps.compute.labels import PUBLIC, Call, Columns, Dependence, Label, Operand
from apps.compute.rules import layout, pointwise, reductions

MOVES = frozenset({"aten::t", "aten::transpose.int", "aten::permute"})
ELEMENTWISE = frozenset({pointwise.pointwise, pointwise.cast, pointwise.clone})
ALONG_OTHERS = frozenset({reductions.ordered, pointwise.softmax, layout.flipped, layout.indexed})
REDUCTIONS = frozenset({reductions.sums, reductions.means, reductions.within_rows, reductions.variances})


def narrowed(call: Call, rule: object, labels: list[Label]) -> list[Label]:
    """The labels that `rule` gave for the outputs, with their column axis, and with the columns chosen by the call."""
    found = _after(call, rule)
    return [label if label.kind == PUBLIC else _with(label, found) for label in labels]


def _with(label: Label, found: Columns | None) -> Label:
    if found is None:
        return label if label.columns is None else msgspec.structs.replace(label, columns=None)
    inputs = frozenset([Dependence(found.dataset, found.version, frozenset(found.names))])
    # One column without an axis of its own: its name is in the inputs.
    return msgspec.structs.replace(
        label, inputs=label.inputs if found.padded else inputs, columns=None if found.axis is None else found
    )


def _after(call: Call, rule: object) -> Columns | None:
    if rule in ELEMENTWISE:
        return _aligned(call)
    value = call.args.get("self")
    if not isinstance(value, Operand) or value.label.columns is None or len(call.private()) != 1:
        return None
    columns = value.label.columns
    axis, rank = columns.axis, len(value.shape)
    if axis is None:
        return None
    if call.op in MOVES:
        return _at(columns, layout.order(call).index(axis))
    if rule is layout.unsqueezed:
        return _at(columns, axis + (axis >= call.args["dim"] % (rank + 1)))
    if rule is layout.selected:
        dim, index = call.args["dim"] % rank, call.args["index"]
        return _chosen(columns, (columns.names[index],), None) if dim == axis else _at(columns, axis - (axis > dim))
    if rule is layout.sliced:
        if call.args["dim"] % rank != axis:
            return columns
        place = slice(call.args["start"], call.args["end"], call.args["step"])
        return _chosen(columns, columns.names[place], axis)
    if rule in REDUCTIONS or rule in ALONG_OTHERS:
        dims = reductions.reduced(value, call.args["dims"] if "dims" in call.args else call.args.get("dim"))
        if axis in dims:
            return None
        gone = rule in REDUCTIONS and not call.args.get("keepdim")
        return _at(columns, axis - sum(dim < axis for dim in dims) if gone else axis)
    return None


def _aligned(call: Call) -> Columns | None:
    """Element by element: the column axes of all private operands lie on one axis, with the same columns."""
    shape = call.outputs[0]
    found: set[Columns | None] = set()
    for label, extents, _, _ in call.private():
        columns = label.columns
        if columns is None or columns.axis is None:
            return None
        place = columns.axis + len(shape) - len(extents)
        found.add(_at(columns, place) if shape[place] == extents[columns.axis] else None)
    return found.pop() if len(found) == 1 else None


def _at(columns: Columns, axis: int) -> Columns:
    return msgspec.structs.replace(columns, axis=axis)


def _chosen(columns: Columns, names: tuple[str, ...], axis: int | None) -> Columns:
    return msgspec.structs.replace(columns, names=names, axis=axis)
