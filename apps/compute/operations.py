"""The table of operations: one row of rules for every name in `gridclient.program.operations`, held equal by a test.

A row says which label the result gets, what it costs and how it reads. The ATen overload behind a name and its total
form are in `targets.py`, for workers: this module needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2, prod

from apps.compute.labels import Shape
from apps.compute.rules import Rule, composite, layout, pointwise, products, reductions

Cost = Callable[[list[Shape], list[Shape]], int]


def per_output(operands: list[Shape], outputs: list[Shape]) -> int:
    """One operation for each element of the result."""
    return sum(map(prod, outputs))


def per_input(operands: list[Shape], outputs: list[Shape]) -> int:
    """One operation for each element of the operands."""
    return sum(map(prod, operands)) + sum(map(prod, outputs))


def several(operands: list[Shape], outputs: list[Shape]) -> int:
    """A transcendental function, or a few passes, for each element."""
    return 10 * per_input(operands, outputs)


def comparing(operands: list[Shape], outputs: list[Shape]) -> int:
    """n log n comparisons."""
    return sum(int(prod(shape) * (1 + log2(max(prod(shape), 1)))) for shape in operands)


def multiplying(operands: list[Shape], outputs: list[Shape]) -> int:
    """Two for each pair that is multiplied and added; the second to last operand has the contracted axis last."""
    contracted = operands[-2][-1] if len(operands) > 1 and operands[-2] else 1
    return 2 * contracted * sum(map(prod, outputs)) + per_input(operands, outputs)


def nothing(operands: list[Shape], outputs: list[Shape]) -> int:
    """Another view of the same bytes."""
    return 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. `words` is filled with the arguments by the schema's names.

    `rule` None: TAINTED where an operand is private. `chooses`: it can pick out rows, which a reviewer looks at first.
    `probe`: what kernels refuse by dtype is found out on tiny values before anything runs, because meta tensors do
    not tell.
    """

    name: str
    rule: Rule | None
    cost: Cost
    words: str
    chooses: bool = False
    probe: bool = False


def _aten(
    rule: Rule | None, cost: Cost, names: dict[str, str], *, chooses: bool = False, probe: bool = False
) -> list[Operation]:
    return [Operation(f"aten::{name}", rule, cost, words, chooses, probe) for name, words in names.items()]


