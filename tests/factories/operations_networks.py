"""Calls of the operations of neural networks and of their gradients, for a batch of n and d channels.

Most calls have the batch first; some are in an unbatched layout, or pair extents that are equal
only by chance.
"""

from __future__ import annotations

from collections.abc import Iterator

from gridclient.program.graph import Dtype
from tests.factories.operations import Sample, T

UNARY: dict[str, list[list[float]]] = {
    "gelu": [[]], "silu": [[]], "mish": [[]], "hardswish": [[]], "hardsigmoid": [[]],
    "log_sigmoid_forward": [[]], "elu": [[], [0.5, 1.5, 2.0]], "celu": [[], [0.5]], "leaky_relu": [[], [-0.5]],
    "hardtanh": [[], [0.0, 6.0]], "softplus": [[], [2.0, 1.0]], "softshrink": [[], [0.1]],
    "hardshrink": [[], [0.1]], "threshold": [[0.1, 20.0]],
}  # fmt: skip
SLOPES: dict[str, list[list[float]]] = {
    "threshold_backward": [[0.1]], "gelu_backward": [[]], "silu_backward": [[]], "mish_backward": [[]],
    "hardswish_backward": [[]], "hardsigmoid_backward": [[]], "hardtanh_backward": [[-1.0, 1.0]],
    "softplus_backward": [[1.0, 20.0]], "softshrink_backward": [[0.5]], "hardshrink_backward": [[0.5]],
    "sigmoid_backward": [[]], "tanh_backward": [[]], "leaky_relu_backward": [[0.01, False]],
}  # fmt: skip
MEAN, SUM, NONE = 1, 2, 0


def calls(n: int, d: int) -> Iterator[Sample]:
    """Valid and doubtful calls; `operations.fits` leaves out what torch does not take."""
    yield from _activations(n, d)
    yield from _convolutions(n, d)
    yield from _pools(n, d)
    yield from _pads(n, d)
    yield from _resized(n, d)
    yield from _norms(n, d)
    yield from _attention(n, d)
    yield from _embeddings(n, d)
    yield from _losses(n, d)
    yield from _placed(n, d)


def _activations(n: int, d: int) -> Iterator[Sample]:
    for shape in [(n, d), (n,), (n, d, 2)]:
        for name, choices in UNARY.items():
            for more in choices:
                yield Sample(f"aten::{name}", [T(shape), *more])
        for name, choices in SLOPES.items():
            for more in choices:
                yield Sample(f"aten::{name}", [T(shape), T(shape), *more])
        for way in ("none", "tanh"):
            yield Sample("aten::gelu", [T(shape)], {"approximate": way})
            yield Sample("aten::gelu_backward", [T(shape), T(shape)], {"approximate": way})
        yield Sample("aten::elu_backward", [T(shape), 1.0, 1.0, 1.0, False, T(shape)])
        yield Sample("aten::elu_backward", [T(shape), 1.0, 1.0, 1.0, True, T(shape)])
        yield Sample("aten::log_sigmoid_backward", [T(shape), T(shape), T(shape)])
        yield Sample("aten::log_sigmoid_backward", [T(shape), T(shape), T((0,))])
        yield Sample("aten::native_dropout_backward", [T(shape), T(shape, "bool"), 2.0])
        for dim in range(len(shape)):
            yield Sample("aten::_safe_softmax", [T(shape), dim])
            for name in ("_softmax_backward_data", "_log_softmax_backward_data"):
                yield Sample(f"aten::{name}", [T(shape), T(shape), dim, Dtype("float32")])
    for other in [(d,), (n, d), (n, 1), (1, d)]:
        for name in ("silu_backward", "threshold_backward"):
            yield Sample(f"aten::{name}", [T((n, d)), T(other), *([0.0] if "threshold" in name else [])])
        yield Sample("aten::_prelu_kernel", [T((n, d)), T(other)])
        yield Sample("aten::_prelu_kernel_backward", [T((n, d)), T((n, d)), T(other)])
    for shape in [(n, 2 * d), (2 * n, d)]:
        for dim in (0, 1, -1):
            yield Sample("aten::glu", [T(shape), dim])
            half = (shape[0], d) if dim else (n, d)
            yield Sample("aten::glu_backward", [T(half), T(shape), dim])


