"""Rules of operations that move, choose and join elements without computing with them."""

from __future__ import annotations

from math import prod

import msgspec

from apps.compute.labels import (
    PUBLIC,
    ROWS,
    Call,
    Label,
    Operand,
    Shape,
    Source,
    aligned,
    by_rows,
    narrowed_to,
    tainted,
)

MOST_STEPS = 2**14
"""Steps by which rows that are joined may have been chosen. Each join repeats those of its parts: what doubles
sixty times would never be read to its end."""


def moved(call: Call) -> Label:
    """transpose, t, permute: the axes move, nothing else."""
    return _renamed(call, call.operand("self"), {old: new for new, old in enumerate(order(call))})


def order(call: Call) -> list[int]:
    """For transpose, t and permute: the operand's axes as the output has them."""
    rank = len(call.operand("self").shape)
    if call.op == "aten::permute":
        return [axis % max(rank, 1) for axis in call.args["dims"]]
    first, second = (call.args["dim0"], call.args["dim1"]) if call.op == "aten::transpose.int" else (0, rank - 1)
    found = list(range(rank))
    if rank > 1:
        found[first % rank], found[second % rank] = found[second % rank], found[first % rank]
    return found


def unsqueezed(call: Call) -> Label:
    value = call.operand("self")
    dim = call.args["dim"] % (len(value.shape) + 1)
    return _renamed(call, value, {axis: axis + (axis >= dim) for axis in range(len(value.shape))})


def squeezed(call: Call) -> Label:
    """An axis of one element disappears; where it was the entity axis nothing tells people apart any more."""
    value = call.operand("self")
    rank = len(value.shape)
    dim = call.args["dim"]
    dims = {axis % max(rank, 1) for axis in (dim if isinstance(dim, list) else [dim])}
    kept = [axis for axis in range(rank) if axis not in dims or value.shape[axis] != 1]
    return _renamed(call, value, {old: new for new, old in enumerate(kept)})


def reshaped(call: Call) -> Label:
    """view: ROWS where the entity axis is still an axis of its own."""
    value = call.operand("self")
    if value.label.kind == ROWS and value.shape != call.outputs[0]:
        axis = kept_axis(value.shape, value.label.axis, call.outputs[0])
        return tainted(call) if axis is None else by_rows(call, axis, [value.label])
    return _renamed(call, value, {axis: axis for axis in range(len(value.shape))})


def kept_axis(before: Shape, axis: int, after: Shape) -> int | None:
    """Where `axis` lies after a reshape: as many elements before it and behind it, and the same extent; else None."""
    for place, extent in enumerate(after):
        if (
            extent == before[axis]
            and prod(after[:place]) == prod(before[:axis])
            and prod(after[place + 1 :]) == prod(before[axis + 1 :])
        ):
            return place
    return None


def expanded(call: Call) -> Label:
    """The entity axis is never repeated."""
    value = call.operand("self")
    axis = aligned([value], call.outputs[0])
    if axis is None:
        return tainted(call)
    return value.label if value.shape == call.outputs[0] else by_rows(call, axis, [value.label])


def selected(call: Call) -> Label:
    """select: one column of many is still rows; one row is one person."""
    value = call.operand("self")
    dim = call.args["dim"] % max(len(value.shape), 1)
    places = {axis: axis - (axis > dim) for axis in range(len(value.shape)) if axis != dim}
    label = _renamed(call, value, places, source=False)
    source = value.label.source
    if label.kind == ROWS and source is not None and source.axis == dim:
        return _narrowed(label, source, (source.columns[call.args["index"]],), None)
    return label


def sliced(call: Call) -> Label:
    """slice: some of the columns, or some of the rows, which are then a sequence of their own."""
    value = call.operand("self")
    label, source = value.label, value.label.source
    dim = call.args["dim"] % max(len(value.shape), 1)
    if label.kind != ROWS:
        return tainted(call)
    start, stop, step = slice(call.args["start"], call.args["end"], call.args["step"]).indices(value.shape[dim])
    if value.shape == call.outputs[0] and step == 1:
        return label
    if dim == label.axis:
        return _fewer_rows(call, value, ("slice", start, stop, step))
    if source is not None and source.axis == dim:
        return _narrowed(label, source, source.columns[start:stop:step], dim)
    return msgspec.structs.replace(label, source=None)


