"""Linear algebra that never raises and never hangs.

A matrix with a number that is not finite, or one that a factorisation fails for (singular, or without convergence),
gives NaN in place of what would be floating point numbers; the other matrices of a batch are what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from apps.compute.branchless import choose

Overload = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Factorised:
    """The total form of a factorisation of its first argument. `info`: the output that says which ones failed."""

    overload: Overload
    info: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("check_errors", None)
        matrix, *rest = args
        bad = _not_finite(matrix)
        clean = _cleaned(matrix, bad)
        made = _tried(self.overload, clean, rest, kwargs)
        outputs = list(made) if isinstance(made, (tuple, list)) else [made]
        if self.info is not None:
            bad = bad | (outputs[self.info] != 0)
        outputs = [_blanked(output, bad) for output in outputs]
        return tuple(outputs) if isinstance(made, (tuple, list)) else outputs[0]


def solve_ex(A: torch.Tensor, B: torch.Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """Singular matrices give NaN."""
    bad = _not_finite(A)
    result, factors, pivots, info = torch.ops.aten._linalg_solve_ex.default(_cleaned(A, bad), B, left=left)
    bad = bad | (info != 0)
    vector = B.dim() == 1 or (A.dim() - 1 == B.dim() and B.shape == A.shape[:-1])
    failed = bad.reshape([*bad.shape, *[1] * (1 if vector else 2)])
    return choose(failed, torch.nan, result), _blanked(factors, bad), pivots, info


def lu_factor_ex(A: torch.Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """A singular matrix has factors all the same."""
    return Factorised(torch.ops.aten.linalg_lu_factor_ex.default)(A, pivot=pivot)


def cholesky_inverse(self: torch.Tensor, upper: bool = False) -> torch.Tensor:
    """A factor with a 0 on its diagonal gives NaN."""
    bad = _not_finite(self) | (self.diagonal(dim1=-2, dim2=-1) == 0).any(-1)
    return _blanked(torch.ops.aten.cholesky_inverse.default(_cleaned(self, bad), upper), bad)


def lu_solve(
    LU: torch.Tensor, pivots: torch.Tensor, B: torch.Tensor, *, left: bool = True, adjoint: bool = False
) -> torch.Tensor:
    """A pivot that is no row counts as the nearest one."""
    return torch.ops.aten.linalg_lu_solve.default(LU, _rows(pivots, LU), B, left=left, adjoint=adjoint)


def lu_unpack(
    LU_data: torch.Tensor, LU_pivots: torch.Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    """A pivot that is no row counts as the nearest one."""
    return torch.ops.aten.lu_unpack.default(LU_data, _rows(LU_pivots, LU_data), unpack_data, unpack_pivots)


def _rows(pivots: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """The pivots as rows that there are. Kernels would read and write beyond the end for others."""
    expected = (*factors.shape[:-2], min(factors.shape[-2:]))
    if factors.dim() < 2 or pivots.shape != expected or pivots.dtype is not torch.int32:
        raise ValueError(f"expects pivots of shape {expected} in int32")
    return pivots.clamp(1, max(factors.shape[-2], 1))


def _not_finite(matrix: torch.Tensor) -> torch.Tensor:
    """Which matrices of a batch are not finite: bool [*batch]."""
    if matrix.dim() < 2:
        raise ValueError("The input tensor A must have at least 2 dimensions.")
    return ~torch.isfinite(matrix).flatten(-2).all(-1)


def _cleaned(matrix: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """The matrices with unit ones in place of the bad. They lie in memory as before: factors depend on that."""
    unit = torch.eye(*matrix.shape[-2:], dtype=matrix.dtype, device=matrix.device)
    clean = matrix.clone()
    return clean.copy_(choose(bad[..., None, None], unit, matrix))


def _blanked(output: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    if not output.is_floating_point():
        return output
    bad = bad.reshape([*bad.shape, *[1] * (output.dim() - bad.dim())])
    return output.clone().masked_fill_(bad, torch.nan)


def _tried(overload: Overload, matrix: torch.Tensor, rest: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return overload(matrix, *rest, **kwargs)
    except torch.linalg.LinAlgError:
        if matrix.dim() == 2:
            made = overload(torch.eye(*matrix.shape, dtype=matrix.dtype), *rest, **kwargs)
            bad = torch.ones((), dtype=torch.bool)
            return _blanked(made, bad) if isinstance(made, torch.Tensor) else [_blanked(part, bad) for part in made]
    # One by one: a matrix that fails must not show in the others.
    each = [_tried(overload, one, rest, kwargs) for one in matrix.flatten(0, -3)]
    parts = [each] if isinstance(each[0], torch.Tensor) else list(zip(*each, strict=True))
    stacked = [torch.stack(part).reshape(*matrix.shape[:-2], *part[0].shape) for part in map(list, parts)]
    return stacked[0] if isinstance(each[0], torch.Tensor) else stacked


_ATEN = torch.ops.aten
TOTAL: dict[str, Callable[..., Any]] = {
    "aten::linalg_cholesky_ex": Factorised(_ATEN.linalg_cholesky_ex.default, 1),
    "aten::linalg_inv_ex": Factorised(_ATEN.linalg_inv_ex.default, 1),
    "aten::linalg_lu_factor_ex": lu_factor_ex,
    "aten::linalg_lu": Factorised(_ATEN.linalg_lu.default),
    "aten::linalg_pinv.atol_rtol_tensor": Factorised(_ATEN.linalg_pinv.atol_rtol_tensor),
    "aten::linalg_qr": Factorised(_ATEN.linalg_qr.default),
    "aten::_linalg_det": Factorised(_ATEN._linalg_det.default),
    "aten::_linalg_slogdet": Factorised(_ATEN._linalg_slogdet.default),
    "aten::_linalg_eigh": Factorised(_ATEN._linalg_eigh.default),
    "aten::_linalg_svd": Factorised(_ATEN._linalg_svd.default),
    "aten::_linalg_solve_ex": solve_ex,
    "aten::cholesky_inverse": cholesky_inverse,
    "aten::linalg_lu_solve": lu_solve,
    "aten::lu_unpack": lu_unpack,
}
