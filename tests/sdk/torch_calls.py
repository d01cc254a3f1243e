"""Calls of torch's public functions, as text: each is run on local tensors and on pointers to the same ones.

In the calls, `x y` are float [4, 5], `p` likewise in (0, 1), `i j` integers, `k` bool; `z` is one number; `v` is [5],
`w` [4];
`a b` fit for a product; `s` is symmetric positive definite, `t` triangular [4, 4]; `A B` are batches of matrices;
`sig img vol` are [2, 3, 8], [2, 3, 8, 8], [1, 2, 4, 4, 4]; `at` three positions and `to` classes of four rows.
"""

from __future__ import annotations

import functools
import re

import torch

UNARY = """
abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil conj cos cosh
deg2rad digamma erf erfc erfinv exp exp2 expm1 fix floor frac isfinite isinf isnan isneginf isposinf isreal lgamma log
log10 log1p log2 logit negative neg positive rad2deg real reciprocal relu resolve_conj round rsqrt selu sgn sigmoid sign
signbit sin sinc sinh sqrt square tan tanh trunc celu nan_to_num i0 logical_not sum mean prod std var std_mean var_mean
amax amin aminmax max min median nanmedian argmax argmin all any count_nonzero norm nansum nanmean ravel flatten
t fliplr flipud msort diag diagflat triu tril numel is_floating_point is_complex is_tensor clone detach zeros_like
ones_like empty_like rad2deg squeeze argsort sort unbind atleast_1d atleast_2d atleast_3d
nonzero argwhere unique unique_consecutive bernoulli poisson adjoint resolve_neg corrcoef cov
histc
""".split()
SPECIAL = """
airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammaln i0 i0e i1
i1e log1p log_ndtr logit modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 ndtr ndtri psi
round scaled_modified_bessel_k0 scaled_modified_bessel_k1 sinc spherical_bessel_j0
""".split()
ACTIVATIONS = """
celu elu gelu hardsigmoid hardswish hardtanh hardshrink leaky_relu logsigmoid mish relu relu6 selu sigmoid silu softplus
softshrink softsign tanh tanhshrink normalize rrelu
""".split()
IN_PLACE = """
abs_ acos_ asin_ atan_ ceil_ cos_ cosh_ deg2rad_ digamma_ erf_ erfc_ erfinv_ exp_ exp2_ expm1_ floor_ frac_ lgamma_ log_
log10_ log1p_ log2_ logit_ neg_ negative_ rad2deg_ reciprocal_ relu_ round_ rsqrt_ sgn_ sigmoid_ sign_ sin_ sinc_ sinh_
sqrt_ square_ tan_ tanh_ trunc_ zero_ nan_to_num_ logical_not_ tril_ triu_ i0_ detach_ t_ squeeze_
""".split()
METHODS = """
abs all any argmax argmin argsort bool byte ceil char clone contiguous cos cpu detach diagonal dim double element_size
erf exp flatten float floor half int isnan log long max mean median min ndimension nelement norm
numel prod requires_grad_ round short sigmoid sign sin size sort sqrt square std stride sum t tanh tolist numpy
trunc type var is_contiguous is_signed get_device data_ptr storage_offset nonzero unbind bfloat16 is_pinned
is_shared share_memory_ to_sparse
""".split()
BINARY = """
add sub mul div true_divide subtract multiply divide atan2 arctan2 copysign fmax fmin fmod remainder floor_divide hypot
logaddexp logaddexp2 maximum minimum nextafter eq ne lt le gt ge greater less greater_equal less_equal not_equal isclose
logical_and logical_or logical_xor dist xlogy heaviside float_power pow max min equal allclose rsub complex polar ldexp
""".split()
INTEGERS = "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift gcd lcm".split()
LOSSES = (
    "l1_loss mse_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy binary_cross_entropy_with_logits".split()
)
FFT = "fft ifft rfft irfft hfft ihfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn fftshift ifftshift".split()