def flipped(call: Call) -> Label:
    value = call.operand("self")
    rank = max(len(value.shape), 1)
    dims = {dim % rank for dim in call.args["dims"]}
    if value.label.kind != ROWS:
        return tainted(call)
    if value.label.axis in dims:
        return _fewer_rows(call, value, ("flip",))
    return by_rows(call, value.label.axis, [value.label]) if dims else value.label


def indexed(call: Call) -> Label:
    """index_select by a public index; or a public table looked up by private codes, each row by itself."""
    value, index = call.operand("self"), call.operand("index")
    dim = call.args["dim"] % max(len(value.shape), 1)
    if value.label.kind == PUBLIC and index.label.kind == ROWS and value.shape and len(index.shape) == 1:
        return by_rows(call, dim, [index.label])
    if value.label.kind != ROWS or index.label.kind != PUBLIC:
        return tainted(call)
    if dim == value.label.axis:
        return _fewer_rows(call, value, ("index", index.lineage))
    return by_rows(call, value.label.axis, [value.label])


def joined(call: Call) -> Label:
    """cat and stack: side by side like a pointwise operation; one below the other where all parts are rows."""
    parts = call.tensors("tensors")
    rank = len(call.outputs[0])
    # cat skips one-dimensional empty parts whatever their rank: nothing lines up then.
    if call.op == "aten::cat" and any(len(part.shape) != rank for part in parts):
        return tainted(call)
    dim = call.args["dim"] % max(rank, 1)
    labels = [part.label for part in parts if part.label.kind == ROWS]
    if len(labels) != len(call.private()) or len({label.axis for label in labels}) != 1:
        return tainted(call)
    axis = labels[0].axis
    if call.op == "aten::stack":
        axis += dim <= axis
    elif dim == axis:
        rows = ("cat", *(label.rows for label in labels))
        if len(labels) != len(parts) or any(label.mask for label in labels) or _long(rows):
            return tainted(call)
        return by_rows(call, axis, labels, rows=rows)
    return tainted(call) if len({label.rows for label in labels}) != 1 else by_rows(call, axis, labels)


def _long(rows: tuple[object, ...]) -> bool:
    """Whether a sequence of rows was made in more than `MOST_STEPS` steps; looks at no more than these."""
    todo, steps = [rows], 0
    while todo and steps <= MOST_STEPS:
        steps += 1
        todo += [part for part in todo.pop() if isinstance(part, tuple)]
    return bool(todo)


def scattered(call: Call) -> Label:
    """select_scatter, slice_scatter: part of each row is overwritten. Overwriting rows is TAINTED."""
    value, source = call.operand("self"), call.operand("src")
    dim = call.args["dim"] % max(len(value.shape), 1)
    if call.op == "aten::select_scatter":
        # The written part has no axis `dim`: give it one of a single element, on which nothing else lies.
        label = source.label
        if label.kind == ROWS:
            label = msgspec.structs.replace(label, axis=label.axis + (label.axis >= dim))
        source = Operand(label, (*source.shape[:dim], 1, *source.shape[dim:]), source.dtype)
    axis = aligned([value, source], value.shape)
    if axis is None or axis == dim or len(source.shape) != len(value.shape):
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in call.private()])


def rolled(call: Call) -> Label:
    """roll: without `dims` the elements move across all axes."""
    value = call.operand("self")
    dims = [dim % max(len(value.shape), 1) for dim in _several(call.args["dims"])]
    if value.label.kind != ROWS or (not dims and len(value.shape) != 1):
        return tainted(call)
    if dims and value.label.axis not in dims:
        return by_rows(call, value.label.axis, [value.label])
    moves = zip(dims or [0], _several(call.args["shifts"]), strict=True)
    shift = sum(shift for dim, shift in moves if dim == value.label.axis)
    return _fewer_rows(call, value, ("roll", shift))


