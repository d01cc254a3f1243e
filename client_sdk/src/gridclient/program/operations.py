"""The allow-list: names of the operations that a program may hold. Rules for each live on the node.

An ATen operation is named by its overload ("aten::sum.dim_IntList"; the default overload has no suffix); a composite
of ours begins with "grid::". None of them mutates an input or takes `out=`. A name that is not here is refused while
recording.
"""

from __future__ import annotations

OPERATIONS_VERSION = 2

POINTWISE = """
    add.Tensor sub.Tensor rsub.Scalar rsub.Tensor mul.Tensor div.Tensor div.Tensor_mode floor_divide
    remainder.Tensor remainder.Scalar_Tensor fmod.Tensor addcmul addcdiv lerp.Scalar lerp.Tensor neg abs sign
    sgn signbit copysign.Tensor relu floor ceil round round.decimals trunc frac reciprocal angle deg2rad rad2deg
    hypot heaviside nan_to_num nextafter ldexp.Tensor frexp.Tensor isnan isfinite isinf isposinf isneginf clamp
    clamp.Tensor clamp_min clamp_min.Tensor clamp_max clamp_max.Tensor minimum maximum fmin fmax logical_and
    logical_or logical_xor logical_not bitwise_not bitwise_and.Tensor bitwise_and.Scalar_Tensor
    bitwise_or.Tensor bitwise_or.Scalar_Tensor bitwise_xor.Tensor bitwise_xor.Scalar_Tensor
    bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar bitwise_left_shift.Scalar_Tensor
    __lshift__.Tensor bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar
    bitwise_right_shift.Scalar_Tensor __rshift__.Tensor pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar exp exp2
    expm1 log log2 log10 log1p logit logaddexp logaddexp2 xlogy.Tensor xlogy.Scalar_Self xlogy.Scalar_Other
    special_xlog1py special_xlog1py.self_scalar special_xlog1py.other_scalar special_entr sqrt rsqrt tan asin
    acos atan sinh cosh tanh asinh acosh atanh sinc sigmoid sin cos atan2 erf erfc erfinv special_erfcx
    special_ndtri special_log_ndtr lgamma digamma polygamma mvlgamma igamma igammac i0 special_i0e special_i1
    special_i1e logit_backward eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar
    gt.Tensor gt.Scalar ge.Tensor ge.Scalar where.self masked_fill.Scalar masked_fill.Tensor _to_copy
""".split()
REDUCTIONS = """
    sum sum.dim_IntList mean mean.dim nansum count_nonzero count_nonzero.dim_IntList prod prod.dim_int
    var.correction std.correction var_mean.correction std_mean.correction linalg_vector_norm norm.Scalar
    norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype logsumexp all all.dim all.dims any any.dim any.dims amax amin
    aminmax max max.dim min min.dim argmax argmin median median.dim nanmedian nanmedian.dim mode kthvalue sort
    sort.stable topk cumsum cumprod logcumsumexp cummax cummin renorm _softmax _log_softmax _cdist_forward
    _cdist_backward dist trace
""".split()
PRODUCTS = """
    mm mv bmm dot vdot addmm addmv addr baddbmm addbmm linalg_cross linalg_cholesky_ex linalg_inv_ex
    linalg_lu_factor_ex linalg_lu linalg_pinv.atol_rtol_tensor linalg_qr _linalg_det _linalg_slogdet
    _linalg_eigh _linalg_svd cholesky_inverse _linalg_solve_ex linalg_solve_triangular
    cholesky_solve linalg_lu_solve lu_unpack linalg_householder_product
""".split()
LAYOUT = """
    select.int slice.Tensor flip roll rot90 cat stack t transpose.int permute view _unsafe_view expand repeat
    unsqueeze squeeze.dim squeeze.dims select_scatter slice_scatter diagonal diagonal_copy diagonal_scatter
    diag_embed tril triu unfold unfold_copy block_diag diagonal_backward select_backward slice_backward
    unfold_backward clone
""".split()
INDEXING = """
    index_select index.Tensor index_put gather scatter.src scatter.value scatter.reduce scatter.value_reduce
    scatter_add scatter_reduce.two index_add index_copy index_reduce index_fill.int_Scalar index_fill.int_Tensor
    put searchsorted.Scalar isin.Scalar_Tensor searchsorted.Tensor bucketize.Tensor isin.Tensor_Tensor take
    isin.Tensor_Scalar
""".split()
NETWORKS = """
    gelu silu mish elu celu softplus log_sigmoid_forward leaky_relu hardtanh hardswish hardsigmoid softshrink
    hardshrink threshold _prelu_kernel glu _safe_softmax convolution constant_pad_nd im2col col2im pixel_shuffle
    pixel_unshuffle channel_shuffle native_layer_norm native_group_norm _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional _native_batch_norm_legit.no_stats
    _scaled_dot_product_flash_attention_for_cpu embedding mse_loss smooth_l1_loss huber_loss soft_margin_loss
    binary_cross_entropy binary_cross_entropy_with_logits nll_loss_forward nll_loss2d_forward multi_margin_loss
    reflection_pad1d replication_pad1d upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d
    reflection_pad2d replication_pad2d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa max_pool2d_with_indices avg_pool2d
    _adaptive_avg_pool2d adaptive_max_pool2d max_unpool2d reflection_pad3d replication_pad3d upsample_nearest3d
    _upsample_nearest_exact3d upsample_trilinear3d max_pool3d_with_indices avg_pool3d _adaptive_avg_pool3d
    adaptive_max_pool3d max_unpool3d
""".split()
BACKWARD = """
    gelu_backward silu_backward mish_backward elu_backward leaky_relu_backward softplus_backward hardtanh_backward
    hardswish_backward hardsigmoid_backward softshrink_backward hardshrink_backward threshold_backward
    log_sigmoid_backward tanh_backward sigmoid_backward native_dropout_backward _softmax_backward_data
    _log_softmax_backward_data glu_backward _prelu_kernel_backward mse_loss_backward smooth_l1_loss_backward
    huber_loss_backward soft_margin_loss_backward binary_cross_entropy_backward nll_loss_backward
    nll_loss2d_backward multi_margin_loss_backward convolution_backward native_layer_norm_backward
    native_group_norm_backward native_batch_norm_backward _scaled_dot_product_flash_attention_for_cpu_backward
    embedding_dense_backward reflection_pad1d_backward replication_pad1d_backward upsample_nearest1d_backward
    _upsample_nearest_exact1d_backward upsample_linear1d_backward reflection_pad2d_backward
    replication_pad2d_backward upsample_nearest2d_backward _upsample_nearest_exact2d_backward
    upsample_bilinear2d_backward upsample_bicubic2d_backward _upsample_bilinear2d_aa_backward
    _upsample_bicubic2d_aa_backward max_pool2d_with_indices_backward avg_pool2d_backward
    adaptive_max_pool2d_backward _adaptive_avg_pool2d_backward reflection_pad3d_backward replication_pad3d_backward
    upsample_nearest3d_backward _upsample_nearest_exact3d_backward upsample_trilinear3d_backward
    max_pool3d_with_indices_backward avg_pool3d_backward adaptive_max_pool3d_backward _adaptive_avg_pool3d_backward
""".split()
FACTORIES = "zeros_like ones_like full_like".split()
RANDOM = [f"grid::{name}" for name in "rand randn randint randperm bernoulli dropout".split()]
COMPOSITES = [f"grid::{name}" for name in ("asset", "constant", "column", "columns", "count", "aggregate", "parameter")]

OPERATIONS = frozenset(
    [
        f"aten::{name}"
        for name in (*POINTWISE, *REDUCTIONS, *PRODUCTS, *LAYOUT, *INDEXING, *NETWORKS, *BACKWARD, *FACTORIES)
    ]
    + RANDOM
    + COMPOSITES
)