CALLS = """
torch.addmm(b[:4, :3], a, b); torch.mm(a, b); torch.matmul(a, b); torch.matmul(A, B); torch.bmm(A, B); torch.mv(a, v)
torch.dot(v, v); torch.vdot(v, v); torch.inner(x, y); torch.outer(w, v); torch.ger(w, v); torch.addmv(w, a, v)
torch.addr(x, w, v); torch.baddbmm(A @ B, A, B); torch.addbmm(A[0] @ B[0], A, B); torch.chain_matmul(a, b, b.t())
torch.linalg.multi_dot([a, b, b.t()]); torch.einsum("ij,jk->ik", a, b); torch.einsum("bij,bjk->bi", A, B)
torch.tensordot(a, b, 1); torch.kron(w, v); torch.cross(b, b.flip(0)); torch.linalg.cross(b, b.flip(0))
torch.trace(s); torch.linalg.vecdot(x, y); torch.matrix_power(s, 3); torch.linalg.matrix_power(s, 2)
torch.linalg.matmul(a, b); torch.linalg.norm(x); torch.linalg.norm(s, 2); torch.linalg.vector_norm(x)
torch.linalg.vector_norm(x, 3, dim=1); torch.linalg.matrix_norm(s); torch.linalg.matrix_norm(s, "nuc")
torch.linalg.det(s); torch.det(s); torch.logdet(s); torch.slogdet(s); torch.linalg.slogdet(s); torch.linalg.inv(s)
torch.inverse(s); torch.linalg.inv_ex(s); torch.linalg.solve(s, w); torch.linalg.solve_ex(s, w)
torch.linalg.solve_triangular(t, s, upper=False); torch.linalg.cholesky(s)
torch.linalg.cholesky_ex(s); torch.cholesky(s); torch.cholesky_inverse(t); torch.cholesky_solve(s, t)
torch.linalg.qr(a); torch.qr(a); torch.linalg.svd(a); torch.svd(a); torch.linalg.svdvals(a); torch.linalg.eigh(s)
torch.linalg.eigvalsh(s); torch.linalg.eig(s); torch.linalg.eigvals(s); torch.linalg.pinv(a); torch.pinverse(a)
torch.linalg.matrix_rank(a); torch.linalg.cond(s); torch.linalg.lu(s); torch.linalg.lu_factor(s)
torch.linalg.lu_factor_ex(s); torch.linalg.lstsq(a.t(), v); torch.linalg.matrix_exp(s); torch.matrix_exp(s)
torch.linalg.householder_product(a.t(), w); torch.linalg.diagonal(s); torch.linalg.ldl_factor(s)
torch.linalg.tensorsolve(s, w); torch.linalg.vander(v); torch.vander(v); torch.geqrf(a); torch.lu(s)
torch.linalg.multi_dot([a, b]); torch.linalg.tensorinv(s.reshape(2, 2, 4), ind=2); torch.sum(x, 0)
torch.sum(x, (0, 1), True); torch.sum(i, 1, dtype=torch.float32); torch.mean(x, 1, True); torch.prod(x, 1)
torch.std(x, 0, correction=0); torch.var(x, (0, 1)); torch.var_mean(x, 1); torch.std_mean(x, 0); torch.amax(x, 1)
torch.amin(x, (0, 1)); torch.aminmax(x, dim=1); torch.max(x, 1); torch.min(x, 0); torch.median(x, 1)
torch.nanmedian(x, 0); torch.mode(i, 1); torch.argmax(x, 1); torch.argmin(x, 0, True); torch.all(k, 1)
torch.any(k, 0); torch.count_nonzero(x, 1); torch.logsumexp(x, 1); torch.norm(x, dim=1); torch.norm(x, 1)
torch.nansum(x, 1); torch.nanmean(x, 1); torch.quantile(x, 0.3); torch.quantile(x, torch.tensor([0.1, 0.9]), dim=1)
torch.nanquantile(x, 0.5, dim=0); torch.kthvalue(x, 2); torch.topk(x, 2); torch.topk(x, 2, largest=False)
torch.sort(x, 1, True); torch.sort(x, stable=True, dim=0); torch.argsort(x, 0); torch.cumsum(x, 0)
torch.cumprod(x, 1); torch.cummax(x, 0); torch.cummin(x, 1); torch.logcumsumexp(x, 0); torch.diff(x)
torch.trapezoid(x); torch.trapz(x); torch.cumulative_trapezoid(x); torch.renorm(x, 2, 0, 1.0); torch.dist(x, y, 1)
torch.cdist(x, y); torch.pdist(x); torch.cosine_similarity(x, y); torch.pairwise_distance(x, y); torch.histogram(x, 4)
torch.bincount(i.flatten()); torch.bucketize(x, torch.tensor([0.0, 0.5]))
torch.searchsorted(torch.tensor([0.0, 0.5]), x); torch.isin(i, j); torch.unique(i, dim=0); torch.gradient(x)
torch.std(x, 1, unbiased=False); torch.softmax(x, 1); torch.log_softmax(x, 0); torch.special.softmax(x, 1)
torch.special.log_softmax(x, 1); torch.special.logsumexp(x, 1); torch.cat([x, y]); torch.concat([x, y], 1)
torch.concatenate([x, y]); torch.stack([x, y], 1); torch.hstack([x, y]); torch.vstack([x, y]); torch.dstack([x, y])
torch.row_stack([x, y]); torch.column_stack([x, y]); torch.block_diag(x, y); torch.chunk(x, 2); torch.split(x, 3)
torch.split(x, [1, 3]); torch.tensor_split(x, 3); torch.hsplit(x, [2]); torch.vsplit(x, 2); torch.dsplit(A, 2)
torch.unsafe_chunk(x, 2); torch.unsafe_split(x, 2); torch.select(x, 0, 1); torch.narrow(x, 1, 1, 2)
torch.index_select(x, 0, at); torch.gather(x, 0, i[:3]); torch.take(x, at); torch.take_along_dim(x, i, 0)
torch.masked_fill(x, k, 2.0); torch.masked_select(x, k); torch.masked_scatter(x, k, y); torch.where(k, x, y)
torch.where(k, x, 0.0); torch.where(k); torch.index_add(x, 0, at, y[:3]); torch.index_copy(x, 0, at, y[:3])
torch.index_fill(x, 0, at, 2.0); torch.index_put(x, (at,), y[:3]); torch.index_reduce(x, 0, at, y[:3], "mean")
torch.scatter(x, 0, i, y); torch.scatter(x, 0, i, 3.0); torch.scatter_add(x, 0, i, y)
torch.scatter_reduce(x, 0, i, y, "amax"); torch.select_scatter(x, v, 0, 1); torch.slice_scatter(x, y[:2], 0, 0, 2)
torch.diagonal_scatter(x, w, 0); torch.diagonal(x); torch.diag(v); torch.diag_embed(x); torch.transpose(x, 0, 1)
torch.swapaxes(x, 0, 1); torch.swapdims(x, 0, 1); torch.permute(A, (2, 0, 1)); torch.movedim(A, 0, 2)
torch.moveaxis(A, 0, 1); torch.reshape(x, (2, 10)); torch.flatten(A, 1); torch.unflatten(x, 0, (2, 2))
torch.unsqueeze(x, 1); torch.squeeze(x[:1], 0); torch.broadcast_to(v, (3, 5)); torch.broadcast_tensors(x, v)
torch.tile(x, (2, 1)); torch.repeat_interleave(x, 2, 0); torch.roll(x, 1); torch.roll(x, (1, 2), (0, 1))
torch.flip(x, (0, 1)); torch.rot90(x); torch.triu(x, 1); torch.tril(x, -1); torch.combinations(v)
torch.cartesian_prod(v, w); torch.meshgrid(v, w, indexing="ij"); torch.full_like(x, 2.5)
torch.zeros_like(x, dtype=torch.int64); torch.clamp(x, -1, 1); torch.clamp(x, y - 1, y + 1); torch.clip(x, 0.0)
torch.clamp_min(x, 0.5); torch.clamp_max(x, 0.5); torch.lerp(x, y, 0.3); torch.lerp(x, y, p)
torch.addcmul(x, y, p, value=2); torch.addcdiv(x, y, p); torch.div(x, y, rounding_mode="floor")
torch.div(x, 2, rounding_mode="trunc"); torch.pow(p, 2); torch.pow(2, x); torch.pow(p, y); torch.polygamma(1, p)
torch.special.polygamma(2, p); torch.mvlgamma(p + 2, 2); torch.special.multigammaln(p + 2, 2); torch.logit(p, 1e-3)
torch.nan_to_num(x, 1.0); torch.round(x, decimals=1); torch.bitwise_not(i); torch.special.xlog1py(x, p)
torch.special.xlogy(x, p); torch.special.zeta(p + 2, p + 1); torch.special.gammainc(p, p)
torch.special.gammaincc(p, p); torch.igamma(p, p); torch.igammac(p, p); torch.frexp(x); torch.result_type(x, i)
torch.view_as_complex(x[:, :2].clone()); torch.is_same_size(x, y); torch.bernoulli(x, 0.5); torch.multinomial(p, 2)
torch.normal(x, 1.0); torch.rand_like(x); torch.randn_like(x); torch.randint_like(x, 5); torch.dropout(x, 0.5, True)
torch.native_dropout(x, 0.5, True); torch.alpha_dropout(x, 0.5, True); torch.feature_dropout(x, 0.5, True)
torch.rrelu(x); torch.prelu(x, v[:1]); torch.threshold(x, 0.1, 2.0); torch.hardshrink(x)
torch.conv1d(sig, sig[:, :, :3]); torch.conv2d(img, img[:, :, :3, :3]); torch.conv3d(vol, vol[:, :, :2, :2, :2])
torch.conv_transpose1d(sig, A[:1, :3, :3].repeat(3, 1, 1)); torch.conv_transpose2d(img, img[0, :, None, :3, :3])
torch.conv_transpose3d(vol, vol[0, :, None, :2, :2, :2])
torch.batch_norm(img, None, None, None, None, True, 0.1, 1e-5, False); torch.layer_norm(x, (5,), v, v)
torch.group_norm(img, 3); torch.instance_norm(img, None, None, None, None, True, 0.1, 1e-5, False)
torch.rms_norm(x, (5,)); torch.embedding(x, at); torch.embedding_bag(x, at, torch.tensor([0, 2]))
torch.bilinear(x, y, A[:, :1, :1].expand(2, 5, 5)); torch.avg_pool1d(sig, 2); torch.max_pool1d(sig, 2)
torch.max_pool2d(img, 2); torch.max_pool3d(vol, 2); torch.adaptive_avg_pool1d(sig, 3)
torch.adaptive_max_pool1d(sig, 3); torch.pixel_shuffle(img.repeat(1, 4, 1, 1), 2); torch.pixel_unshuffle(img, 2)
torch.channel_shuffle(vol, 2); torch.constant_pad_nd(x, (1, 2), 0.5); torch.stft(sig[0], 4, return_complex=True)
torch.cosine_embedding_loss(x, y, w.sign()); torch.margin_ranking_loss(x, y, x.sign())
torch.hinge_embedding_loss(x, y.sign()); torch.triplet_margin_loss(x, y, p)
torch.poisson_nll_loss(x, p, True, False, 1e-8, 1); torch.kl_div(x, p); torch.as_strided(x, (2,), (1,))
torch.lstm(A, (A[:1, :, :2], A[:1, :, :2]), gates(img, 8), True, 1, 0.0, False, False, False)
torch.gru(A, A[:1, :, :2], gates(img, 6), True, 1, 0.0, False, False, False)
torch.rnn_tanh(A, A[:1, :, :2], gates(img, 2), True, 1, 0.0, False, False, False)
torch.lstm_cell(a, (a[:, :2], b[:4, :2]), img[0, 0, :, :5], img[0, 1, :, :2])
torch.gru_cell(a, a[:, :2], img[0, 0, :6, :5], img[0, 1, :6, :2])
torch.rnn_tanh_cell(a, a[:, :2], img[0, 0, :2, :5], img[0, 1, :2, :2]); torch.is_nonzero(z); z.item()
F.conv1d(sig, sig[:, :, :3], w[:2], 2, 1); F.conv2d(img, img[:, :, :3, :3], None, 2, 1, 2)
F.conv2d(img, img[:, :1, :3, :3].repeat(3, 1, 1, 1)[:3], groups=3); F.conv3d(vol, vol[:, :, :3, :3, :3], padding=1)
F.conv_transpose2d(img, img[0, :, None, :3, :3], stride=2); F.linear(x, y, w)
F.bilinear(x, y, A[:, :1, :1].expand(2, 5, 5)); F.embedding(at, x); F.embedding_bag(at[None], x, mode="sum")
F.one_hot(to, 6); F.max_pool1d(sig, 2); F.max_pool2d(img, 3, 2, 1); F.max_pool2d(img, 2, return_indices=True)
F.max_pool3d(vol, 2); F.avg_pool1d(sig, 2); F.avg_pool2d(img, 2, ceil_mode=True); F.avg_pool3d(vol, 2)
F.lp_pool1d(sig, 2, 2); F.lp_pool2d(img, 2, 2); F.adaptive_avg_pool1d(sig, 3); F.adaptive_avg_pool2d(img, 3)
F.adaptive_avg_pool2d(img, 1); F.adaptive_avg_pool3d(vol, 2); F.adaptive_max_pool1d(sig, 3)
F.adaptive_max_pool2d(img, 3); F.adaptive_max_pool3d(vol, 2); F.fractional_max_pool2d(img, 2, 3)
F.max_unpool2d(*F.max_pool2d(img, 2, return_indices=True), 2); F.unfold(img, 3); F.fold(F.unfold(img, 3), (8, 8), 3)
F.pad(x, (1, 2)); F.pad(sig, (1, 2), "reflect"); F.pad(img, (1, 1, 2, 2), "replicate"); F.pad(sig, (1, 1), "circular")
F.interpolate(img, scale_factor=2); F.interpolate(img, size=(5, 5), mode="bilinear")
F.interpolate(img, scale_factor=1.5, mode="bicubic"); F.interpolate(sig, scale_factor=2, mode="linear")
F.interpolate(vol, scale_factor=2, mode="trilinear"); F.interpolate(img, size=(3, 3), mode="area")
F.upsample(img, scale_factor=2); F.grid_sample(img, img.tanh().permute(0, 2, 3, 1)[..., :2], align_corners=False)
F.affine_grid(A[:, :2, :3], (2, 3, 4, 4), False); F.pixel_shuffle(img.repeat(1, 4, 1, 1), 2)
F.pixel_unshuffle(img, 2); F.softmax(x, 1); F.softmin(x, 1); F.log_softmax(x, 1); F.gumbel_softmax(x); F.glu(x[:, :4])
F.gelu(x, approximate="tanh"); F.threshold(x, 0.1, 2.0); F.prelu(x, v[:1]); F.softplus(x, 2, 10); F.elu(x, 0.5)
F.hardtanh(x, -0.5, 0.5); F.leaky_relu(x, 0.3); F.layer_norm(x, (5,)); F.group_norm(img, 3)
F.batch_norm(img, img[0, :, 0, 0], p[0, :3], training=False)
F.batch_norm(img, img[0, :, 0, 0].clone(), p[0, :3].clone(), training=True); F.instance_norm(img); F.rms_norm(x, (5,))
F.local_response_norm(img, 2); F.dropout(x, 0.5, False); F.dropout(x); F.dropout1d(sig); F.dropout2d(img)
F.dropout3d(vol); F.alpha_dropout(x, training=True); F.feature_alpha_dropout(img, training=True)
F.rrelu(x, training=True); F.nll_loss(F.log_softmax(x, 1), to)
F.nll_loss(F.log_softmax(img, 1), to[:3].sum() * 0 + i[:2, :1, None].expand(2, 8, 8) % 3); F.cross_entropy(x, to)
F.cross_entropy(x, p); F.cross_entropy(x, to, label_smoothing=0.1); F.cross_entropy(x, to, v.abs(), reduction="sum")
F.binary_cross_entropy(p, 1 - p, reduction="sum"); F.binary_cross_entropy_with_logits(x, p, pos_weight=v.abs())
F.mse_loss(x, y, reduction="none"); F.gaussian_nll_loss(x, y, p); F.poisson_nll_loss(x, p)
F.cosine_embedding_loss(x, y, w.sign()); F.hinge_embedding_loss(x, y.sign()); F.margin_ranking_loss(x, y, x.sign())
F.multi_margin_loss(x, to); F.multilabel_margin_loss(x, i); F.multilabel_soft_margin_loss(x, p)
F.soft_margin_loss(x, y.sign()); F.triplet_margin_loss(x, y, p); F.triplet_margin_with_distance_loss(x, y, p)
F.ctc_loss(F.log_softmax(A, 2), torch.ones(3, 1, dtype=torch.int64), torch.tensor([2, 2, 2]), torch.tensor([1, 1, 1]))
F.cosine_similarity(x, y); F.pairwise_distance(x, y); F.pdist(x); F.scaled_dot_product_attention(A, A, A)
F.scaled_dot_product_attention(img, img, img, is_causal=True)
F.scaled_dot_product_attention(img, img, img, attn_mask=img[0, 0]); F.channel_shuffle(vol, 2)
F.kl_div(x, p, reduction="batchmean"); F.l1_loss(x, y, reduction="sum"); F.huber_loss(x, y, delta=0.3); x.add_(y)
x.add_(y, alpha=2); x.sub_(1); x.mul_(y); x.div_(p); x.div_(2, rounding_mode="floor"); x.fmod_(2); x.remainder_(y)
x.floor_divide_(2); p.pow_(2); p.pow_(y); x.addcmul_(y, p); x.addcdiv_(y, p, value=0.5); x.lerp_(y, 0.3)
x.lerp_(y, p); x.clamp_(-1, 1); x.clamp_(y - 1, y + 1); x.clamp_min_(0); x.clamp_max_(y); x.clip_(0, 1)
x.masked_fill_(k, 1.5); x.masked_fill_(k, z); x.masked_scatter_(k, y); x.index_put_((at,), y[:3])
x.index_put_((at,), v, accumulate=True); x.index_add_(0, at, y[:3]); x.index_copy_(0, at, y[:3])
x.index_fill_(1, at, 0.5); x.scatter_(0, i, y); x.scatter_(0, i, 2.0); x.scatter_(0, i, y, reduce="multiply")
x.scatter_add_(0, i, y); x.scatter_reduce_(0, i, y, "prod"); x.put_(at, y[0, :3]); x.copy_(y); x.copy_(v)
x.fill_(2.0); x.fill_(z); x.addmm_(a[:, :2], y[:2]); w.addmv_(a, v); x.addr_(w, v); x.cumsum_(0); x.cumprod_(1)
x.eq_(y); x.gt_(0); x.lt_(y); x.ge_(0); x.le_(0); x.ne_(y); x.atan2_(y); x.copysign_(y); x.hypot_(y); x.xlogy_(p)
x.logical_and_(k); x.logical_or_(k); x.logical_xor_(k); i.bitwise_and_(j); i.bitwise_or_(3); i.bitwise_xor_(j)
i.gcd_(j); x.heaviside_(y); x.nextafter_(y); x.float_power(2); x.renorm_(2, 0, 1.0); x.transpose_(0, 1)
x.unsqueeze_(0); x.resize_(2); x.set_(y); x.as_strided_((2,), (1,)); x.fill_diagonal_(3.0); x.normal_(); x.uniform_()
x.random_(5); x.bernoulli_(0.5); x.exponential_(); x.cauchy_(); x.log_normal_(); x.geometric_(0.5); x.apply_(abs)
x.map_(y, max); x.swapaxes_(0, 1); x.view(10, 2); x.view(torch.int32); x.view_as(y); x.reshape(-1); x.reshape_as(y)
x.expand(2, 4, 5); v.expand_as(x); x.repeat(2, 1); x.unfold(0, 2, 1); x.narrow(0, 1, 2); x.select(1, 2)
x.transpose(0, 1); x.permute(1, 0); x.flip(0); x.roll(2, 1); x.unsqueeze(-1); x.to(torch.float64); x.to(y)
x.type_as(i); x.type(torch.float16); x.new_zeros(3); x.new_ones(3); x.new_full((2,), 3.0); x.new_empty(2)
x.new_tensor([1.0]); x.index_select(1, at); x.gather(0, i); x.masked_fill(k, 0); x.masked_select(k); x.topk(2)
x.kthvalue(2); x.sum(dim=1, keepdim=True); x.mean((0, 1)); x.var(1, unbiased=False); x.norm(p=2, dim=1); x.cumsum(1)
x.logsumexp((0, 1)); x.std(0); x.matmul(y.t()); x.mm(y.t()); x.addmm(a[:, :2], y[:2]); v.dot(v); x.split(2)
x.chunk(2, 1); x.unbind(1); x.tril(1); x.is_set_to(y); x.data_ptr(); x.untyped_storage(); x.storage(); x.__array__()
x.__dlpack__(); x.__getitem__(at); x.__getitem__((slice(None), 1)); x.__getitem__(k); x.__getitem__((at, [0, 1, 2]))
x.__setitem__(k, 0.0); x.__setitem__(at, y[:3]); x.__setitem__((slice(None), 1), w); x.__contains__(1.0); x.__len__()
z.__bool__(); z.__float__(); z.__int__(); i[0, 0].__index__(); x.__iter__().__next__()
"""
GENERATED = (
    [f"torch.{name}(p)" for name in UNARY]
    + [f"torch.special.{name}(p)" for name in SPECIAL]
    + [f"F.{name}(x)" for name in ACTIVATIONS]
    + [f"p.{name}()" for name in IN_PLACE]
    + [f"p.{name}()" for name in METHODS]
    + [f"torch.{name}(x, y)" for name in BINARY]
    + [f"torch.{name}(i, j)" for name in INTEGERS]
    + [f"F.{name}(p, 1 - p)" for name in LOSSES]
    + [f"torch.fft.{name}(x)" for name in FFT]
)
_WORDS = re.compile(r"\b[A-Za-z]+\b")
_BETWEEN = re.compile(r";\s|\n")
ALL = list(dict.fromkeys(call for call in (*GENERATED, *map(str.strip, _BETWEEN.split(CALLS))) if call))
"""Every call, once."""


