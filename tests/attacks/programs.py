"""Random programs that try to get at one person. Each trick takes a value [n, d] and says what comes out of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridclient.program.graph import Dtype, Ref
from tests.factories.raw import RawClient


@dataclass(frozen=True)
class Target:
    """The attacked value [n, d] in a session, and the person and column that the attacker is after."""

    client: RawClient
    x: Ref
    n: int
    d: int
    person: int
    column: int
    source: random.Random

    def op(self, name: str, *args: Any, **kwargs: Any) -> Ref:
        return self.client.node(f"aten::{name}", *args, **kwargs)

    def constant(self, values: object, dtype: str = "float64") -> Ref:
        return self.client.constant(np.asarray(values, dtype=dtype))

    def one_hot(self, size: int, at: int, scale: float = 1.0) -> np.ndarray:
        vector = np.zeros(size)
        vector[at] = scale
        return vector

    def row(self) -> Ref:
        """[1, d]: the person's row, still two-dimensional."""
        return self.op("slice.Tensor", self.x, 0, self.person, self.person + 1)

    def column_vector(self) -> Ref:
        """[n]"""
        return self.op("select.int", self.x, 1, self.column)


Trick = Callable[[Target], Ref]


def rest_of_rows(t: Target) -> Ref:
    """[n - 1, d]: everybody but the person."""
    before = t.op("slice.Tensor", t.x, 0, 0, t.person)
    after = t.op("slice.Tensor", t.x, 0, t.person + 1, t.n)
    return t.op("cat", [before, after], 0)


def masked(t: Target) -> Ref:
    mask = t.constant(t.one_hot(t.n, t.person)[:, None] > 0, "bool")
    return t.op("sum.dim_IntList", t.op("where.self", mask, t.x, t.constant(0.0)), [0])


def compared(t: Target) -> Ref:
    condition = t.op(
        t.source.choice(["gt", "le", "ge", "lt"]) + ".Scalar", t.column_vector(), t.source.uniform(100, 1000)
    )
    if t.source.random() < 0.5:
        return t.op("sum", t.op("_to_copy", condition, dtype=Dtype("float64")))
    return t.op("sum", t.op("where.self", condition, t.column_vector(), t.constant(0.0)))


def scattered(t: Target) -> Ref:
    zeros = t.constant(np.zeros((t.n, t.d)))
    if t.source.random() < 0.5:
        made = t.op("slice_scatter", zeros, t.row(), 0, t.person, t.person + 1)
    else:
        made = t.op("select_scatter", zeros, t.op("select.int", t.x, 0, t.person), 0, t.person)
    return t.op("sum.dim_IntList", made, [0]) if t.source.random() < 0.7 else made


def erased(t: Target) -> Ref:
    """Everybody else overwritten, then summed."""
    kept = t.x
    for first, last in ((0, t.person), (t.person + 1, t.n)):
        if last > first:
            kept = t.op("slice_scatter", kept, t.constant(np.zeros((last - first, t.d))), 0, first, last)
    return t.op("sum.dim_IntList", kept, [0])


def chained(t: Target) -> Ref:
    total = t.row()
    for _ in range(t.source.randint(1, 12)):
        total = t.op("add.Tensor", total, 0.0)
    return t.op(t.source.choice(["sum.dim_IntList", "mean.dim"]), total, [0])


def extreme(t: Target) -> Ref:
    name = t.source.choice(["amax", "amin", "sort", "median.dim", "max.dim", "argmax"])
    if name in ("amax", "amin"):
        return t.op(name, t.x, [0])
    outputs = 1 if name == "argmax" else 2
    return t.client.node(f"aten::{name}", t.x, 0, outputs=outputs)


def weighted(t: Target) -> Ref:
    weights = t.one_hot(t.n, t.person, 1e9) + 1.0
    return t.op("sum.dim_IntList", t.op("mul.Tensor", t.x, t.constant(weights[:, None])), [0])


def sharpened(t: Target) -> Ref:
    hot = t.op("add.Tensor", t.op("mul.Tensor", t.column_vector(), 0.0), t.constant(t.one_hot(t.n, t.person, 1e3)))
    return t.op("dot", t.op("_softmax", hot, 0, False), t.column_vector())


