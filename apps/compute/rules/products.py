"""Rules of matrix products: rows pass through the free axes, and are summed where the entity axis is contracted."""

from __future__ import annotations

from apps.compute.labels import PUBLIC, ROWS, Call, Label, Operand, aligned, by_rows, tainted, total


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
        return total(call)
    return by_rows(call, place, [operand.label for operand in private])


def mm(call: Call) -> Label:
    return _product(
        call, call.operand("self"), call.operand("mat2"), {(0, 0): 0, (0, 1): None, (1, 0): None, (1, 1): 1}
    )


def mv(call: Call) -> Label:
    return _product(call, call.operand("self"), call.operand("vec"), {(0, 0): 0, (0, 1): None, (1, 0): None})


def dot(call: Call) -> Label:
    return _product(call, call.operand("self"), call.operand("tensor"), {(0, 0): None, (1, 0): None})


def bmm(call: Call) -> Label:
    return _product(
        call,
        call.operand("self"),
        call.operand("mat2"),
        {(0, 0): 0, (1, 0): 0, (0, 1): 1, (0, 2): None, (1, 1): None, (1, 2): 2},
    )


def addmm(call: Call) -> Label:
    """A product and a term added to it; a total with anything added is no longer one."""
    added, left, right = call.operand("self"), call.operand("mat1"), call.operand("mat2")
    product = Operand(
        Label(PUBLIC)
        if left.label.kind == right.label.kind == PUBLIC
        else _product(call, left, right, {(0, 0): 0, (0, 1): None, (1, 0): None, (1, 1): 1}),
        call.outputs[0],
        left.dtype,
    )
    axis = aligned([added, product], call.outputs[0])
    if axis is None:
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in (added, product) if operand.label.kind == ROWS])
