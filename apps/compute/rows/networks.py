"""Layers of networks: activations, convolution, pooling, normalisation, attention, losses."""

from __future__ import annotations

from math import prod

from apps.compute.labels import Shape
from apps.compute.rows.base import Operation, aten, per_input, per_output, several
from apps.compute.rules import networks, pointwise


def convolving(operands: list[Shape], outputs: list[Shape]) -> int:
    """Two for each weight at each place: of the result, or of the input where it is transposed (or may be)."""
    taken, weight = operands[:2]
    straight = prod(outputs[0]) * prod(weight[1:])
    # Transposed, what lies between the places is written (and added up) too.
    transposed = max(prod(taken) * prod(weight[1:]), prod(outputs[0]) * prod(weight[2:]))
    if weight[0] != outputs[0][1]:
        straight = 0
    if weight[0] != taken[1]:
        transposed = 0
    return 2 * max(straight, transposed) + per_input(operands, outputs)


def attending(operands: list[Shape], outputs: list[Shape]) -> int:
    """Two for each pair of positions and each element of these, in each of two products; and a softmax."""
    query, key = operands[:2]
    return prod(query[:3]) * key[2] * (4 * query[3] + 10) + per_input(operands, outputs)


RESIZED = {
    1: ["upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d"],
    2: [
        *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"),
        *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    ],
    3: ["upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d"],
}
"""Interpolations, by the number of axes that they resize."""
_ACTIVATIONS = {
    "gelu": "gelu of {self}",
    "silu": "silu of {self}",
    "mish": "mish of {self}",
    "elu": "elu of {self}",
    "celu": "celu of {self}",
    "softplus": "softplus of {self}",
    "log_sigmoid_forward": "logarithm of the sigmoid of {self}",
    "leaky_relu": "{self}, negative values times {negative_slope}",
    "hardtanh": "{self} clipped to [{min_val}, {max_val}]",
    "hardswish": "hardswish of {self}",
    "hardsigmoid": "hardsigmoid of {self}",
    "softshrink": "{self} moved toward 0 by {lambd}",
    "hardshrink": "{self}, values within ±{lambd} made 0",
    "threshold": "{self}, values up to {threshold} made {value}",
}
_POOLED = "of {self} in windows of {kernel_size}"
_ADAPTIVE = "of {self} in {output_size} windows"
_INTERPOLATED = "{self} interpolated to the size {output_size}"
_NORMALISED = {
    "native_layer_norm": "{input}, normalised over its last axes {normalized_shape}, and by what",
}
_GROUPED = {"native_group_norm": "{input}, each sample normalised in {group} groups of channels, and by what"}
_EVALUATED = {"_native_batch_norm_legit_no_training": "{input}, normalised by {running_mean} and {running_var}"}
_TRAINED = {
    "_native_batch_norm_legit_functional": "{input}, each channel normalised over all samples, by what, and "
    "{running_mean} and {running_var} after that",
    "_native_batch_norm_legit.no_stats": "{input}, each channel normalised over all samples, and by what",
}
_ATTENDED = {
    "_scaled_dot_product_flash_attention_for_cpu": "attention of {query} to {key} with the values {value}, and sums",
}
_ELEMENTS = {
    "mse_loss": "squared error of {self} against {target}",
    "smooth_l1_loss": "smooth absolute error of {self} against {target}",
    "huber_loss": "Huber loss of {self} against {target}",
    "soft_margin_loss": "soft margin loss of {self} against {target}",
    "binary_cross_entropy": "cross entropy of the probabilities {self} against {target}, weights {weight}",
    "binary_cross_entropy_with_logits": "cross entropy of {self} against {target}, weights {weight} and {pos_weight}",
}
_CLASSES = {
    "nll_loss_forward": "negative log-likelihood {self} of the classes {target}, weights {weight}, and their total",
    "nll_loss2d_forward": "negative log-likelihood {self} of the classes {target}, weights {weight}, and their total",
    "multi_margin_loss": "margin loss of {self} for the classes {target}, weights {weight}",
}
_CONVOLVED = {"convolution": "{input} convolved with {weight}, bias {bias}"}
_PADDED = {"constant_pad_nd": "{self} padded (or, below 0, cut) by {pad} with {value}"}
_LOOKED_UP = {"embedding": "rows {indices} of the table {weight}"}
_COLUMNS = {"im2col": "windows of {kernel_size} of {self}"}
_FROM_COLUMNS = {"col2im": "windows {self} added up to the size {output_size}"}
_PIXELS = {
    "pixel_shuffle": "{self}, channels spread over {upscale_factor} × {upscale_factor} pixels",
    "pixel_unshuffle": "{self}, {downscale_factor} × {downscale_factor} pixels made channels",
}

ROWS: list[Operation] = [
    *aten(pointwise.pointwise, several, _ACTIVATIONS),
    *aten(networks.weighted, per_input, {"_prelu_kernel": "{self}, negative values times {weight}"}),
    *aten(networks.along, several, {"glu": "first half of {self} gated by the second along {dim}"}),
    *aten(pointwise.softmax, several, {"_safe_softmax": "softmax of {self} along {dim}, 0 where all is masked"}),
    *aten(networks.convolution, convolving, _CONVOLVED),
    *aten(networks.padded, per_output, _PADDED, chooses=True),
    *aten(networks.batched(4, "self"), per_output, _COLUMNS),
    *aten(networks.batched(3, "self"), per_input, _FROM_COLUMNS),
    *aten(networks.shuffled, per_output, _PIXELS),
    *aten(networks.channels_shuffled, per_output, {"channel_shuffle": "{self}, channels shuffled in {groups} groups"}),
    *aten(networks.layer_norm, several, _NORMALISED),
    *aten(networks.group_norm, several, _GROUPED),
    *aten(networks.batch_norm_evaluated, several, _EVALUATED),
    *aten(None, several, _TRAINED),
    *aten(networks.attention, attending, _ATTENDED),
    *aten(networks.embedding, per_output, _LOOKED_UP, chooses=True),
    *aten(networks.loss, several, _ELEMENTS),
    *aten(networks.classified, several, _CLASSES),
]
for _rank in (1, 2, 3):
    _one = networks.batched(_rank + 2, "self")
    _pads = {
        f"reflection_pad{_rank}d": "{self} padded by {padding} with its mirror image",
        f"replication_pad{_rank}d": "{self} padded by {padding} with its edge",
    }
    ROWS += aten(_one, per_output, _pads)
    ROWS += aten(_one, several, dict.fromkeys(RESIZED[_rank], _INTERPOLATED))
    if _rank > 1:
        _pools = {
            f"max_pool{_rank}d_with_indices": f"largest {_POOLED}, and where",
            f"avg_pool{_rank}d": f"mean {_POOLED}",
        }
        ROWS += aten(_one, per_input, _pools, window=("kernel_size", _rank))
        _adapted = {
            f"_adaptive_avg_pool{_rank}d": f"mean {_ADAPTIVE}",
            f"adaptive_max_pool{_rank}d": f"largest {_ADAPTIVE}, and where",
        }
        ROWS += aten(_one, several, _adapted)
        _back = {f"max_unpool{_rank}d": "{self} put back at the positions {indices} of {output_size}"}
        ROWS += aten(networks.batched(_rank + 2, "self", "indices"), per_input, _back)