def _convolutions(n: int, d: int) -> Iterator[Sample]:
    for rank, wide in ((1, 5), (2, 4), (3, 3)):
        space = (wide,) * rank
        ones, zeros = [1] * rank, [0] * rank
        for transposed in (False, True):
            weight = (d, 3, *[2] * rank) if transposed else (3, d, *[2] * rank)
            for stride, padding in ((ones, zeros), ([2] * rank, ones)):
                rest = [stride, padding, ones, transposed, zeros, 1]
                if transposed:
                    out = [(wide - 1) * s - 2 * p + 2 for s, p in zip(stride, padding, strict=True)]
                else:
                    out = [(wide + 2 * p - 2) // s + 1 for s, p in zip(stride, padding, strict=True)]
                for bias in (None, T((3,))):
                    yield Sample("aten::convolution", [T((n, d, *space)), T(weight), bias, *rest])
                    yield Sample("aten::convolution", [T((d, *space)), T(weight), bias, *rest])
                for mask in ([True, True, True], [True, True, False], [False, True, False], [True, False, False]):
                    yield Sample(
                        "aten::convolution_backward",
                        [T((n, 3, *out)), T((n, d, *space)), T(weight), [3], *rest, mask],
                    )
        # Each channel by itself, which some kernels do in another way; dilated.
        yield Sample(
            "aten::convolution",
            [T((n, d, *space)), T((d, 1, *[2] * rank)), None, ones, zeros, [2] * rank, False, zeros, d],
        )


def _pools(n: int, d: int) -> Iterator[Sample]:
    for rank, deep in ((2, 4), (3, 4)):
        for front in [(n, d), (d,)]:
            space, half = (*front, *[deep] * rank), (*front, *[deep // 2] * rank)
            kernel, stride, zeros, ones = [2] * rank, [2] * rank, [0] * rank, [1] * rank
            for ceil in (False, True):
                yield Sample(f"aten::max_pool{rank}d_with_indices", [T(space), kernel, stride, zeros, ones, ceil])
                yield Sample(f"aten::avg_pool{rank}d", [T(space), kernel, stride, zeros, ceil, True, None])
            yield Sample(f"aten::max_pool{rank}d_with_indices", [T(space), [3], [], [1]])
            yield Sample(f"aten::avg_pool{rank}d", [T(space), [3] * rank, [1], [1], False, False, 5])
            yield Sample(
                f"aten::max_pool{rank}d_with_indices_backward",
                [T(half), T(space), kernel, stride, zeros, ones, False, T(half, "int64")],
            )
            yield Sample(
                f"aten::avg_pool{rank}d_backward", [T(half), T(space), kernel, stride, zeros, False, True, None]
            )
            for size in ([2] * rank, [1] * rank, [3] * rank):
                made = (*front, *size)
                yield Sample(f"aten::_adaptive_avg_pool{rank}d", [T(space), size])
                yield Sample(f"aten::adaptive_max_pool{rank}d", [T(space), size])
                yield Sample(f"aten::_adaptive_avg_pool{rank}d_backward", [T(made), T(space)])
                yield Sample(f"aten::adaptive_max_pool{rank}d_backward", [T(made), T(space), T(made, "int64")])
            more = [stride, zeros] if rank == 3 else []
            yield Sample(f"aten::max_unpool{rank}d", [T(half), T(half, "int64"), [deep] * rank, *more])
    yield Sample("aten::im2col", [T((n, d, 4, 4)), [2, 2], [1, 1], [1, 1], [1, 1]])
    yield Sample("aten::im2col", [T((d, 4, 4)), [2, 2], [1, 1], [0, 0], [2, 2]])
    yield Sample("aten::col2im", [T((n, 4 * d, 4)), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]])
    yield Sample("aten::col2im", [T((4 * d, 4)), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]])


def _pads(n: int, d: int) -> Iterator[Sample]:
    for shape in [(n, d), (n, d, 3)]:
        for pad in ([1, 0], [0, 2, 0, 0], [0, 0, 1, 1], [-1, 1], []):
            yield Sample("aten::constant_pad_nd", [T(shape), pad, 0.5])
    for rank in (1, 2, 3):
        for front in [(n, d), (d,)]:
            pad = [1, 2] * rank
            before, after = (*front, *[3] * rank), (*front, *[6] * rank)
            for kind in ("reflection", "replication"):
                yield Sample(f"aten::{kind}_pad{rank}d", [T(before), pad])
                yield Sample(f"aten::{kind}_pad{rank}d_backward", [T(after), T(before), pad])


def _resized(n: int, d: int) -> Iterator[Sample]:
    kinds = {
        1: ["upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d"],
        2: [
            *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"),
            *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
        ],
        3: ["upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d"],
    }
    for rank, names in kinds.items():
        before = (n, d, *[3] * rank)
        for name in names:
            for out, scale in ((6, 2.0), (5, 1.7), (2, None), (6, 1e-300), (6, float("nan"))):
                for corners in [[]] if "nearest" in name else [[False], [True]]:
                    more = [*corners, *[scale] * rank]
                    after = (n, d, *[out] * rank)
                    yield Sample(f"aten::{name}", [T(before), [out] * rank, *more])
                    yield Sample(f"aten::{name}_backward", [T(after), [out] * rank, list(before), *more])
    yield Sample("aten::pixel_shuffle", [T((n, 4 * d, 2, 2)), 2])
    yield Sample("aten::pixel_shuffle", [T((4 * n, d, 2)), 2])
    yield Sample("aten::pixel_unshuffle", [T((n, d, 4, 2)), 2])
    yield Sample("aten::channel_shuffle", [T((n, 2 * d, 2)), 2])
    yield Sample("aten::channel_shuffle", [T((2 * d, n, 2)), 2])


def _norms(n: int, d: int) -> Iterator[Sample]:
    every = [True, True, True]
    for shape, normal in [((n, d), [d]), ((n, 2, d), [d]), ((n, 2, d), [2, d]), ((n, d), [n, d]), ((n,), [n])]:
        weight = T(tuple(normal))
        front = (*shape[: len(shape) - len(normal)], *[1] * len(normal))
        for pair in ([None, None], [weight, None], [weight, weight]):
            yield Sample("aten::native_layer_norm", [T(shape), normal, *pair, 1e-5])
            yield Sample(
                "aten::native_layer_norm_backward",
                [
                    T(shape),
                    T(shape),
                    normal,
                    T(front),
                    T(front),
                    *pair,
                    [True, pair[0] is not None, pair[1] is not None],
                ],
            )
    for groups in (1, d):
        for pair in ([None, None], [T((d,)), T((d,))]):
            yield Sample("aten::native_group_norm", [T((n, d, 3)), *pair, n, d, 3, groups, 1e-5])
        moments = T((n, groups))
        for weight in (None, T((d,))):
            yield Sample(
                "aten::native_group_norm_backward",
                [
                    T((n, d, 3)),
                    T((n, d, 3)),
                    moments,
                    moments,
                    weight,
                    n,
                    d,
                    3,
                    groups,
                    [True, weight is not None, weight is not None],
                ],
            )
    c = T((d,))
    for shape in [(n, d), (n, d, 3)]:
        for pair in ([None, None], [c, c]):
            yield Sample("aten::_native_batch_norm_legit_no_training", [T(shape), *pair, c, c, 0.1, 1e-5])
            yield Sample("aten::_native_batch_norm_legit_functional", [T(shape), *pair, c, c, True, 0.1, 1e-5])
            yield Sample("aten::_native_batch_norm_legit.no_stats", [T(shape), *pair, True, 0.1, 1e-5])
        for weight in (None, c):
            yield Sample(
                "aten::native_batch_norm_backward", [T(shape), T(shape), weight, c, c, c, c, True, 1e-5, every]
            )
            yield Sample(
                "aten::native_batch_norm_backward",
                [T(shape), T(shape), weight, c, c, T((0,)), T((0,)), False, 1e-5, [True, weight is not None, False]],
            )


def _attention(n: int, d: int) -> Iterator[Sample]:
    name = "aten::_scaled_dot_product_flash_attention_for_cpu"
    query, key, log = T((n, 2, 3, d)), T((n, 2, 4, d)), T((n, 2, 3))
    for mask in (None, T((3, 4)), T((n, 2, 3, 4)), T((n, 1, 1, 4)), T((1, 1, 3, 4))):
        more = {} if mask is None else {"attn_mask": mask}
        yield Sample(name, [query, key, key, 0.0, False], more)
        yield Sample(f"{name}_backward", [query, query, key, key, query, log, 0.0, False], more)
    yield Sample(name, [query, query, query, 0.0, True], {"scale": 0.25})
    yield Sample(f"{name}_backward", [query, query, query, query, query, log, 0.0, True], {"scale": 0.25})


def _embeddings(n: int, d: int) -> Iterator[Sample]:
    for shape in [(n,), (n, 3), (3, n), (0, n)]:
        index = T(shape, "int64")
        yield Sample("aten::embedding", [T((4, d)), index])
        yield Sample("aten::embedding", [T((4, d)), index, 1, True])
        for padding, frequent in ((-1, False), (1, True)):
            yield Sample("aten::embedding_dense_backward", [T((*shape, d)), index, 4, padding, frequent])
    yield Sample("aten::embedding", [T((n, d)), T((2,), "int64")])
    yield Sample("aten::embedding", [T((0, d)), T((n,), "int64")])


def _losses(n: int, d: int) -> Iterator[Sample]:
    x, rows = T((n, d)), T((n,))
    for how in (NONE, MEAN, SUM):
        back = x if how == NONE else T(())
        for other in (x, T((d,)), T((n, 1)), T((d, n))):
            for name, more in (
                ("mse_loss", []),
                ("smooth_l1_loss", [0.5]),
                ("huber_loss", [0.5]),
                ("soft_margin_loss", []),
            ):
                yield Sample(f"aten::{name}", [x, other, how, *more])
                yield Sample(f"aten::{name}_backward", [back, x, other, how, *more])
        for weight in (None, x, T((d,)), T((n, 1))):
            yield Sample("aten::binary_cross_entropy", [x, x, weight, how])
            yield Sample("aten::binary_cross_entropy_backward", [back, x, x, weight, how])
            for positive in (None, T((d,))):
                yield Sample("aten::binary_cross_entropy_with_logits", [x, x, weight, positive, how])
        back = rows if how == NONE else T(())
        for weight in (None, T((d,))):
            for ignore in (-100, 1):
                index = T((n,), "int64")
                yield Sample("aten::nll_loss_forward", [x, index, weight, how, ignore])
                yield Sample("aten::nll_loss_backward", [back, x, index, weight, how, ignore, T(())])
                plane, places = T((n, d, 2, 2)), T((n, 2, 2), "int64")
                over = T((n, 2, 2)) if how == NONE else T(())
                yield Sample("aten::nll_loss2d_forward", [plane, places, weight, how, ignore])
                yield Sample("aten::nll_loss2d_backward", [over, plane, places, weight, how, ignore, T(())])
            yield Sample("aten::multi_margin_loss", [x, T((n,), "int64"), 1, 0.5, weight, how])
            yield Sample("aten::multi_margin_loss_backward", [back, x, T((n,), "int64"), 2, 1, weight, how])
        yield Sample("aten::nll_loss_forward", [rows, T((), "int64"), None, how, -100])
        yield Sample("aten::nll_loss_backward", [T(()), rows, T((), "int64"), None, how, -100, T(())])
        yield Sample("aten::multi_margin_loss", [rows, T((), "int64"), 1, 1, None, how])


def _placed(n: int, d: int) -> Iterator[Sample]:
    for dim in (0, 1, -1):
        rest = (d,) if dim == 0 else (n,)
        yield Sample("aten::select_backward", [T(rest), [n, d], dim, 0])
        yield Sample("aten::select_backward", [T(rest), [n, d], dim, -1])
        extent = n if dim == 0 else d
        for start, stop, step in ((0, 2**63 - 1, 1), (0, 1, 1), (1, 9, 2)):
            left = len(range(extent)[start:stop:step])
            part = (left, d) if dim == 0 else (n, left)
            yield Sample("aten::slice_backward", [T(part), [n, d], dim, start, stop, step])
        yield Sample("aten::slice_backward", [T((n, d)), [n, d + 3] if dim else [n + 3, d], dim, 2, extent + 2, 1])
        windows = (2, d, 2) if dim == 0 else (n, 2, 2)
        yield Sample("aten::unfold_backward", [T(windows), [3, d] if dim == 0 else [n, 3], dim, 2, 1])
    side = min(n, d)
    yield Sample("aten::diagonal_backward", [T((side,)), [n, d], 0, 0, 1])
    yield Sample("aten::diagonal_backward", [T((n, d)), [n, d, d], 0, 1, 2])
    yield Sample("aten::diagonal_backward", [T((d, n)), [n, d, n], 0, 0, 2])
