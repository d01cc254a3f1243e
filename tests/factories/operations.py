"""Calls of every operation of the table, over small shapes that are known to hide mistakes: square, one row, 1-D."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from apps.compute.labels import NOTHING, Call, Label, Operand
from apps.compute.readers import shapes
from apps.compute.targets import DTYPES, TARGETS, bind
from gridclient.program.graph import Dtype, Node, Ref

HOSTILE = [float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e-310, -1e-42, 3e38, 1.0, -2.5]
_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {}
"""Of the outputs of calls, which labels do not change."""
EXTENTS = [(3, 3), (1, 3), (3, 1), (2, 4), (1, 1), (4, 2)]


@dataclass(frozen=True)
class T:
    """A tensor operand: its shape and a dtype."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Sample:
    """One call; `T` stands for an operand."""

    op: str
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def operands(self) -> list[T]:
        found = []
        for given in (*self.args, *self.kwargs.values()):
            found += [item for item in (given if isinstance(given, list) else [given]) if isinstance(item, T)]
        return found

    def node(self) -> Node:
        """The call as a node, whose operands are nodes 0, 1, ..."""
        number = itertools.count()

        def value(given: Any) -> Any:
            if isinstance(given, list):
                return [value(item) for item in given]
            return Ref(next(number)) if isinstance(given, T) else given

        args = [value(given) for given in self.args]
        return Node(100, self.op, args, {name: value(given) for name, given in self.kwargs.items()})

    def call(self, labels: list[Label] | None = None) -> Call:
        """The call as rules see it; None: everything is public."""
        operands = [
            Operand(label, given.shape, given.dtype, f"lineage {number}")
            for number, (given, label) in enumerate(
                zip(self.operands, labels or [NOTHING] * len(self.operands), strict=True)
            )
        ]

        def value(given: Any) -> Any:
            if isinstance(given, Ref):
                return operands[given.node]
            return [value(item) for item in given] if isinstance(given, list) else given

        target = TARGETS[self.op]
        bound = {name: value(given) for name, given in bind(target, self.node()).items()}
        key = repr(self)
        if key not in _SHAPES:
            _SHAPES[key] = tuple(shape for shape, _ in shapes.infer(target, bound))
        return Call(self.op, bound, tuple(operands), _SHAPES[key])

    def run(self, values: list[torch.Tensor], by: Any = None) -> list[torch.Tensor]:
        """The outputs for these operands, computed by the node's own form or by another one."""

        def value(given: Any) -> Any:
            if isinstance(given, Ref):
                return values[given.node]
            if isinstance(given, Dtype):
                return DTYPES[given.name]
            return [value(item) for item in given] if isinstance(given, list) else given

        node = self.node()
        made = (by or TARGETS[self.op].call)(
            *[value(given) for given in node.args], **{name: value(given) for name, given in node.kwargs.items()}
        )
        return list(made) if isinstance(made, (tuple, list)) else [made]


def draw(given: T, source: random.Random, *, hostile: bool = False) -> torch.Tensor:
    """A tensor for an operand. Integers stay small: some are positions, one of them out of range."""
    count = torch.Size(given.shape).numel()
    if given.dtype == "bool":
        numbers: list[Any] = [source.random() < 0.5 for _ in range(count)]
    elif not DTYPES[given.dtype].is_floating_point:
        numbers = [source.randint(-2, 9) for _ in range(count)]
    else:
        numbers = [source.choice(HOSTILE) if hostile else source.uniform(-2, 2) for _ in range(count)]
    return torch.tensor(numbers, dtype=DTYPES[given.dtype]).reshape(given.shape)


_PICKY = frozenset(
    f"aten::{name}"
    for name in """silu_backward threshold_backward log_sigmoid_backward _native_batch_norm_legit_functional
    soft_margin_loss soft_margin_loss_backward mse_loss_backward smooth_l1_loss_backward huber_loss_backward""".split()
)
"""Operations that the node refuses for some shapes for which the kernel makes do, such as resizing its output."""


