"""Gradients of layers of networks, as autograd records them."""

from __future__ import annotations

from apps.compute.labels import Shape
from apps.compute.rows.base import Operation, aten, per_input, several
from apps.compute.rows.networks import RESIZED, attending, convolving
from apps.compute.rules import networks, pointwise


def convolving_back(operands: list[Shape], outputs: list[Shape]) -> int:
    """Once for the input and once for the weight."""
    grad, taken, weight = operands[:3]
    return 2 * convolving([taken, weight], [grad])


def attending_back(operands: list[Shape], outputs: list[Shape]) -> int:
    """The scores once more, and four products."""
    return 3 * attending(operands[1:], outputs)


_SLOPES = """
    gelu silu mish elu leaky_relu softplus hardtanh hardswish hardsigmoid softshrink hardshrink threshold log_sigmoid
    tanh sigmoid
""".split()
_OPERANDS = {
    "elu": "{self_or_result}",
    "tanh": "the result {output}",
    "sigmoid": "the result {output}",
}
_ELEMENTWISE = {
    f"{name}_backward": f"{{{'grad_out' if name == 'hardshrink' else 'grad_output'}}} times the slope of {name} at "
    f"{_OPERANDS.get(name, '{self}')}"
    for name in _SLOPES
} | {"native_dropout_backward": "{grad_output} times {scale} where {mask}, else 0"}
_SOFTMAX = {
    "_softmax_backward_data": "gradient {grad_output} through the softmax {output} along {dim}",
    "_log_softmax_backward_data": "gradient {grad_output} through the log-softmax {output} along {dim}",
}
_THROUGH = "gradient {grad_output} through "
_ELEMENTS = {
    f"{name}_backward": _THROUGH + words + " of {self} against {target}"
    for name, words in {
        "mse_loss": "the squared error",
        "smooth_l1_loss": "the smooth absolute error",
        "huber_loss": "the Huber loss",
        "soft_margin_loss": "the soft margin loss",
        "binary_cross_entropy": "the cross entropy",
    }.items()
}
_CLASSES = {
    f"{name}_backward": _THROUGH + words + " of {self} for the classes {target}, weights {weight}"
    for name, words in {
        "nll_loss": "the negative log-likelihood",
        "nll_loss2d": "the negative log-likelihood",
        "multi_margin_loss": "the margin loss",
    }.items()
}
_CONVOLVED = {"convolution_backward": _THROUGH + "the convolution of {input} with {weight}"}
_PRELU = {"_prelu_kernel_backward": _THROUGH + "{self}, negative values times {weight}"}
_LAYER = {"native_layer_norm_backward": "gradient {grad_out} through {input} normalised over its last axes"}
_GROUP = {"native_group_norm_backward": "gradient {grad_out} through {input} normalised in groups of channels"}
_BATCH = {"native_batch_norm_backward": "gradient {grad_out} through {input} normalised by channel"}
_ATTENDED = {
    "_scaled_dot_product_flash_attention_for_cpu_backward": "gradient {grad_out} through the attention of {query} to "
    "{key} with the values {value}",
}
_LOOKED_UP = {"embedding_dense_backward": "{grad_output} added up by the positions {indices} of a table"}
_POOLS = {
    "max_pool": _THROUGH + "the largest of {self} in windows of {kernel_size}",
    "avg_pool": _THROUGH + "the mean of {self} in windows of {kernel_size}",
}
_PADS = {"reflection": _THROUGH + "{self} padded by its mirror image", "replication": _THROUGH + "{self} padded"}

ROWS: list[Operation] = [
    *aten(pointwise.pointwise, several, _ELEMENTWISE),
    *aten(networks.along, several, _SOFTMAX),
    *aten(networks.along, several, {"glu_backward": _THROUGH + "{self} gated along {dim}"}),
    *aten(networks.weighted, per_input, _PRELU),
    *aten(networks.weighted, several, _ELEMENTS),
    *aten(networks.classified, several, _CLASSES),
    *aten(networks.convolution_backward, convolving_back, _CONVOLVED),
    *aten(networks.layer_norm_backward, several, _LAYER),
    *aten(networks.group_norm_backward, several, _GROUP),
    *aten(networks.batch_norm_backward, several, _BATCH),
    *aten(networks.attention, attending_back, _ATTENDED),
    *aten(None, per_input, _LOOKED_UP),
]
for _rank in (1, 2, 3):
    _two = networks.batched(_rank + 2, "grad_output", "self")
    _three = networks.batched(_rank + 2, "grad_output", "self", "indices")
    ROWS += aten(_two, per_input, {f"{kind}_pad{_rank}d_backward": words for kind, words in _PADS.items()})
    ROWS += aten(
        networks.batched(_rank + 2, "grad_output"),
        several,
        {f"{name}_backward": _THROUGH + "an interpolation to {output_size}" for name in RESIZED[_rank]},
    )
    if _rank > 1:
        _size = ("kernel_size", _rank)
        ROWS += aten(_three, per_input, {f"max_pool{_rank}d_with_indices_backward": _POOLS["max_pool"]}, window=_size)
        ROWS += aten(_two, per_input, {f"avg_pool{_rank}d_backward": _POOLS["avg_pool"]}, window=_size)
        _adapted = "gradient {{grad_output}} through {} of {{self}} in windows"
        ROWS += aten(_three, several, {f"adaptive_max_pool{_rank}d_backward": _adapted.format("the largest")})
        ROWS += aten(_two, several, {f"_adaptive_avg_pool{_rank}d_backward": _adapted.format("the mean")})
