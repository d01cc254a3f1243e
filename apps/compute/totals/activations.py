"""Activations and their gradients: every operand with the shape and the dtype of the first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any

import torch

from apps.compute.steady import steadied
from apps.compute.totals.checks import Guarded, alike, fitted, floats, overload, shaped

_ALIKE = """
    gelu gelu_backward silu silu_backward mish mish_backward hardswish hardswish_backward hardsigmoid
    hardsigmoid_backward log_sigmoid_forward log_sigmoid_backward leaky_relu hardtanh hardtanh_backward softplus
    softplus_backward softshrink softshrink_backward hardshrink hardshrink_backward threshold threshold_backward
    sigmoid_backward tanh_backward
""".split()


def _number_arguments(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return call(*[fitted(given, args[0].dtype) for given in args], **kwargs)


def _alike(*args: Any, **kwargs: Any) -> None:
    alike(*args)
    if kwargs.get("approximate", "none") not in ("none", "tanh"):
        raise ValueError("approximate is 'none' or 'tanh'")


def _dropout(grad_output: torch.Tensor, mask: torch.Tensor, scale: float) -> None:
    floats(grad_output)
    shaped("mask", mask, grad_output.shape)
    if mask.dtype != torch.bool:
        raise TypeError("expects a bool mask")


def elu(self: torch.Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> torch.Tensor:
    """As torch computes it, and as slowly where a whole block is positive: the kernel takes a short cut there."""
    if self.is_meta:
        return torch.empty_like(self)
    alpha, scale, input_scale = (fitted(number, self.dtype) for number in (alpha, scale, input_scale))
    if not isfinite(alpha * scale) or not isfinite(scale) or not isfinite(input_scale):
        return torch.ops.aten.elu.default(self, alpha, scale, input_scale)
    below = torch.ops.aten.elu.default(self.clamp(max=0), alpha, scale, input_scale)
    return below + self.clamp(min=0) * scale


def celu(self: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """As torch computes it; alpha 0 stands for its limit, relu."""
    return elu(self, alpha, 1.0, 1 / alpha if alpha else torch.inf)


def elu_backward(
    grad_output: torch.Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, self: torch.Tensor
) -> torch.Tensor:
    """NaN where a result does not tell its operand: alpha < 0."""
    if is_result and not alpha >= 0:
        return torch.full_like(grad_output, torch.nan)
    numbers = [fitted(number, self.dtype) for number in (alpha, scale, input_scale)]
    return torch.ops.aten.elu_backward.default(grad_output, *numbers, is_result, self)


def leaky_relu_backward(
    grad_output: torch.Tensor, self: torch.Tensor, negative_slope: float, self_is_result: bool
) -> torch.Tensor:
    """NaN where a result does not tell its operand: a slope < 0."""
    if self_is_result and not negative_slope >= 0:
        return torch.full_like(grad_output, torch.nan)
    slope = fitted(negative_slope, self.dtype)
    return torch.ops.aten.leaky_relu_backward.default(grad_output, self, slope, self_is_result)


def _prelu(self: torch.Tensor, weight: torch.Tensor) -> None:
    floats(self, weight)
    shaped("weight", torch.broadcast_tensors(self, weight)[0], self.shape)


def _prelu_backward(grad_output: torch.Tensor, self: torch.Tensor, weight: torch.Tensor) -> None:
    alike(grad_output, self)
    _prelu(self, weight)


def _glu(self: torch.Tensor, dim: int = -1) -> None:
    floats(self)


def _glu_backward(grad_output: torch.Tensor, self: torch.Tensor, dim: int) -> None:
    floats(grad_output, self)
    shaped("grad_output", grad_output, torch.ops.aten.glu.default(self, dim).shape)
    if not self.numel():
        raise ValueError("expects at least one element")


def _softmax_backward(grad_output: torch.Tensor, output: torch.Tensor, dim: int, input_dtype: torch.dtype) -> None:
    alike(grad_output, output)
    if input_dtype != output.dtype:
        raise TypeError("expects the dtype of the operand for 'input_dtype'")


def _safe_softmax(self: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> None:
    floats(self)
    if dtype not in (None, self.dtype):
        raise TypeError("expects no other dtype")


def _plain(check: Callable[..., None], name: str) -> Guarded:
    return Guarded(check, overload(name))


TOTAL: dict[str, Callable[..., Any]] = {
    f"aten::{name}": Guarded(_alike, partial(_number_arguments, steadied(f"aten::{name}", overload(name))))
    for name in _ALIKE
}
TOTAL |= {
    "aten::elu": Guarded(_alike, elu),
    "aten::celu": Guarded(_alike, celu),
    "aten::elu_backward": Guarded(_alike, elu_backward),
    "aten::leaky_relu_backward": Guarded(_alike, leaky_relu_backward),
    "aten::native_dropout_backward": _plain(_dropout, "native_dropout_backward"),
    "aten::_prelu_kernel": _plain(_prelu, "_prelu_kernel"),
    "aten::_prelu_kernel_backward": _plain(_prelu_backward, "_prelu_kernel_backward"),
    "aten::glu": _plain(_glu, "glu"),
    "aten::glu_backward": _plain(_glu_backward, "glu_backward"),
    "aten::_softmax_backward_data": _plain(_softmax_backward, "_softmax_backward_data"),
    "aten::_log_softmax_backward_data": _plain(_softmax_backward, "_log_softmax_backward_data"),
    "aten::_safe_softmax": _plain(_safe_softmax, "_safe_softmax"),
}