def fits(sample: Sample) -> bool:
    """Whether the node takes these shapes at all. Kernels say so ten times faster than its shape reader."""
    empty = any(0 in given.shape for given in sample.operands)  # some kernels divide by an extent
    try:
        if not empty:
            sample.run([torch.ones(given.shape, dtype=DTYPES[given.dtype]) for given in sample.operands])
        if empty or sample.op in _PICKY:
            sample.call()
    except Exception:
        return False
    return True


@cache
def samples(n: int, d: int) -> list[Sample]:
    """Calls of every operation, for n rows and d columns."""
    from tests.factories import operations_math, operations_networks

    found = itertools.chain(_all(n, d), operations_math.calls(n, d), operations_networks.calls(n, d))
    return [sample for sample in found if fits(sample)]


def samples_of(op: str) -> list[Sample]:
    """Calls of one operation: a square table, one row, and as many rows as columns on no axis."""
    return [sample for n, d in ((3, 3), (1, 3), (2, 4)) for sample in _by_name(n, d).get(op, [])]


@cache
def _by_name(n: int, d: int) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples(n, d):
        found.setdefault(sample.op, []).append(sample)
    return found


UNARY = """neg abs exp log log1p sqrt rsqrt reciprocal sign floor ceil round sin cos tanh sigmoid relu isnan isfinite
    logical_not clone zeros_like ones_like""".split()
BINARY = """add.Tensor sub.Tensor mul.Tensor div.Tensor pow.Tensor_Tensor minimum maximum logical_and logical_or
    eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor""".split()
SCALAR = """pow.Tensor_Scalar rsub.Scalar eq.Scalar ne.Scalar lt.Scalar le.Scalar gt.Scalar ge.Scalar
    clamp_min clamp_max""".split()


def _all(n: int, d: int) -> Iterator[Sample]:
    shaped = [(n, d), (n,), (n, d, 2)]
    pairs = list(itertools.product([(n, d), (d,), (n,), (n, 1), (1, d), (d, n), ()], repeat=2))
    for shape in shaped:
        for name in UNARY:
            yield Sample(f"aten::{name}", [T(shape)])
        for name in SCALAR:
            yield Sample(f"aten::{name}", [T(shape), 0.5])
        yield Sample("aten::bitwise_not", [T(shape, "bool")])
        yield Sample("aten::pow.Scalar", [2.0, T(shape)])
        yield Sample("aten::add.Tensor", [T(shape), 1], {"alpha": 2})
        yield Sample("aten::full_like", [T(shape), 3.5])
        yield Sample("aten::clamp", [T(shape), -1.0, 1.0])
        for dtype in ("float64", "float16", "int64", "bool"):
            yield Sample("aten::_to_copy", [T(shape)], {"dtype": Dtype(dtype)})
        yield from _along(shape)
        yield from _layout(shape, n, d)
    for left, right in pairs:
        for name in BINARY:
            yield Sample(f"aten::{name}", [T(left), T(right)])
        for name in ("bitwise_and.Tensor", "bitwise_or.Tensor"):
            yield Sample(f"aten::{name}", [T(left, "int64"), T(right, "int64")])
        yield Sample("aten::where.self", [T(left, "bool"), T(right), T((n, d))])
        yield Sample("aten::clamp.Tensor", [T((n, d)), T(left), T(right)])
        for name in ("mm", "mv", "dot"):
            yield Sample(f"aten::{name}", [T(left), T(right)])
        yield Sample("aten::addmm", [T((d,)), T(left), T(right)])
        yield Sample("aten::addmm", [T((n, d)), T(left), T(right)], {"beta": 0.5})
        for dim in (0, 1, -1):
            for name in ("cat", "stack"):
                yield Sample(f"aten::{name}", [[T(left), T(right)], dim])
    for left, right in itertools.product([(n, d, 2), (n, 2, d), (2, n, d), (2, d, n), (d, n, 2)], repeat=2):
        yield Sample("aten::bmm", [T(left), T(right)])


