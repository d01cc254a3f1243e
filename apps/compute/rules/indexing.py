"""Rules of operations that find and write elements by index tensors.

Rows stay rows along an axis that no index touches. What is chosen along the entity axis is TAINTED, except whole rows
by one public index.
"""

from __future__ import annotations

from typing import NamedTuple

from apps.compute.labels import PUBLIC, ROWS, Call, Label, Operand, Shape, aligned, by_rows, tainted

_DATA = {
    "aten::searchsorted.Tensor": "self",
    "aten::bucketize.Tensor": "self",
    "aten::isin.Tensor_Tensor": "elements",
    "aten::take": "index",
}
"""The operand that is treated element by element; the others are tables."""


class Region(NamedTuple):
    """What a list of indices names: where the axes of the value that no index touches lie, and those of the indices."""

    shape: Shape
    places: dict[int, int]
    start: int
    indexed: Shape


def region(shape: Shape, indices: list[Operand | None]) -> Region:
    """The region of a value of this shape. The indices' axes stand where the first one stood, or first of all where
    untouched axes lie between."""
    touched = [axis for axis, index in enumerate(indices) if index is not None]
    given = [index.shape for index in indices if index is not None]
    rank = max(map(len, given), default=0)
    padded = [(1,) * (rank - len(extents)) + extents for extents in given]
    indexed = tuple(next((e for e in extents if e != 1), 1) for extents in zip(*padded, strict=True))
    together = bool(touched) and touched == list(range(touched[0], touched[-1] + 1))
    start = touched[0] if together else 0
    free = [axis for axis in range(len(shape)) if axis not in touched]
    places = {axis: place if place < start else place + rank for place, axis in enumerate(free)}
    extents = [shape[axis] for axis in free]
    return Region((*extents[:start], *indexed, *extents[start:]), places, start, indexed)


def taken(call: Call) -> Label:
    """index: other axes by public indices; whole rows by one public index; a public table by private positions."""
    value = call.operand("self")
    indices = call.args["indices"]
    given = [index for index in indices if index is not None]
    found = region(value.shape, indices)
    if value.label.kind == PUBLIC:
        axis = aligned(given, found.indexed)
        return tainted(call) if axis is None else by_rows(call, found.start + axis, [o.label for o in call.private()])
    if value.label.kind != ROWS or any(index.label.kind != PUBLIC for index in given):
        return tainted(call)
    axis = value.label.axis
    if axis in found.places:
        return by_rows(call, found.places[axis], [value.label])
    if len(given) != 1 or len(given[0].shape) != 1 or value.label.mask:
        return tainted(call)
    return by_rows(call, axis, [value.label], rows=("taken", given[0].lineage, value.label.rows))


def put(call: Call) -> Label:
    """index_put by public indices that leave the entity axis alone."""
    value, source = call.operand("self"), call.operand("values")
    found = region(value.shape, call.args["indices"])
    private = call.private()
    axes = {value.label.axis} if value.label.kind == ROWS else set()
    if source.label.kind != PUBLIC:
        place = aligned([source], found.shape)
        axes |= {axis for axis, there in found.places.items() if there == place} or {-1}
    labels = [operand.label for operand in private]
    known = [value, source]
    if len(axes) != 1 or not axes <= set(found.places) or len({label.rows for label in labels}) != 1:
        return tainted(call)
    if any(label.kind != ROWS for label in labels) or len(private) != sum(o.label.kind != PUBLIC for o in known):
        return tainted(call)
    return by_rows(call, axes.pop(), labels)


def gathered(call: Call) -> Label:
    """gather: each row by itself along another axis; a public table by private positions."""
    value, index = call.operand("self"), call.operand("index")
    public = value.label.kind == PUBLIC
    axis = aligned([index] if public else [value, index], call.outputs[0])
    if axis is None or (not public and axis == call.args["dim"] % max(len(value.shape), 1)):
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in call.private()])


def scattered(call: Call) -> Label:
    """scatter: each row by itself along another axis."""
    shape = call.outputs[0]
    axis = aligned(call.operands, shape)
    same = all(len(operand.shape) == len(shape) for operand in call.private())
    if axis is None or not same or axis == call.args["dim"] % len(shape):
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in call.private()])


def written(call: Call) -> Label:
    """index_add and its like by a public index, along another axis."""
    shape = call.outputs[0]
    axis = aligned(call.operands, shape)
    same = all(len(operand.shape) == len(shape) for operand in call.private())
    if axis is None or not same or axis == call.args["dim"] % len(shape):
        return tainted(call)
    if call.operand("index").label.kind != PUBLIC:
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in call.private()])


def placed(call: Call) -> Label:
    """Places in, or values of, a public table: each element by itself. A private table is TAINTED."""
    value = call.operand(_DATA[call.op])
    axis = aligned([value], call.outputs[0])
    if axis is None or len(call.private()) != 1 or value.label.kind == PUBLIC:
        return tainted(call)
    return by_rows(call, axis, [value.label])
