"""Rules of matrix products: rows pass through the free axes, and are summed where the entity axis is contracted."""

from __future__ import annotations

from apps.compute.labels import PUBLIC, ROWS, Answer, Call, Label, Operand, aligned, answer, by_rows, tainted, total
from apps.compute.rules.reductions import SUMMABLE

MOMENTS = frozenset({"aten::mm", "aten::mv", "aten::dot", "aten::vdot"})


def _product(call: Call, left: Operand, right: Operand, axes: dict[tuple[int, int], int | None]) -> Label:
    """`axes` maps (operand, axis) to the output's axis; None for a contracted one.

    With one private operand its entity axis decides. With two, both must lie on the same place, with the same rows.
    """
    places = [
        axes.get((side, operand.label.axis), -1)
        for side, operand in enumerate((left, right))
        if operand.label.kind == ROWS
    ]
    private = [operand for operand in (left, right) if operand.label.kind != PUBLIC]
    if len(places) != len(private) or len(set(places)) != 1 or len({operand.label.rows for operand in private}) != 1:
        return tainted(call)
    place = places[0]
    if place == -1:
        return tainted(call)
    if place is None:
        return total(call, _moment(call, left, right))
    return by_rows(call, place, [operand.label for operand in private])


def _moment(call: Call, left: Operand, right: Operand) -> Answer | None:
    """x.T @ y of declared columns is of the closed set."""
    if call.op not in MOMENTS or left.dtype not in SUMMABLE or left.label.source is None or right.label.source is None:
        return None
    return answer("product", left.label.source, others=right.label.source)


def mm(call: Call) -> Label:
    return _product(
        call, call.operand("self"), call.operand("mat2"), {(0, 0): 0, (0, 1): None, (1, 0): None, (1, 1): 1}
    )


def mv(call: Call) -> Label:
    return _product(call, call.operand("self"), call.operand("vec"), {(0, 0): 0, (0, 1): None, (1, 0): None})


def dot(call: Call) -> Label:
    return _product(
        call,
        call.operand("self"),
        call.operand("tensor" if "tensor" in call.args else "other"),
        {(0, 0): None, (1, 0): None},
    )


def bmm(call: Call) -> Label:
    return _product(
        call,
        call.operand("self"),
        call.operand("mat2"),
        {(0, 0): 0, (1, 0): 0, (0, 1): 1, (0, 2): None, (1, 1): None, (1, 2): 2},
    )


def addmm(call: Call) -> Label:
    """A product and a term added to it; a total with anything added is no longer one."""
    return _added(call, "mat1", "mat2", {(0, 0): 0, (0, 1): None, (1, 0): None, (1, 1): 1})


def addmv(call: Call) -> Label:
    """As addmm, with a vector."""
    return _added(call, "mat", "vec", {(0, 0): 0, (0, 1): None, (1, 0): None})


def addr(call: Call) -> Label:
    """As addmm: each element of the product has one factor of each vector."""
    return _added(call, "vec1", "vec2", {(0, 0): 0, (1, 0): 1})


def baddbmm(call: Call) -> Label:
    """As addmm, for many matrices."""
    return _added(call, "batch1", "batch2", {(0, 0): 0, (1, 0): 0, (0, 1): 1, (0, 2): None, (1, 1): None, (1, 2): 2})


def _added(call: Call, first: str, second: str, axes: dict[tuple[int, int], int | None]) -> Label:
    added, left, right = call.operand("self"), call.operand(first), call.operand(second)
    public = left.label.kind == right.label.kind == PUBLIC
    label = Label(PUBLIC) if public else _product(call, left, right, axes)
    product = Operand(label, call.outputs[0], left.dtype)
    axis = aligned([added, product], call.outputs[0])
    if axis is None:
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in (added, product) if operand.label.kind == ROWS])


def distances(call: Call) -> Label:
    """cdist: rows of one operand with public rows of the other; pairs within a batch. Each row's own features only."""
    left, right = call.operand("x1"), call.operand("x2")
    rank = len(call.outputs[0])
    if len(left.shape) != rank or len(right.shape) != rank or left.shape[:-2] != right.shape[:-2]:
        return tainted(call)
    axes: dict[tuple[int, int], int | None] = {(side, axis): axis for side in (0, 1) for axis in range(rank - 2)}
    label = _product(call, left, right, axes | {(0, rank - 2): rank - 2, (1, rank - 2): rank - 1})
    return label if label.kind == ROWS else tainted(call)


def crossed(call: Call) -> Label:
    """cross: three elements along `dim` belong together; everything else is element by element."""
    axis = aligned(call.operands, call.outputs[0])
    if axis is None or axis == call.args["dim"] % len(call.outputs[0]):
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in call.private()])


def by_matrix(call: Call) -> list[Label]:
    """Linear algebra on many matrices: each matrix by itself. All outputs alike; within a matrix TAINTED."""
    label = tainted(call)
    value = call.operands[0]
    if len(call.operands) == 1 and value.label.kind == ROWS and value.label.axis < len(value.shape) - 2:
        label = by_rows(call, value.label.axis, [value.label])
    return [label] * len(call.outputs)