def _along(shape: tuple[int, ...]) -> Iterator[Sample]:
    value = T(shape)
    axes = [*range(len(shape)), -1]
    for name in ("sum", "mean", "max", "min", "median"):
        yield Sample(f"aten::{name}", [value])
    yield Sample("aten::sum", [T(shape, "int64")])
    yield Sample("aten::mean", [value], {"dtype": Dtype("float64")})
    for name in ("argmax", "argmin"):
        yield Sample(f"aten::{name}", [value])
        yield Sample(f"aten::{name}", [value, None, True])
    for dim in axes:
        for name in ("_softmax", "_log_softmax"):
            yield Sample(f"aten::{name}", [value, dim, False])
        for name in ("sort",):
            yield Sample(f"aten::{name}", [value, dim, True])
        yield Sample("aten::sort.stable", [value], {"stable": True, "dim": dim})
        for keep in (False, True):
            for name in ("max.dim", "min.dim", "median.dim", "argmax", "argmin"):
                yield Sample(f"aten::{name}", [value, dim, keep])
    for dims in ([], None, *([axis] for axis in axes), list(range(len(shape)))):
        for keep in (False, True):
            if dims is not None:
                yield Sample("aten::amax", [value, dims, keep])
                yield Sample("aten::amin", [value, dims, keep])
            yield Sample("aten::sum.dim_IntList", [value, dims, keep])
            yield Sample("aten::sum.dim_IntList", [value, dims, keep], {"dtype": Dtype("float64")})
            yield Sample("aten::mean.dim", [value, dims, keep])
            yield Sample("aten::var.correction", [value, dims], {"correction": 1, "keepdim": keep})
            yield Sample("aten::std.correction", [value, dims], {"correction": 0, "keepdim": keep})


def _layout(shape: tuple[int, ...], n: int, d: int) -> Iterator[Sample]:
    value = T(shape)
    size = torch.Size(shape).numel()
    for dim in [*range(len(shape)), -1]:
        extent = shape[dim]
        yield Sample("aten::select.int", [value, dim, 0])
        yield Sample("aten::select.int", [value, dim, -1])
        for start, stop, step in (
            (None, None, 1),
            (0, 2**63 - 1, 1),
            (0, 1, 1),
            (1, None, 1),
            (None, None, 2),
            (-1, None, 1),
        ):
            yield Sample("aten::slice.Tensor", [value, dim, start, stop, step])
        yield Sample("aten::index_select", [value, dim, T((2,), "int64")])
        yield Sample("aten::index_select", [value, dim, T((n,), "int64")])
        yield Sample("aten::flip", [value, [dim]])
        yield Sample("aten::unsqueeze", [value, dim])
        yield Sample("aten::squeeze.dim", [value, dim])
        yield Sample("aten::squeeze.dims", [value, [dim]])
        yield Sample("aten::transpose.int", [value, 0, dim])
        rest = tuple(e for place, e in enumerate(shape) if place != dim % len(shape))
        yield Sample("aten::select_scatter", [value, T(rest), dim, 0])
        for stop in (1, extent):
            part = tuple(stop if place == dim % len(shape) else e for place, e in enumerate(shape))
            yield Sample("aten::slice_scatter", [value, T(part), dim, 0, stop, 1])
    yield Sample("aten::unsqueeze", [value, len(shape)])
    yield Sample("aten::flip", [value, []])
    yield Sample("aten::t", [value])
    for dims in itertools.permutations(range(len(shape))):
        yield Sample("aten::permute", [value, list(dims)])
    for target in ((size,), (n, -1), (-1, n), (1, *shape), (*shape, 1), (d, n), (n, d, -1), (2, n, d), (1, 1, size)):
        for name in ("view", "_unsafe_view"):
            yield Sample(f"aten::{name}", [value, list(target)])
        yield Sample("aten::expand", [value, list(target)])
    yield Sample("aten::expand", [value, [3, *shape]])
    yield Sample("aten::expand", [value, [3, *shape[1:]]])
