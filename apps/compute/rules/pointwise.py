"""Rules of operations that treat each element (or each slice) by itself."""

from __future__ import annotations

from apps.compute.labels import NOTHING, ROWS, Call, Label, aligned, by_rows, tainted

EXACT_CASTS = {
    "bool": {"float16", "bfloat16", "float32", "float64", "int64", "int32"},
    "uint8": {"float16", "float32", "float64", "int64", "int32"},
    "int8": {"float16", "float32", "float64", "int64", "int32"},
    "int16": {"float32", "float64", "int64", "int32"},
    "int32": {"float64", "int64"},
    "int64": {"float64"},  # rounds beyond 2**53, which no bounded column of integers reaches
    "float16": {"float32", "float64"},
    "bfloat16": {"float32", "float64"},
    "float32": {"float64"},
    "float64": set(),
}
"""Casts that leave a declared column what it is."""


def pointwise(call: Call) -> Label:
    """ROWS where the entity axes of all private operands are one axis with the same rows, after broadcasting."""
    axis = aligned(call.operands, call.outputs[0])
    if axis is None:
        return tainted(call)
    return by_rows(call, axis, [operand.label for operand in call.private()])


def clone(call: Call) -> Label:
    """The same value again."""
    return call.operand("self").label


def exact(before: str, after: str | None) -> bool:
    """Whether a cast to `after` (None: none) keeps every value."""
    return after is None or after == before or after in EXACT_CASTS.get(before, ())


def cast(call: Call) -> Label:
    """A cast is a map; one that keeps every value leaves a source what it is."""
    value = call.operand("self")
    if value.label.kind == ROWS and exact(value.dtype, call.args["dtype"]):
        return value.label
    return value.label if call.args["dtype"] in (None, value.dtype) else pointwise(call)


def like(call: Call) -> Label:
    """Depends on nothing but the shape, which is public."""
    return NOTHING


def softmax(call: Call) -> Label:
    """Normalises along `dim`: each row by itself, unless that is the entity axis."""
    value = call.operand("self")
    if value.label.kind != ROWS or call.args["dim"] % max(len(value.shape), 1) == value.label.axis:
        return tainted(call)
    return by_rows(call, value.label.axis, [value.label])