_ARITHMETIC = {
    "add.Tensor": "{self} + {other}",
    "sub.Tensor": "{self} - {other}",
    "rsub.Scalar": "{other} - {self}",
    "mul.Tensor": "{self} × {other}",
    "div.Tensor": "{self} / {other}",
    "neg": "-{self}",
    "abs": "absolute value of {self}",
    "sign": "sign of {self}",
    "relu": "{self}, negative values made 0",
    "floor": "{self} rounded down",
    "ceil": "{self} rounded up",
    "round": "{self} rounded",
    "reciprocal": "1 / {self}",
    "isnan": "is {self} not a number?",
    "isfinite": "is {self} finite?",
    "clamp": "{self} clipped to [{min}, {max}]",
    "clamp.Tensor": "{self} clipped to [{min}, {max}]",
    "clamp_min": "{self}, at least {min}",
    "clamp_max": "{self}, at most {max}",
    "minimum": "the smaller of {self} and {other}",
    "maximum": "the larger of {self} and {other}",
    "logical_and": "{self} and {other}",
    "logical_or": "{self} or {other}",
    "logical_not": "not {self}",
    "bitwise_and.Tensor": "{self} and {other}, bit by bit",
    "bitwise_or.Tensor": "{self} or {other}, bit by bit",
    "bitwise_not": "not {self}, bit by bit",
}
_FUNCTIONS = {
    "pow.Tensor_Scalar": "{self} to the power {exponent}",
    "pow.Tensor_Tensor": "{self} to the power {exponent}",
    "pow.Scalar": "{self} to the power {exponent}",
    "exp": "e to the power {self}",
    "log": "natural logarithm of {self}",
    "log1p": "natural logarithm of 1 + {self}",
    "sqrt": "square root of {self}",
    "rsqrt": "1 / square root of {self}",
    "sin": "sine of {self}",
    "cos": "cosine of {self}",
    "tanh": "tanh of {self}",
    "sigmoid": "sigmoid of {self}",
}
_COMPARISONS = {
    f"{name}.{kind}": f"is {{self}} {sign} {{other}}?"
    for name, sign in {"eq": "=", "ne": "≠", "lt": "<", "le": "≤", "gt": ">", "ge": "≥"}.items()
    for kind in ("Tensor", "Scalar")
}
_CONDITION = {"where.self": "{self} where {condition}, else {other}"}
_FILLED = {"zeros_like": "zeros", "ones_like": "ones", "full_like": "{fill_value} everywhere"}
_SUMS = {"sum": "sum of {self}", "sum.dim_IntList": "sum of {self} along {dim}"}
_MEANS = {"mean": "mean of {self}", "mean.dim": "mean of {self} along {dim}"}
_WITHIN = {
    "var.correction": "variance of {self} along {dim}",
    "std.correction": "standard deviation of {self} along {dim}",
    "amax": "largest of {self} along {dim}",
    "amin": "smallest of {self} along {dim}",
    "max": "largest of {self}",
    "max.dim": "largest of {self} along {dim}, and where",
    "min": "smallest of {self}",
    "min.dim": "smallest of {self} along {dim}, and where",
    "argmax": "where {self} is largest along {dim}",
    "argmin": "where {self} is smallest along {dim}",
    "median": "median of {self}",
    "median.dim": "median of {self} along {dim}, and where",
}
_ORDERED = dict.fromkeys(("sort", "sort.stable"), "{self} sorted along {dim}, and from where")
_SOFTMAX = {"_softmax": "softmax of {self} along {dim}", "_log_softmax": "log-softmax of {self} along {dim}"}
_SELECTED = {"select.int": "{self}, position {index} of axis {dim}"}
_SLICED = {"slice.Tensor": "{self}, positions {start} to {end} (step {step}) of axis {dim}"}
_INDEXED = {"index_select": "{self}, positions {index} of axis {dim}"}
_JOINED = {"cat": "{tensors} joined along axis {dim}", "stack": "{tensors} stacked along axis {dim}"}
_MOVED = {
    "t": "{self} transposed",
    "transpose.int": "{self}, axes {dim0} and {dim1} exchanged",
    "permute": "{self}, axes in the order {dims}",
}
_RESHAPED = dict.fromkeys(("view", "_unsafe_view"), "{self} in the shape {size}")
_SQUEEZED = dict.fromkeys(("squeeze.dim", "squeeze.dims"), "{self} without axis {dim}")
_SCATTERED = {
    "select_scatter": "{self} with {src} at position {index} of axis {dim}",
    "slice_scatter": "{self} with {src} at positions {start} to {end} (step {step}) of axis {dim}",
}
_ROWS = [
    *_aten(pointwise.pointwise, per_input, _ARITHMETIC, probe=True),
    *_aten(pointwise.pointwise, several, _FUNCTIONS, probe=True),
    *_aten(pointwise.pointwise, per_input, _COMPARISONS, chooses=True, probe=True),
    *_aten(pointwise.pointwise, per_input, _CONDITION, chooses=True, probe=True),
    *_aten(pointwise.cast, per_output, {"_to_copy": "{self} as {dtype}"}),
    *_aten(pointwise.clone, per_output, {"clone": "{self}"}),
    *_aten(pointwise.like, per_output, _FILLED, probe=True),
    *_aten(reductions.sums, per_input, _SUMS, probe=True),
    *_aten(reductions.means, per_input, _MEANS, probe=True),
    *_aten(reductions.within_rows, several, _WITHIN, chooses=True, probe=True),
    *_aten(reductions.ordered, comparing, _ORDERED, chooses=True, probe=True),
    *_aten(pointwise.softmax, several, _SOFTMAX, probe=True),
    *_aten(products.mm, multiplying, {"mm": "{self} @ {mat2}"}, probe=True),
    *_aten(products.mv, multiplying, {"mv": "{self} @ {vec}"}, probe=True),
    *_aten(products.bmm, multiplying, {"bmm": "{self} @ {mat2}"}, probe=True),
    *_aten(products.dot, multiplying, {"dot": "{self} @ {tensor}"}, probe=True),
    *_aten(products.addmm, multiplying, {"addmm": "{self} + {mat1} @ {mat2}"}, probe=True),
    *_aten(layout.selected, nothing, _SELECTED, chooses=True),
    *_aten(layout.sliced, nothing, _SLICED, chooses=True),
    *_aten(layout.indexed, per_output, _INDEXED, chooses=True, probe=True),
    *_aten(layout.flipped, per_output, {"flip": "{self} reversed along {dims}"}),
    *_aten(layout.joined, per_output, _JOINED),
    *_aten(layout.moved, nothing, _MOVED),
    *_aten(layout.reshaped, nothing, _RESHAPED),
    *_aten(layout.expanded, nothing, {"expand": "{self} repeated to the shape {size}"}),
    *_aten(layout.unsqueezed, nothing, {"unsqueeze": "{self} with a new axis {dim}"}),
    *_aten(layout.squeezed, nothing, _SQUEEZED),
    *_aten(layout.scattered, per_output, _SCATTERED, chooses=True),
    Operation("grid::asset", None, nothing, "{dataset}"),
    Operation("grid::constant", None, nothing, "{constant}"),
    Operation("grid::column", composite.columns, per_output, "column {names} of {self}"),
    Operation("grid::columns", composite.columns, per_output, "columns {names} of {self}"),
    Operation("grid::count", reductions.counts, per_input, "number of records of {self}"),
]
TABLE: dict[str, Operation] = {row.name: row for row in _ROWS}
"""The rows by name."""

PRESENCE = frozenset(["aten::sum", "aten::sum.dim_IntList", "aten::mean", "aten::mean.dim", "grid::count"])
"""What may be done along the entity axis of padded rows: these count records only."""