def name_of(call: str) -> str:
    """The function that a call is about: "torch.add", "F.relu", "Tensor.add_"."""
    name = call.partition("(")[0]
    return name if name.startswith(("torch.", "F.")) else f"Tensor.{name.rpartition('.')[2]}"


def gates(img: torch.Tensor, rows: int) -> list[torch.Tensor]:
    """Weights and biases of a recurrent layer from 4 features to 2."""
    return [img[0, 0, :rows, :4], img[0, 1, :rows, :2], img[0, 2, 0, :rows], img[0, 2, 1, :rows]]


def operands(call: str) -> dict[str, torch.Tensor]:
    """The tensors that a call names, the same each time, its own to change."""
    return {name: inputs()[name].clone() for name in set(_WORDS.findall(call)) & inputs().keys()}


@functools.cache
def inputs() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    x, y, s = normal(4, 5), normal(4, 5), normal(4, 4)
    spd = s @ s.t() + 4 * torch.eye(4)
    i, j = (torch.randint(0, 4, (4, 5), generator=random) for _ in range(2))
    return {
        "x": x, "y": y, "p": 0.1 + 0.8 * torch.rand(4, 5, generator=random), "i": i, "j": j, "k": normal(4, 5) > 0,
        "z": torch.tensor(1.5), "v": normal(5), "w": normal(4), "a": normal(4, 5), "b": normal(5, 3), "s": spd,
        "t": torch.linalg.cholesky(spd), "A": normal(2, 3, 4), "B": normal(2, 4, 5), "sig": normal(2, 3, 8),
        "img": normal(2, 3, 8, 8), "vol": normal(1, 2, 4, 4, 4), "at": torch.tensor([0, 2, 3]),
        "to": torch.tensor([1, 0, 4, 2]),
    }  # fmt: skip


