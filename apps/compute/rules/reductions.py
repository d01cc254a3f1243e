"""Rules of operations that reduce or order along axes."""

from __future__ import annotations

from typing import Any

from apps.compute.labels import (
    AGG,
    ROWS,
    Answer,
    Call,
    Label,
    Operand,
    answer,
    by_rows,
    narrowed_to,
    tainted,
    tainted_answer,
    total,
)
from apps.compute.rules.pointwise import exact

SUMMABLE = {None, "float32", "float64", "int64"}
"""dtypes of a sum that may be called one: a narrower one would wrap or overflow."""


def reduced(value: Operand, dim: Any) -> set[int]:
    """The axes that `dim` names: None and an empty list mean all."""
    rank = len(value.shape)
    if dim is None or dim == [] or rank == 0:
        return set(range(rank))
    return {axis % rank for axis in (dim if isinstance(dim, list) else [dim])}


def within_rows(call: Call) -> Label | list[Label]:
    """max, var, ...: each row by itself along any other axis, TAINTED along the entity axis. All outputs alike."""
    value = call.operand("self")
    label = tainted(call)
    if value.label.kind == ROWS:
        dims = reduced(value, call.args.get("dim"))
        if value.label.axis not in dims:
            label = by_rows(call, _axis_after(call, value, dims), [value.label])
    return [label] * len(call.outputs)


def variances(call: Call) -> Label | list[Label]:
    """var: as `within_rows`; over the entity axis of a source, divided by n - 1, it is of the closed set."""
    value = call.operand("self")
    label = value.label
    dims = reduced(value, call.args["dim"])
    alone = all(value.shape[axis] == 1 for axis in dims - {label.axis})
    if label.kind != ROWS or label.axis not in dims or label.mask or not alone:
        return within_rows(call)
    return tainted_answer(call, answer("variance", label.source) if call.args["correction"] in (None, 1) else None)


def ordered(call: Call) -> list[Label]:
    """sort, topk, cumsum: no axis disappears, so that the entity axis stays where it is. All outputs alike."""
    value = call.operand("self")
    label = tainted(call)
    if value.label.kind == ROWS and value.label.axis not in reduced(value, call.args["dim"]):
        label = by_rows(call, value.label.axis, [value.label])
    return [label] * len(call.outputs)


def sums(call: Call) -> Label:
    """sum: AGG over the entity axis; a member of the closed set where a source is summed over its rows alone."""
    return _additive(call, "sum")


def means(call: Call) -> Label:
    """mean: the sum divided by the public n; with private n, by the number of records (closed set only)."""
    return _additive(call, "mean")


def totals(call: Call) -> Label:
    """nansum, count_nonzero: AGG over the entity axis, and never of the closed set."""
    value = call.operand("self")
    if value.label.kind != ROWS or call.args.get("dtype") not in SUMMABLE:
        return tainted(call)
    dims = reduced(value, call.args.get("dim"))
    if value.label.axis not in dims:
        return by_rows(call, _axis_after(call, value, dims), [value.label])
    return total(call)


def renormed(call: Call) -> Label:
    """renorm: along the entity axis each row by itself; along another one, rows share a norm."""
    value = call.operand("self")
    if value.label.kind != ROWS or call.args["dim"] % len(value.shape) != value.label.axis:
        return tainted(call)
    return by_rows(call, value.label.axis, [value.label])


def counts(call: Call) -> Label:
    """grid::count: how many records stand behind a value. It depends on no column, unless there are null records."""
    label = call.operand("self").label
    if label.kind != ROWS:
        return tainted(call)
    source = label.source
    if source is None:
        return total(call)
    version = (source.dataset, source.version)
    return Label(AGG, narrowed_to(label, version, ()), closed=Answer("count", *version, ()))


def _additive(call: Call, kind: str) -> Label:
    value = call.operand("self")
    label = value.label
    if call.args.get("dtype") not in SUMMABLE:
        return tainted(call)
    unchanged = exact(value.dtype, call.args.get("dtype"))
    if label.kind != ROWS:
        return tainted(call)
    dims = reduced(value, call.args.get("dim"))
    if label.axis not in dims:
        return by_rows(call, _axis_after(call, value, dims), [label])
    closed = None
    # Reducing an axis of one element besides the entity axis adds nothing up.
    # A cast to integers before the sum would be arithmetic on rows.
    if label.source is not None and unchanged and all(value.shape[axis] == 1 for axis in dims - {label.axis}):
        closed = answer(kind, label.source)
    if kind == "mean" and label.mask and closed is None:
        # A ratio of two sums over people, and not of the closed set.
        return tainted(call)
    return total(call, closed)


def _axis_after(call: Call, value: Operand, dims: set[int]) -> int:
    """Where the entity axis lies once `dims` are reduced."""
    axis = value.label.axis
    return axis if call.args.get("keepdim") else axis - sum(dim < axis for dim in dims)


def presence(call: Call) -> tuple[int, frozenset[tuple[str, int]]] | None:
    """For sum, mean and count over the entity axis of padded rows: that axis, and whose presence flags count."""
    value = call.operand("self")
    label = value.label
    if label.kind != ROWS or not label.mask:
        return None
    if "dim" in call.args and label.axis not in reduced(value, call.args["dim"]):
        return None
    return label.axis, label.mask
