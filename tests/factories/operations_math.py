"""Calls of the mathematical operations beyond the basic ones of `operations.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gridclient.program.graph import Dtype
from tests.factories.operations import Sample, T

UNARY = """sgn signbit trunc frac angle deg2rad rad2deg nan_to_num isinf isposinf isneginf exp2 expm1 log2 log10 logit
    special_entr tan asin acos atan sinh cosh asinh acosh atanh sinc erf erfc erfinv special_erfcx special_ndtri
    special_log_ndtr lgamma digamma i0 special_i0e special_i1 special_i1e frexp.Tensor""".split()
BINARY = """rsub.Tensor floor_divide remainder.Tensor fmod.Tensor copysign.Tensor hypot heaviside nextafter atan2
    fmin fmax logical_xor logaddexp logaddexp2 xlogy.Tensor special_xlog1py igamma igammac clamp_min.Tensor
    clamp_max.Tensor ldexp.Tensor""".split()
WITH_NUMBER = """floor_divide remainder.Tensor fmod.Tensor xlogy.Scalar_Other special_xlog1py.other_scalar
    isin.Tensor_Scalar""".split()
NUMBER_FIRST = "remainder.Scalar_Tensor xlogy.Scalar_Self special_xlog1py.self_scalar isin.Scalar_Tensor".split()
SHIFTS = "bitwise_left_shift bitwise_right_shift".split()
BITS = "bitwise_and bitwise_or bitwise_xor".split()
SQUARE = """linalg_inv_ex linalg_lu_factor_ex _linalg_det _linalg_slogdet linalg_lu linalg_qr""".split()


def calls(n: int, d: int) -> Iterator[Sample]:
    """Calls for n rows and d columns; some of them fit no shapes."""
    shaped = [(n, d), (n,), (n, d, 2)]
    pairs = list(itertools.product([(n, d), (d,), (n,), (n, 1), (1, d), ()], repeat=2))
    for shape in shaped:
        yield from _elements(shape)
        yield from _along(shape)
        yield from _layout(shape)
        yield from _indexing(shape, n)
    for left, right in pairs:
        yield from _pairs(left, right)
    yield from _products(n, d)
    yield from _matrices(n, d)
    yield from _random(n, d)


def aten(name: str, *args: Any, **kwargs: Any) -> Sample:
    return Sample(f"aten::{name}", list(args), kwargs)


def _elements(shape: tuple[int, ...]) -> Iterator[Sample]:
    value, whole = T(shape), T(shape, "int64")
    for name in UNARY:
        yield aten(name, value)
    for name in ("trunc", "sgn", "signbit", "isinf", "exp2", "erf", "atan", "deg2rad"):
        yield aten(name, whole)
    for name in WITH_NUMBER:
        for given, number in ((value, 0.5), (value, -3), (whole, 3), (whole, 0), (whole, -1), (value, 0.0)):
            yield aten(name, given, number)
    for name in NUMBER_FIRST:
        yield aten(name, 3.0, value)
        yield aten(name, 3, whole)
    for name in SHIFTS:
        yield aten(f"{name}.Tensor_Scalar", whole, 2)
        yield aten(f"{name}.Scalar_Tensor", 9, whole)
    for name in BITS:
        yield aten(f"{name}.Scalar_Tensor", 9, whole)
    for mode in (None, "floor", "trunc"):
        yield aten("div.Tensor_mode", value, 0.3, rounding_mode=mode)
        yield aten("div.Tensor_mode", whole, -1, rounding_mode=mode)
        yield aten("div.Tensor_mode", whole, whole, rounding_mode=mode)
        yield aten("div.Tensor_mode", value, value, rounding_mode=mode)
    yield aten("logit", value, 0.1)
    yield aten("nan_to_num", value, 1.0, 2.0, -2.0)
    yield aten("round.decimals", value, decimals=2)
    for order in (0, 1, 2, 3):
        yield aten("polygamma", order, value)
    yield aten("mvlgamma", value, 2)
    yield aten("lerp.Scalar", value, value, 0.25)
    yield aten("masked_fill.Scalar", value, T(shape, "bool"), -1.5)
    yield aten("logit_backward", value, value, 0.1)
    yield aten("logit_backward", value, value)
    yield aten("bucketize.Tensor", value, T((4,)))
    yield aten("bucketize.Tensor", whole, T((4,), "int64"), out_int32=True, right=True)
    yield aten("searchsorted.Tensor", T((4,)), value)
    yield aten("searchsorted.Tensor", T((*shape[:-1], 4)), value, right=True)
    yield aten("searchsorted.Scalar", value, 0.5)


def _pairs(left: tuple[int, ...], right: tuple[int, ...]) -> Iterator[Sample]:
    for name in BINARY:
        yield aten(name, T(left), T(right))
    for name in ("floor_divide", "remainder.Tensor", "fmod.Tensor"):
        yield aten(name, T(left, "int64"), T(right, "int64"))
        yield aten(name, T(left, "int64"), T(right))
        yield aten(name, T(left, "uint8"), T(right, "int8"))
    for name in ("bitwise_xor", *SHIFTS, "__lshift__", "__rshift__"):
        yield aten(f"{name}.Tensor", T(left, "int64"), T(right, "int64"))
    for name in ("addcmul", "addcdiv"):
        yield aten(name, T(left), T(right), T(left), value=0.5)
    yield aten("lerp.Tensor", T(left), T(left), T(right))
    yield aten("masked_fill.Tensor", T(left), T(right, "bool"), T(()))
    yield aten("isin.Tensor_Tensor", T(left, "int64"), T(right, "int64"))
    yield aten("dist", T(left), T(right), 2.0)
    yield aten("addr", T((3, 4)), T(left), T(right), beta=0.5)
    yield aten("addr", T(()), T(left), T(right))
    yield aten("vdot", T(left), T(right))
    yield aten("addmv", T(left), T((*left, *right)), T(right))
    yield aten("block_diag", [T(left), T(right)])


def _along(shape: tuple[int, ...]) -> Iterator[Sample]:
    value, whole = T(shape), T(shape, "int64")
    yield from (aten(name, value) for name in ("prod", "all", "any", "trace", "count_nonzero", "nansum", "nanmedian"))
    yield aten("norm.Scalar", value, 1.0)
    yield aten("aminmax", value)
    for dim in [*range(len(shape)), -1]:
        for name in ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"):
            yield aten(name, value, dim)
        yield aten("cumsum", whole, dim)
        yield aten("cumsum", value, dim, dtype=Dtype("float64"))
        for order in (0.5, 2.0):
            yield aten("renorm", value, order, dim, 1.0)
        for keep in (False, True):
            for name in ("prod.dim_int", "any.dim", "all.dim", "nanmedian.dim", "mode"):
                yield aten(name, value, dim, keep)
            yield aten("aminmax", value, dim=dim, keepdim=keep)
            yield aten("kthvalue", value, 1, dim, keep)
            yield aten("kthvalue", whole, shape[dim], dim, keep)
        for largest in (False, True):
            yield aten("topk", value, 1, dim, largest, True)
            yield aten("topk", whole, shape[dim], dim, largest, False)
        yield aten("unfold", value, dim, 1, 1)
        yield aten("unfold_copy", value, dim, 2, 1)
    for dims in ([], *([axis] for axis in range(len(shape))), [-1], list(range(len(shape)))):
        yield aten("count_nonzero.dim_IntList", value, dims)
        for keep in (False, True):
            for name in ("any.dims", "all.dims", "logsumexp", "nansum"):
                yield aten(name, value, dims, keep)
            for name in ("var_mean.correction", "std_mean.correction"):
                yield aten(name, value, dims, correction=1, keepdim=keep)
            for order in (0, 0.5, 1, 2, 3.0, float("inf"), float("-inf")):
                yield aten("linalg_vector_norm", value, order, dims, keep)
                yield aten("norm.ScalarOpt_dim", value, order, dims, keep)
            yield aten("linalg_vector_norm", value, 2, dims, keep, dtype=Dtype("float64"))
            yield aten("norm.ScalarOpt_dim_dtype", value, 2, dims, keep, dtype=Dtype("float64"))


def _layout(shape: tuple[int, ...]) -> Iterator[Sample]:
    value, rank = T(shape), len(shape)
    yield aten("roll", value, [1])
    yield aten("roll", value, [2, 1], [0, -1])
    for dim in range(rank):
        yield aten("roll", value, [1], [dim])
        for repeats in (1, 2):
            yield aten("repeat", value, [repeats if axis == dim else 1 for axis in range(rank)])
        yield aten("select_backward", T((*shape[:dim], *shape[dim + 1 :])), list(shape), dim, 0)
        yield aten("slice_backward", value, [e + (axis == dim) for axis, e in enumerate(shape)], dim, 1, 2**62, 1)
        yield aten("unfold_backward", T((*shape, 1)), list(shape), dim, 1, 1)
    yield aten("repeat", value, [2, *[1] * rank])
    for offset in (-1, 0, 1):
        yield aten("tril", value, offset)
        yield aten("triu", value, offset)
        for first, second in itertools.permutations(range(rank), 2):
            yield aten("diagonal", value, offset, first, second)
            rest = [extent for axis, extent in enumerate(shape) if axis not in (first, second)]
            for length in range(1, 4):
                yield aten("diagonal_scatter", value, T((*rest, length)), offset, first, second)
            yield aten("rot90", value, offset, [first, second])
        for first, second in itertools.permutations(range(rank + 1), 2):
            yield aten("diag_embed", value, offset, first, second)
    yield aten("diagonal_copy", value)
    yield aten("diagonal_backward", T((min(shape[:2]), *shape[2:])[-1:]), list(shape[:2]), 0, 0, 1)


def _indexing(shape: tuple[int, ...], n: int) -> Iterator[Sample]:
    value, index, rank = T(shape), T(shape, "int64"), len(shape)
    for dim in range(rank):
        few = tuple(2 if axis == dim else extent for axis, extent in enumerate(shape))
        for picked in (shape, few, (1,) * rank):
            places = T(picked, "int64")
            yield aten("gather", value, dim, places)
            yield aten("scatter.src", value, dim, places, T(picked))
            yield aten("scatter.value", value, dim, places, 2.5)
            yield aten("scatter_add", value, dim, places, T(picked))
            for reduce in ("add", "multiply"):
                yield aten("scatter.reduce", value, dim, places, T(picked), reduce=reduce)
                yield aten("scatter.value_reduce", value, dim, places, 2.5, reduce=reduce)
            for reduce in ("sum", "prod", "mean", "amax", "amin"):
                yield aten("scatter_reduce.two", value, dim, places, T(picked), reduce, include_self=False)
        at = T((2,), "int64")
        yield aten("index_add", value, dim, at, T(few), alpha=2)
        yield aten("index_copy", value, dim, at, T(few))
        yield aten("index_reduce", value, dim, at, T(few), "mean")
        yield aten("index_fill.int_Scalar", value, dim, at, 1.5)
        yield aten("index_fill.int_Tensor", value, dim, at, T(()))
        skip = [None] * dim
        for count in (2, n):
            found = T((count,), "int64")
            yield aten("index.Tensor", value, [*skip, found])
            for accumulate in (False, True):
                yield aten("index_put", value, [*skip, found], T(()), accumulate)
                part = tuple(count if axis == dim else extent for axis, extent in enumerate(shape))
                yield aten("index_put", value, [*skip, found], T(part), accumulate)
        yield aten("index.Tensor", value, [*skip, T((2, 2), "int64")])
    if rank > 1:
        yield aten("index.Tensor", value, [T((n,), "int64"), T((n,), "int64")])
        yield aten("index.Tensor", value, [T((n, 1), "int64"), T((2,), "int64")])
        yield aten("index_put", value, [T((n,), "int64"), T((n,), "int64")], T((n, *shape[2:])), True)
    if rank > 2:
        yield aten("index.Tensor", value, [T((2,), "int64"), None, T((2,), "int64")])
        yield aten("index.Tensor", value, [None, T((2,), "int64"), T((2,), "int64")])
        yield aten("index_put", value, [T((2,), "int64"), None, T((2,), "int64")], T(()))
    yield aten("take", value, index)
    yield aten("take", T((7,)), index)
    yield aten("put", value, index, T(shape), True)


def _products(n: int, d: int) -> Iterator[Sample]:
    for left, right in itertools.product([(n, d, 2), (n, 2, d), (2, n, d), (d, n, 2)], repeat=2):
        yield aten("baddbmm", T((n, d, d)), T(left), T(right))
        yield aten("baddbmm", T((n, 2, 2)), T(left), T(right), beta=0.5)
        yield aten("baddbmm", T((1,)), T(left), T(right))
        yield aten("addbmm", T(()), T(left), T(right))
        for order in (1.0, 2.0, 3.0):
            yield aten("_cdist_forward", T(left), T(right), order, None)
        yield aten("_cdist_backward", T((*left[:2], right[1])), T(left), T(right), 2.0, T((*left[:2], right[1])))
    yield aten("addmv", T((n,)), T((n, d)), T((d,)), beta=0.5)
    yield aten("_cdist_forward", T((n, d)), T((4, d)), 2.0, None)
    yield aten("_cdist_forward", T((n, d)), T((n, d)), 2.0, 1)
    for shape in ((n, 3), (3, n), (n, 3, d)):
        for dim in range(len(shape)):
            yield aten("linalg_cross", T(shape), T(shape), dim=dim)


def _matrices(n: int, d: int) -> Iterator[Sample]:
    for shape in ((d, d), (n, d, d), (n, 2, 2), (n, d, 2), (2, n, d), (n, d, 2, 2)):
        value, rows, columns = T(shape), shape[-2], shape[-1]
        yield aten("linalg_cholesky_ex", value)
        yield aten("linalg_cholesky_ex", value, upper=True, check_errors=True)
        yield from (aten(name, value) for name in SQUARE)
        yield aten("linalg_qr", value, "complete")
        yield aten("linalg_pinv.atol_rtol_tensor", value)
        yield aten("cholesky_inverse", value)
        yield aten("_linalg_eigh", value)
        for full in (False, True):
            yield aten("_linalg_svd", value, full)
        right = T((*shape[:-2], rows, 2))
        yield aten("_linalg_solve_ex", value, right)
        yield aten("_linalg_solve_ex", value, T(shape[:-1]), check_errors=True)
        yield aten("linalg_solve_triangular", value, right, upper=True)
        yield aten("cholesky_solve", right, value)
        pivots = T((*shape[:-2], min(rows, columns)), "int32")
        yield aten("linalg_lu_solve", value, pivots, right)
        yield aten("lu_unpack", value, pivots)
        yield aten("linalg_householder_product", value, T((*shape[:-2], columns)))


def _random(n: int, d: int) -> Iterator[Sample]:
    for dtype in ("float32", "float64", "float16"):
        yield Sample("grid::rand", [[n, d], Dtype(dtype), 7])
        yield Sample("grid::randn", [[n, d], Dtype(dtype), 7])
    for dtype in ("int64", "uint8", "float32"):
        yield Sample("grid::randint", [0, 9, [n, d], Dtype(dtype), 7])
        yield Sample("grid::randperm", [n, Dtype(dtype), 7])
    yield Sample("grid::bernoulli", [T((n, d)), 7])
    for p in (0.0, 0.5, 1):
        yield Sample("grid::dropout", [T((n, d)), p, 7])
