"""Operands laid out one after the other, for kernels that take this for granted.

Given a view with other strides (an expanded number, a transposed table), some of torch's kernels read beyond its end:
into whatever lies there, which may be somebody's row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from apps.compute.totals import losses, norms, placed, windows

_ORDERS = """
    median median.dim nanmedian nanmedian.dim kthvalue mode topk sort sort.stable cummax cummin
    isin.Tensor_Tensor isin.Tensor_Scalar isin.Scalar_Tensor
    searchsorted.Tensor searchsorted.Scalar bucketize.Tensor bucketize.Scalar
    _linalg_det _linalg_slogdet
""".split()
_AS_THEY_LIE = frozenset(name for name in norms.TOTAL if "_batch_norm_legit" in name)
DENSE = (
    frozenset([*windows.TOTAL, *norms.TOTAL, *losses.TOTAL, *placed.TOTAL, *(f"aten::{name}" for name in _ORDERS)])
    - _AS_THEY_LIE
)
"""Layers, their gradients, and what looks for places; and factors whose gradient asks how the matrix lay.

Sums, products and batch norm read strided operands, and in their order.
"""


def densely(form: Callable[..., Any]) -> Callable[..., Any]:
    """The form, given dense operands."""
    return partial(_called, form)


def _called(form: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return form(*map(_dense, args), **{name: _dense(given) for name, given in kwargs.items()})


def _dense(given: Any) -> Any:
    if isinstance(given, list):
        return [_dense(item) for item in given]
    if not isinstance(given, torch.Tensor) or given.is_meta:
        return given
    found = given.contiguous()
    if 1 not in found.shape and found.numel():
        return found
    # Kernels read the strides of axes with one element too; `contiguous` leaves these as they are.
    strides: list[int] = []
    step = 1
    for extent in reversed(found.shape):
        strides.append(step)
        step *= max(extent, 1)
    strides.reverse()
    return found if found.stride() == tuple(strides) else found.as_strided(found.shape, strides)
