"""Intervals of operations that move, join, choose, add up and multiply within rows: a table of rules. For workers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod, sqrt
from typing import Any

import torch

from apps.compute.readers.intervals import (
    Given,
    Interval,
    Pair,
    Rule,
    bilinear,
    cleaned,
    hull,
    product,
    within,
)

Step = Callable[[torch.Tensor], torch.Tensor]


def _each(value: Interval, step: Step, *, repeats: bool = False) -> Interval:
    """The same move of both ends. An element is found as often as the value has grown; `repeats`: however often."""
    low, high = step(value.low), step(value.high)
    norm = inf if repeats else value.norm * sqrt(max(1.0, low.numel() / max(value.low.numel(), 1)))
    return Interval(low, high, norm)


def _ran(given: Given) -> Interval:
    return _each(given.interval("self"), lambda end: given.again(self=end))


def _ran_anew(given: Given) -> Interval:
    """As `_ran`, where elements are found any number of times, or beside others."""
    return _each(given.interval("self"), lambda end: given.again(self=end), repeats=True)


def _same(given: Given) -> Interval:
    return _each(given.interval("self"), torch.clone)


def _reshaped(given: Given) -> Interval:
    return _each(given.interval("self"), lambda end: end.reshape(given.shape))


def _expanded(given: Given) -> Interval:
    return _each(given.interval("self"), lambda end: end.expand(given.shape))


def _cast(given: Given) -> Interval:
    value, dtype = given.interval("self"), given.args["dtype"]
    if dtype is None or "float" in dtype:
        return value
    kept = dtype != "bool" and all(torch.equal(end, end.trunc()) for end in value.pair)
    return _each(value, torch.trunc, repeats=not kept)


def _sliced(given: Given) -> Interval:
    """Fewer rows are bounded as all of them are."""
    value: Interval = given.args["self"]
    return _same(given) if given.args["dim"] % value.low.dim() == given.axis else _ran(given)


def _indexed(given: Given) -> Interval | Pair:
    """A position that does not exist gives 0."""
    value, index, dim = given.args["self"], given.args["index"], given.args["dim"]
    if not isinstance(value, Interval):
        return _looked_up(given, value.to(torch.float64), dim)
    if dim % max(value.low.dim(), 1) == given.axis:
        return Interval(*hull(value.pair, (torch.zeros(()), torch.zeros(()))), value.norm)
    return _each(value, lambda end: given.again(self=end, index=index), repeats=True)


def _looked_up(given: Given, table: torch.Tensor, dim: int) -> Pair:
    """Some row of a public table, or 0."""
    if not table.shape[dim]:
        return within(0, 0)(given)
    low, high = table.amin(dim, keepdim=True).clamp(max=0), table.amax(dim, keepdim=True).clamp(min=0)
    return low.expand(given.shape), high.expand(given.shape)


def _embedded(given: Given) -> Pair:
    if isinstance(given.args["weight"], Interval):
        return within(-inf, inf)(given)
    return _looked_up(given, given.args["weight"].to(torch.float64), 0)


def _gathered(given: Given) -> Pair:
    value = given.args["self"]
    dim = given.args["dim"]
    if not isinstance(value, Interval):
        return within(-inf, inf)(given)
    low, high = value.low.amin(dim, keepdim=True).clamp(max=0), value.high.amax(dim, keepdim=True).clamp(min=0)
    return low.expand(given.shape), high.expand(given.shape)


def _joined(given: Given) -> Interval:
    """Side by side norms add up as squares; one below the other the larger one holds."""
    stack, rank = given.op == "aten::stack", len(given.shape)
    dim = given.args["dim"] % rank
    below = given
    if stack:
        shape = (*given.shape[:dim], *given.shape[dim + 1 :])
        below = given._replace(shape=shape, axis=given.axis - (dim < given.axis))
    parts = [below.broadcast(part) for part in given.args["tensors"]]
    if dim == given.axis and not stack:
        return Interval(*hull(*(part.pair for part in parts)), max(part.norm for part in parts))
    low, high = (
        given.run([part[end] for part in parts], dim) for end in (0, 1)
    )  # fmt: skip
    return Interval(low, high, sqrt(sum(part.norm**2 for part in parts)))


def _marked(given: Given) -> Interval | Pair:
    """scatter of one number: one of a group is marked, where there is one position for each. So is one_hot made."""
    value, index, dim = given.interval("self"), given.args["index"], given.args["dim"]
    number = given.broadcast(given.args["value"])
    pair = hull(value.pair, number.pair)
    if not isinstance(index, Interval):
        return pair
    ones = not value.largest.any() and index.low.shape[dim] == 1
    groups = prod(given.shape) / max(given.shape[dim], 1)
    return Interval(*pair, sqrt(groups) if ones else inf)


def _overwritten(given: Given) -> Pair:
    """select_scatter, slice_scatter: either what was there or what is written."""
    value, source = given.interval("self"), given.args["src"]
    ends = source.pair if isinstance(source, Interval) else (source.min().double(), source.max().double())
    low, high = ends[0].min(), ends[1].max()
    return hull(value.pair, (low, high))


def _dims(given: Given, value: torch.Tensor) -> list[int]:
    dim = given.args.get("dim")
    if dim is None or dim == []:
        return list(range(value.dim()))
    return list(dim) if isinstance(dim, list) else [dim]


def _reduced(low: Callable[..., torch.Tensor], high: Callable[..., torch.Tensor]) -> Rule:
    """Along other axes than that of the rows."""

    def rule(given: Given) -> Pair:
        value = given.interval("self")
        found, keep = _dims(given, value.low), bool(given.args.get("keepdim"))
        if given.output:
            return within(0, max(prod(value.low.shape[dim] for dim in found) - 1, 0))(given)
        return low(value.low, found, keep), high(value.high, found, keep)

    return rule


def _counted(given: Given) -> Pair:
    value = given.interval("self").low
    return within(0, prod(value.shape[dim] for dim in _dims(given, value)))(given)


def _placed_among(given: Given) -> Pair:
    return within(0, prod(given.args["self"].low.shape))(given)


def _sorted(given: Given) -> Pair:
    value, dim = given.interval("self"), given.args["dim"]
    if given.output:
        return within(0, value.low.shape[dim] - 1)(given)
    return value.low.amin(dim, keepdim=True).expand(given.shape), value.high.amax(dim, keepdim=True).expand(given.shape)


def _between(name: str) -> Rule:
    """Places among public limits."""

    def rule(given: Given) -> Pair:
        return within(0, given.args[name].shape[-1])(given)

    return rule


def _factor(given: Given, name: str, *, batched: bool) -> Pair:
    """A factor of a matrix product; a batch of public ones has its extremes along the rows."""
    found = given.args[name]
    if isinstance(found, Interval):
        return found.pair
    value = found.to(torch.float64)
    if batched and given.axis == 0:
        return value.amin(0, keepdim=True), value.amax(0, keepdim=True)
    return value, value


def _matrix(left: str, right: str, *, added: bool = False, batched: bool = False) -> Rule:
    def rule(given: Given) -> Pair:
        factors = [_factor(given, name, batched=batched) for name in (left, right)]
        if not all(end.isfinite().all() for factor in factors for end in factor):
            return within(-inf, inf)(given)
        low, high = bilinear(torch.matmul, factors[0], factors[1])
        if added:
            alpha, beta = (torch.tensor(float(given.args[name]), dtype=torch.float64) for name in ("alpha", "beta"))
            low, high = product((low, high), (alpha, alpha))
            if low.shape[given.axis] != 1:  # both factors are public
                low, high = low.amin(given.axis, keepdim=True), high.amax(given.axis, keepdim=True)
            more = product(given.interval("self").pair, (beta, beta))
            low, high = cleaned((low + more[0], high + more[1]))
        return low, high

    return rule


def _convolved(given: Given) -> Pair:
    """The bias is added once."""
    value, weight, bias = given.args["input"], given.args["weight"], given.args["bias"]
    if not isinstance(value, Interval) or isinstance(weight, Interval) or isinstance(bias, Interval):
        return within(-inf, inf)(given)
    if not value.finite():
        return within(-inf, inf)(given)
    double = weight.to(torch.float64)

    def form(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return given.again(input=a, weight=b, bias=None)

    low, high = bilinear(form, value.pair, (double, double))
    if bias is not None:
        each = bias.to(torch.float64).reshape(-1, *[1] * (low.dim() - 2))
        low, high = low + each, high + each
    return low, high


def _cut(given: Given) -> Pair:
    """tril, triu: elements become 0."""
    zero = torch.zeros((), dtype=torch.float64)
    return hull(given.interval("self").pair, (zero, zero))


def _any(ends: Any) -> Callable[..., torch.Tensor]:
    return lambda value, dims, keep: ends(value, dims, keepdim=keep)


_LEAST, _MOST, _SUM, _MEAN = _any(torch.amin), _any(torch.amax), _any(torch.sum), _any(torch.mean)
_RAN = """t transpose.int permute select.int flip roll rot90 diagonal diagonal_copy diag_embed repeat pixel_shuffle
    pixel_unshuffle channel_shuffle""".split()
_RAN_ANEW = "unfold unfold_copy constant_pad_nd avg_pool2d avg_pool3d".split()
_RESHAPED = "view _unsafe_view unsqueeze squeeze.dim squeeze.dims".split()

SLICES: dict[str, Rule] = {
    **{f"aten::{name}": _ran for name in _RAN},
    **{f"aten::{name}": _ran_anew for name in _RAN_ANEW},
    **{f"aten::{name}": _reshaped for name in _RESHAPED},
    "aten::clone": _same,
    "aten::_to_copy": _cast,
    "aten::expand": _expanded,
    "aten::slice.Tensor": _sliced,
    "aten::index_select": _indexed,
    "aten::embedding": _embedded,
    "aten::gather": _gathered,
    "aten::cat": _joined,
    "aten::stack": _joined,
    "aten::scatter.value": _marked,
    "aten::select_scatter": _overwritten,
    "aten::slice_scatter": _overwritten,
    "aten::tril": _cut,
    "aten::triu": _cut,
    **{f"aten::{name}": _reduced(_SUM, _SUM) for name in ("sum.dim_IntList", "nansum")},
    "aten::mean.dim": _reduced(_MEAN, _MEAN),
    **{f"aten::{name}": _reduced(_MOST, _MOST) for name in ("amax", "max.dim")},
    **{f"aten::{name}": _reduced(_LEAST, _LEAST) for name in ("amin", "min.dim")},
    **{f"aten::{name}": _reduced(_LEAST, _MOST) for name in ("median.dim", "nanmedian.dim", "mode", "kthvalue")},
    "aten::count_nonzero.dim_IntList": _counted,
    "aten::argmax": _placed_among,
    "aten::argmin": _placed_among,
    **{f"aten::{name}": _sorted for name in ("sort", "sort.stable", "topk")},
    "aten::bucketize.Tensor": _between("boundaries"),
    "aten::searchsorted.Tensor": _between("sorted_sequence"),
    "aten::mm": _matrix("self", "mat2"),
    "aten::mv": _matrix("self", "vec"),
    "aten::bmm": _matrix("self", "mat2", batched=True),
    "aten::addmm": _matrix("mat1", "mat2", added=True),
    "aten::addmv": _matrix("mat", "vec", added=True),
    "aten::baddbmm": _matrix("batch1", "batch2", added=True, batched=True),
    "aten::convolution": _convolved,
}
"""Slice by slice."""