def batched(t: Target) -> Ref:
    left = t.constant(t.one_hot(t.n, t.person).reshape(1, 1, t.n))
    return t.op("bmm", left, t.op("unsqueeze", t.x, 0))


def counted(t: Target) -> Ref:
    value = t.source.choice([t.row, t.column_vector, lambda: rest_of_rows(t)])()
    return t.client.node("grid::count", value)


TRICKS: dict[str, Trick] = {
    "all rows": lambda t: t.x,
    "select": lambda t: t.op("select.int", t.x, 0, t.source.choice([t.person, t.person - t.n])),
    "slice": lambda t: t.row(),
    "sum of a slice": lambda t: t.op("sum.dim_IntList", t.row(), [0], t.source.random() < 0.5),
    "mean of a slice": lambda t: t.op("mean.dim", t.row(), [0]),
    "stepped slice": lambda t: t.op("sum.dim_IntList", t.op("slice.Tensor", t.x, 0, t.person, t.n, t.n), [0]),
    "index": lambda t: t.op("index_select", t.x, 0, t.constant([t.person] * t.source.randint(1, 3), "int64")),
    "index out of range": lambda t: t.op(
        "sum.dim_IntList", t.op("index_select", t.x, 0, t.constant([t.person, t.n, -1, 2**40], "int64")), [0]
    ),
    "index, summed": lambda t: t.op(
        "sum.dim_IntList", t.op("index_select", t.x, 0, t.constant([t.person], "int64")), [0]
    ),
    "one-hot @ x": lambda t: t.op("mm", t.constant(t.one_hot(t.n, t.person)[None]), t.x),
    "x.T @ one-hot": lambda t: t.op("mv", t.op("t", t.x), t.constant(t.one_hot(t.n, t.person))),
    "column . one-hot": lambda t: t.op("dot", t.column_vector(), t.constant(t.one_hot(t.n, t.person))),
    "0 * a + one-hot @ x": lambda t: t.op(
        "addmm", t.constant(np.zeros((1, t.d))), t.constant(t.one_hot(t.n, t.person)[None]), t.x
    ),
    "one-hot * x, summed": lambda t: t.op(
        "sum.dim_IntList", t.op("mul.Tensor", t.x, t.constant(t.one_hot(t.n, t.person)[:, None])), [0]
    ),
    "everybody but one": lambda t: t.op("sum.dim_IntList", rest_of_rows(t), [0]),
    "mean of everybody but one": lambda t: t.op("mean.dim", rest_of_rows(t), [0]),
    "one twice": lambda t: t.op("sum.dim_IntList", t.op("cat", [t.x, t.row()], 0), [0]),
    "x - mean": lambda t: t.op("sub.Tensor", t.x, t.op("mean.dim", t.x, [0], True)),
    "flat view": lambda t: t.op("select.int", t.op("view", t.x, [-1]), 0, t.person * t.d + t.column),
    "view of rows, summed": lambda t: t.op("sum.dim_IntList", t.op("view", t.x, [1, t.n, t.d]), [0]),
    "row as the other axis": lambda t: t.op("sum.dim_IntList", t.op("unsqueeze", t.row(), 0), [0, 1]),
    "power sum": lambda t: t.op(
        "sum.dim_IntList", t.op("pow.Tensor_Scalar", t.x, t.source.choice([2.0, 3.0, 50.0])), [0]
    ),
    "distance sum": lambda t: t.op(
        "sum.dim_IntList", t.op("abs", t.op("sub.Tensor", t.x, t.source.uniform(100, 1000))), [0]
    ),
    "gram": lambda t: t.op("mm", t.op("t", t.x), t.x),
    "outer": lambda t: t.op("mm", t.x, t.op("t", t.x)),
    "sum of all": lambda t: t.op("sum", t.x),
    "sum over both axes": lambda t: t.op("sum.dim_IntList", t.x, [0, 1]),
    "sum over columns": lambda t: t.op("sum.dim_IntList", t.x, [1]),
    "rounded": lambda t: t.op("sum.dim_IntList", t.op("_to_copy", t.x, dtype=Dtype("int64")), [0]),
    "narrow sum": lambda t: t.op("sum.dim_IntList", t.x, [0], dtype=Dtype("float16")),
    "variance of a slice": lambda t: t.op("var.correction", t.row(), [0], correction=0),
    "variance": lambda t: t.op("var.correction", t.x, [0], correction=1),
    "stack": lambda t: t.op("sum.dim_IntList", t.op("stack", [t.row(), t.row()], 0), [0, 1]),
    "flip, then first": lambda t: t.op("select.int", t.op("flip", t.x, [0]), 0, 0),
    "expanded row": lambda t: t.op("mean.dim", t.op("expand", t.row(), [t.n, t.d]), [0]),
    "masked": masked,
    "compared": compared,
    "scattered": scattered,
    "erased": erased,
    "chained": chained,
    "extreme": extreme,
    "weighted": weighted,
    "sharpened": sharpened,
    "batched": batched,
    "counted": counted,
}