def rotated(call: Call) -> Label:
    """rot90: turns the plane of two axes; ROWS where neither is the entity axis."""
    value = call.operand("self")
    dims = {dim % max(len(value.shape), 1) for dim in call.args["dims"]}
    if value.label.kind != ROWS or value.label.axis in dims:
        return tainted(call)
    return by_rows(call, value.label.axis, [value.label])


def repeated(call: Call) -> Label:
    """repeat: other axes, as often as wanted; the entity axis once."""
    value, repeats = call.operand("self"), call.args["repeats"]
    axis = value.label.axis + len(repeats) - len(value.shape)
    if value.label.kind != ROWS or repeats[axis] != 1:
        return tainted(call)
    return by_rows(call, axis, [value.label])


def diagonal(call: Call) -> Label:
    """diagonal: two axes become one, the last; ROWS where neither was the entity axis."""
    value = call.operand("self")
    kept = _without_plane(call, len(value.shape))
    if value.label.kind != ROWS or value.label.axis not in kept:
        return tainted(call)
    return by_rows(call, kept.index(value.label.axis), [value.label])


def on_diagonal(call: Call) -> Label:
    """diagonal_scatter: within each row."""
    value, source = call.operand("self"), call.operand("src")
    kept = _without_plane(call, len(value.shape))
    found = {
        kept[operand.label.axis] if operand is source and operand.label.axis < len(kept) else operand.label.axis
        for operand in call.private()
        if operand.label.kind == ROWS
    }
    if source.label.kind == ROWS and source.label.axis >= len(kept):
        return tainted(call)
    rows = {operand.label.rows for operand in call.private()}
    if len(found) != 1 or len(rows) != 1 or any(operand.label.kind != ROWS for operand in call.private()):
        return tainted(call)
    axis = found.pop()
    return by_rows(call, axis, [o.label for o in call.private()]) if axis in kept else tainted(call)


def embedded(call: Call) -> Label:
    """diag_embed: the last axis becomes a diagonal over two; ROWS where it was not the entity axis."""
    value = call.operand("self")
    kept = _without_plane(call, len(call.outputs[0]))
    if value.label.kind != ROWS or value.label.axis >= len(value.shape) - 1:
        return tainted(call)
    return by_rows(call, kept[value.label.axis], [value.label])


def unfolded(call: Call) -> Label:
    """unfold: windows along another axis than the entities'."""
    value = call.operand("self")
    if value.label.kind != ROWS or value.label.axis == call.args["dimension"] % max(len(value.shape), 1):
        return tainted(call)
    return by_rows(call, value.label.axis, [value.label])


def _without_plane(call: Call, rank: int) -> list[int]:
    plane = {call.args["dim1"] % rank, call.args["dim2"] % rank}
    return [axis for axis in range(rank) if axis not in plane]


def _several(given: int | list[int]) -> list[int]:
    return given if isinstance(given, list) else [given]


def _renamed(call: Call, value: Operand, places: dict[int, int], *, source: bool = True) -> Label:
    """`places` says where each axis lies now; one that is missing is gone."""
    label = value.label
    if label.kind != ROWS or label.axis not in places:
        return tainted(call)
    kept = label.source if source else None
    if kept is not None and kept.axis is not None:
        # Gone is only an axis of one element: there is one column.
        kept = msgspec.structs.replace(kept, axis=places.get(kept.axis))
    return msgspec.structs.replace(label, axis=places[label.axis], source=kept)


def _narrowed(label: Label, source: Source, columns: tuple[str, ...], axis: int | None) -> Label:
    """The label of fewer columns of a source, which lie on `axis` now (None: one column without an axis)."""
    version = (source.dataset, source.version)
    inputs = narrowed_to(label, version, columns)
    return msgspec.structs.replace(label, inputs=inputs, source=Source(*version, columns, axis))


def _fewer_rows(call: Call, value: Operand, how: tuple[object, ...]) -> Label:
    """Rows chosen or reordered publicly: each slice still depends on one row, but of another sequence."""
    if value.label.mask:
        # The presence flags would have to be chosen alike.
        return tainted(call)
    return by_rows(call, value.label.axis, [value.label], rows=(*how, value.label.rows))