SEEDED = frozenset(
    """
torch.bernoulli(p); torch.bernoulli(x, 0.5); torch.normal(x, 1.0); torch.rand_like(x); torch.randn_like(x)
torch.randint_like(x, 5); torch.dropout(x, 0.5, True); torch.native_dropout(x, 0.5, True)
torch.alpha_dropout(x, 0.5, True); torch.feature_dropout(x, 0.5, True); F.gumbel_softmax(x); F.dropout(x)
F.dropout1d(sig); F.dropout2d(img); F.dropout3d(vol); F.alpha_dropout(x, training=True)
F.feature_alpha_dropout(img, training=True); x.normal_(); x.uniform_(); x.random_(5); x.bernoulli_(0.5)
x.exponential_(); x.cauchy_(); x.log_normal_(); x.geometric_(0.5)
""".strip()
    .replace("\n", "; ")
    .split("; ")
)
"""Calls whose numbers come from a generator on the node."""
UNSET = frozenset(["torch.empty_like(p)", "x.new_empty(2)"])
"""Calls for memory without contents: zeros on a node."""
CLOSE = frozenset(
    [
        "torch.linalg.norm(s, 2)", 'torch.linalg.matrix_norm(s, "nuc")', "torch.linalg.svdvals(a)",
        "torch.linalg.eigvalsh(s)", "torch.linalg.cond(s)",
    ]
)  # fmt: skip
"""Calls for which torch takes another kernel on a subclass of its tensor: also with vectors that nobody asked for."""
REFUSED = frozenset(
    """
F.affine_grid F.bilinear F.ctc_loss F.embedding_bag F.fractional_max_pool2d F.gaussian_nll_loss F.grid_sample
F.multilabel_margin_loss F.pdist F.rrelu Tensor.__array__ Tensor.__bool__ Tensor.__contains__ Tensor.__dlpack__
Tensor.__float__ Tensor.__getitem__ Tensor.__index__ Tensor.__int__ Tensor.apply_ Tensor.as_strided_ Tensor.data_ptr
Tensor.fill_diagonal_ Tensor.gcd_ Tensor.is_pinned Tensor.is_set_to Tensor.is_shared Tensor.item Tensor.map_
Tensor.masked_scatter_ Tensor.masked_select Tensor.nonzero Tensor.numpy Tensor.resize_ Tensor.set_
Tensor.share_memory_ Tensor.squeeze_ Tensor.storage Tensor.storage_offset Tensor.swapaxes_ Tensor.t_ Tensor.to_sparse
Tensor.tolist Tensor.transpose_ Tensor.unfold Tensor.unsqueeze_ Tensor.untyped_storage Tensor.view torch.allclose
torch.argwhere torch.as_strided torch.bilinear torch.bincount torch.cholesky torch.combinations torch.complex
torch.embedding_bag torch.equal torch.fft.fft torch.fft.fft2 torch.fft.fftn torch.fft.hfft torch.fft.ifft
torch.fft.ifft2 torch.fft.ifftn torch.fft.ihfft torch.fft.irfft torch.fft.irfft2 torch.fft.irfftn torch.fft.rfft
torch.fft.rfft2 torch.fft.rfftn torch.gcd torch.geqrf torch.histc torch.histogram torch.is_nonzero torch.lcm
torch.linalg.eig torch.linalg.eigvals torch.linalg.ldl_factor torch.linalg.lstsq
torch.linalg.matrix_exp torch.lstm torch.masked_scatter torch.masked_select
torch.matrix_exp torch.multinomial torch.nonzero torch.pdist torch.poisson torch.polar
torch.special.airy_ai torch.special.bessel_j0 torch.special.bessel_j1 torch.special.bessel_y0 torch.special.bessel_y1
torch.special.modified_bessel_i0 torch.special.modified_bessel_i1 torch.special.modified_bessel_k0
torch.special.modified_bessel_k1 torch.special.scaled_modified_bessel_k0 torch.special.scaled_modified_bessel_k1
torch.special.spherical_bessel_j0 torch.special.zeta torch.stft torch.unique torch.unique_consecutive torch.vander
torch.view_as_complex torch.where
""".split()
)
"""Functions that may be refused, at least in one of the ways in which they are called here."""
EQUAL = frozenset(map(name_of, ALL)) - REFUSED
"""Functions that must give what local torch gives."""