Disguise = Callable[[Target, Ref], Ref]
SAME: list[Disguise] = [
    lambda t, x: t.op("t", t.op("t", x)),
    lambda t, x: t.op("transpose.int", t.op("permute", x, [1, 0]), -1, 0),
    lambda t, x: t.op("add.Tensor", x, 0.0),
    lambda t, x: t.op("mul.Tensor", x, t.constant(np.ones(t.d))),
    lambda t, x: t.op("div.Tensor", t.op("mul.Tensor", x, 2.0), 2.0),
    lambda t, x: t.op("neg", t.op("neg", x)),
    lambda t, x: t.op("clone", x),
    lambda t, x: t.op("_to_copy", x, dtype=Dtype("float64")),
    lambda t, x: t.op("squeeze.dim", t.op("unsqueeze", x, 0), 0),
    lambda t, x: t.op("view", t.op("view", x, [-1, 1, t.d]), [t.n, t.d]),
    lambda t, x: t.op("flip", t.op("flip", x, [0, 1]), [0, 1]),
    lambda t, x: t.op("slice.Tensor", x, 0, 0, 2**63 - 1),
    lambda t, x: t.op("cat", [x], 0),
    lambda t, x: t.op("where.self", t.constant(np.ones((t.n, t.d)), "bool"), x, t.constant(0.0)),
    lambda t, x: t.op("mm", x, t.constant(np.eye(t.d))),
    lambda t, x: t.op("mm", t.constant(np.eye(t.n)), x),
    lambda t, x: t.op("index_select", x, 0, t.constant(np.arange(t.n), "int64")),
    lambda t, x: t.op("slice_scatter", t.constant(np.zeros((t.n, t.d))), x, 0, 0, t.n),
    lambda t, x: t.op("expand", x, [t.n, t.d]),
    lambda t, x: t.op("clamp", x, -1e9, 1e9),
]
"""Ways to leave [n, d] what it is."""
AFTER: list[Disguise] = [
    lambda t, x: t.op("add.Tensor", x, 0.0),
    lambda t, x: t.op("mul.Tensor", x, 1.0),
    lambda t, x: t.op("clone", x),
    lambda t, x: t.op("_to_copy", x, dtype=Dtype("float64")),
    lambda t, x: t.op("unsqueeze", x, 0),
    lambda t, x: t.op("view", x, [-1]),
    lambda t, x: t.op("stack", [x, x], 0),
    lambda t, x: t.op("sum.dim_IntList", t.op("unsqueeze", x, 0), [0]),
    lambda t, x: t.op("where.self", t.constant(True, "bool"), x, x),
    lambda t, x: t.op("maximum", x, -1e300),
]
"""Ways to leave a result what it is, whatever its shape."""


def draw(client: RawClient, x: Ref, shape: tuple[int, int], source: random.Random) -> tuple[str, Ref]:
    """A random attack on a random person: the trick's name, and the value to ask for."""
    n, d = shape
    for_one = {"client": client, "n": n, "d": d, "source": source}
    person, column = source.randrange(n), source.randrange(d)
    for _ in range(source.choice([0, 0, 1, 2, 4])):
        x = source.choice(SAME)(Target(x=x, person=person, column=column, **for_one), x)  # type: ignore[arg-type]
    target = Target(x=x, person=person, column=column, **for_one)  # type: ignore[arg-type]
    name = source.choice(list(TRICKS))
    value = TRICKS[name](target)
    for _ in range(source.choice([0, 0, 1, 3])):
        value = source.choice(AFTER)(target, value)
    return name, value
