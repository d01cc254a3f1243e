"""The allow-list: names of the operations that a program may hold. Rules for each live on the node.

An ATen operation is named by its overload ("aten::sum.dim_IntList"; the default overload has no suffix); a composite
of ours begins with "grid::". None of them mutates an input or takes `out=`. A name that is not here is refused while
recording.
"""

from __future__ import annotations

OPERATIONS_VERSION = 1

POINTWISE = """
    add.Tensor sub.Tensor rsub.Scalar mul.Tensor div.Tensor pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar
    neg abs exp log log1p sqrt rsqrt reciprocal sign floor ceil round sin cos tanh sigmoid relu isnan isfinite
    clamp clamp.Tensor clamp_min clamp_max minimum maximum where.self _to_copy
    logical_and logical_or logical_not bitwise_and.Tensor bitwise_or.Tensor bitwise_not
    eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar
    gt.Tensor gt.Scalar ge.Tensor ge.Scalar
""".split()
REDUCTIONS = """
    sum sum.dim_IntList mean mean.dim var.correction std.correction amax amin max max.dim min min.dim
    argmax argmin sort sort.stable median median.dim _softmax _log_softmax
""".split()
PRODUCTS = "mm mv bmm dot addmm".split()
LAYOUT = """
    select.int slice.Tensor index_select cat stack t transpose.int permute view _unsafe_view expand
    unsqueeze squeeze.dim squeeze.dims clone flip select_scatter slice_scatter
""".split()
FACTORIES = "zeros_like ones_like full_like".split()
COMPOSITES = ["grid::asset", "grid::constant", "grid::column", "grid::columns", "grid::count"]

OPERATIONS = frozenset(
    [f"aten::{name}" for name in (*POINTWISE, *REDUCTIONS, *PRODUCTS, *LAYOUT, *FACTORIES)] + COMPOSITES
)
