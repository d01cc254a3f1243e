"""Products of matrices, and linear algebra."""

from __future__ import annotations

from math import prod

from apps.compute.labels import Shape
from apps.compute.rows.base import Operation, aten, factoring, multiplying, per_input
from apps.compute.rules import products


def summing(operands: list[Shape], outputs: list[Shape]) -> int:
    """A product for each matrix of a batch, all added up."""
    first, second = operands[-2:]
    return 2 * prod(first) * second[-1] + per_input(operands, outputs)


_BATCHED = {
    "linalg_cholesky_ex": "Cholesky factor of {self}",
    "linalg_inv_ex": "inverse of {A}",
    "linalg_lu_factor_ex": "LU factors of {A}",
    "linalg_lu": "LU factors of {A}, with the permutation",
    "linalg_pinv.atol_rtol_tensor": "pseudo-inverse of {self}",
    "linalg_qr": "QR factors of {A}",
    "_linalg_det": "determinant of {A}",
    "_linalg_slogdet": "sign and logarithm of the determinant of {A}",
    "_linalg_eigh": "eigenvalues and eigenvectors of the symmetric {A}",
    "_linalg_svd": "singular values and vectors of {A}",
    "cholesky_inverse": "inverse of the matrix whose Cholesky factor is {self}",
}
_SOLVED = {
    "_linalg_solve_ex": "solution of {A} x = {B}",
    "linalg_solve_triangular": "solution of the triangular {self} x = {B}",
    "cholesky_solve": "solution of x with the Cholesky factor {input2} for {self}",
    "linalg_lu_solve": "solution of x with the LU factors {LU}, {pivots} for {B}",
    "lu_unpack": "factors in {LU_data}, {LU_pivots}",
    "linalg_householder_product": "product of the reflections {input}, {tau}",
}
ROWS: list[Operation] = [
    *aten(products.mm, multiplying, {"mm": "{self} @ {mat2}"}, probe=True),
    *aten(products.mv, multiplying, {"mv": "{self} @ {vec}"}, probe=True),
    *aten(products.bmm, multiplying, {"bmm": "{self} @ {mat2}"}, probe=True),
    *aten(products.dot, multiplying, {"dot": "{self} @ {tensor}"}, probe=True),
    *aten(products.dot, multiplying, {"vdot": "{self} @ {other}"}, probe=True),
    *aten(products.addmm, multiplying, {"addmm": "{beta} × {self} + {alpha} × {mat1} @ {mat2}"}, probe=True),
    *aten(products.addmv, multiplying, {"addmv": "{beta} × {self} + {alpha} × {mat} @ {vec}"}, probe=True),
    *aten(products.addr, multiplying, {"addr": "{beta} × {self} + {alpha} × {vec1} outer {vec2}"}, probe=True),
    *aten(products.baddbmm, multiplying, {"baddbmm": "{beta} × {self} + {alpha} × {batch1} @ {batch2}"}, probe=True),
    *aten(None, summing, {"addbmm": "{beta} × {self} + {alpha} × the sum of {batch1} @ {batch2}"}, probe=True),
    *aten(products.crossed, per_input, {"linalg_cross": "cross product of {self} and {other}"}, probe=True),
    *aten(products.by_matrix, factoring, _BATCHED, probe=True),
    *aten(None, factoring, _SOLVED, probe=True),
]
