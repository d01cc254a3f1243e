"""Normalisation, attention and embedding, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from apps.compute.branchless import choose
from apps.compute.totals.checks import Guarded, alike, floats, masked, positions, shaped, wide

aten = torch.ops.aten
Maybe = torch.Tensor | None


def _mask(mask: list[bool], *parameters: bool) -> None:
    """Gradients of a weight or bias that is not there must not be asked for: kernels fail."""
    if len(mask) != 3 or any(wanted and not there for wanted, there in zip(mask[1:], parameters, strict=True)):
        raise ValueError("expects three times true or false for 'output_mask', true only for what is there")


def _layer_norm(input: torch.Tensor, normalized_shape: list[int], weight: Maybe, bias: Maybe, eps: float) -> None:
    wide(input, weight, bias)
    rank = len(normalized_shape)
    if not rank or rank > input.dim() or list(input.shape[-rank:]) != normalized_shape or not prod(normalized_shape):
        raise ValueError("expects the last extents of the input for 'normalized_shape', none of them 0")
    shaped("weight", weight, normalized_shape)
    shaped("bias", bias, normalized_shape)


def _layer_norm_backward(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    normalized_shape: list[int],
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: Maybe,
    bias: Maybe,
    output_mask: list[bool],
) -> None:
    _mask(output_mask, weight is not None, bias is not None)
    alike(grad_out, input)
    floats(input, mean, rstd)
    _layer_norm(input, normalized_shape, weight, bias, 0.0)
    front = (*input.shape[: -len(normalized_shape)], *[1] * len(normalized_shape))
    shaped("mean", mean, front)
    shaped("rstd", rstd, front)


def layer_norm_backward(*args: Any) -> tuple[torch.Tensor, ...]:
    """Gradients that `output_mask` leaves out are empty."""
    return masked(aten.native_layer_norm_backward.default(*args), args[-1], args[1])


def _group_norm(
    input: torch.Tensor, weight: Maybe, bias: Maybe, N: int, C: int, HxW: int, group: int, eps: float
) -> None:
    wide(input, weight, bias)
    if input.dim() < 2 or not input.numel() or [*input.shape[:2], prod(input.shape[2:])] != [N, C, HxW]:
        raise ValueError("expects an input [N, C, ...] with HxW elements for each channel, none of them 0")
    if group < 1 or C % group:
        raise ValueError("expects groups of equal size")
    shaped("weight", weight, (C,))
    shaped("bias", bias, (C,))


def _group_norm_backward(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: Maybe,
    N: int,
    C: int,
    HxW: int,
    group: int,
    output_mask: list[bool],
) -> None:
    _mask(output_mask, weight is not None, weight is not None)
    alike(grad_out, input)
    floats(input, mean, rstd)
    _group_norm(input, weight, None, N, C, HxW, group, 0.0)
    shaped("mean", mean, (N, group))
    shaped("rstd", rstd, (N, group))


def group_norm_backward(
    grad_out: torch.Tensor, input: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor, weight: Maybe, *rest: Any
) -> tuple[torch.Tensor, ...]:
    """Gradients that `output_mask` leaves out are empty."""
    *sizes, mask = rest
    if grad_out.is_meta:
        each = input.new_empty(input.shape[1])
        return masked((torch.empty_like(input), each, each), mask, input)
    made = aten.native_group_norm_backward.default(grad_out, input, mean, rstd, weight, *sizes, mask)
    return masked(made, mask, input)


def _batch(input: torch.Tensor, *vectors: Maybe) -> None:
    wide(input, *vectors)
    if input.dim() < 2 or not input.numel():
        raise ValueError("expects an input [batch, channels, ...], none of them 0")
    for vector in vectors:
        shaped("a value for each channel", vector, (input.shape[1],))


def _batch_norm_functional(
    input: torch.Tensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> None:
    _batch(input, weight, bias, running_mean, running_var)
    if not training:
        raise ValueError("expects training: without it, the overload without training")


def _batch_norm_no_stats(
    input: torch.Tensor, weight: Maybe, bias: Maybe, training: bool, momentum: float, eps: float
) -> None:
    _batch(input, weight, bias)
    if not training:
        raise ValueError("expects training: there are no other statistics")


def _batch_norm_no_training(
    input: torch.Tensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    momentum: float,
    eps: float,
) -> None:
    _batch(input, weight, bias, running_mean, running_var)


def batch_norm_no_training(input: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    """By given statistics; none are saved."""
    if input.is_meta:
        return torch.empty_like(input), input.new_empty(0), input.new_empty(0)
    return tuple(aten._native_batch_norm_legit_no_training.default(input, *rest))


def _batch_norm_backward(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    weight: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    save_mean: Maybe,
    save_invstd: Maybe,
    train: bool,
    eps: float,
    output_mask: list[bool],
) -> None:
    _mask(output_mask, True, True)
    alike(grad_out, input)
    saved = (save_mean, save_invstd)
    if train:
        _batch(input, weight, running_mean, running_var, *saved)
    else:
        _batch(input, weight, running_mean, running_var)
        floats(input, *saved)
        for vector in saved:
            shaped("what was saved", vector, (0,))
    if None in (saved if train else (running_mean, running_var)):
        raise ValueError("expects the statistics by which the input was normalised")


def batch_norm_backward(*args: Any) -> tuple[torch.Tensor, ...]:
    """Gradients that `output_mask` leaves out are empty."""
    made: tuple[Any, ...]
    if args[1].is_meta:
        each = args[1].new_empty(args[1].shape[1])
        made = (torch.empty_like(args[1]), each, each)
    else:
        made = aten.native_batch_norm_backward.default(*args)
    return masked(made, args[-1], args[1])


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Maybe = None,
    scale: float | None = None,
) -> None:
    floats(query, key, value)
    if query.dim() != 4 or not query.numel() or not key.numel():
        raise ValueError("expects [batch, heads, length, width], none of them 0")
    heads = query.shape[1]
    shaped("key", key, (query.shape[0], heads, key.shape[-2], query.shape[3]))
    shaped("value", value, key.shape)
    if attn_mask is not None:
        scores = (*query.shape[:3], key.shape[2])
        if is_causal or attn_mask.dim() not in (2, 4) or attn_mask.dtype not in (torch.bool, query.dtype):
            raise ValueError("expects a mask with 2 or 4 axes, bool or of the query's dtype, and no causal one besides")
        if tuple(torch.broadcast_shapes(attn_mask.shape, scores)) != scores:
            raise ValueError("expects a mask that can be expanded to [batch, heads, length, length of the keys]")


def _attention_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Maybe = None,
    scale: float | None = None,
) -> None:
    alike(grad_out, out, query)
    _attention(query, key, value, dropout_p, is_causal, attn_mask=attn_mask)
    shaped("logsumexp", logsumexp, query.shape[:3])
    if logsumexp.dtype != (torch.float64 if query.dtype == torch.float64 else torch.float32):
        raise TypeError("expects the dtype in which the scores were summed for 'logsumexp'")


def attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
    """With dropout, which this kernel does not know, NaN."""
    return _undropped(aten._scaled_dot_product_flash_attention_for_cpu.default, 3, args, kwargs)


def attention_backward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
    """With dropout, which this kernel does not know, NaN."""
    return _undropped(aten._scaled_dot_product_flash_attention_for_cpu_backward.default, 6, args, kwargs)


def _undropped(call: Any, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    dropout = args[place] if len(args) > place else 0.0
    args = (*args[:place], 0.0, *args[place + 1 :])
    made = tuple(call(*args, **kwargs))
    return made if dropout == 0 else tuple(torch.full_like(output, torch.nan) for output in made)


def embedding(weight: torch.Tensor, indices: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Total form: a position that does not exist gives 0."""
    rows, width = weight.shape
    if not rows:
        return weight.new_zeros((*indices.shape, width))
    inside = (indices >= 0) & (indices < rows)
    found = aten.embedding.default(weight, choose(inside, indices, 0))
    return choose(inside.unsqueeze(-1), found, torch.zeros((), dtype=weight.dtype, device=weight.device))


def _embedding(weight: torch.Tensor, indices: torch.Tensor, *rest: Any) -> None:
    positions(indices)
    if weight.dim() != 2:
        raise ValueError("expects a table [rows, width]")


def embedding_dense_backward(
    grad_output: torch.Tensor, indices: torch.Tensor, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> torch.Tensor:
    """Total form: what belongs to a position that does not exist is added nowhere.

    Nor is what belongs to padding, but the kernel would be faster for that: it gets a row of its own.
    """
    inside = (indices >= 0) & (indices < num_weights) & (indices != padding_idx)
    made = aten.embedding_dense_backward.default(
        grad_output, choose(inside, indices, num_weights), num_weights + 1, -1, scale_grad_by_freq
    )
    return made[:num_weights]


def _embedding_backward(
    grad_output: torch.Tensor, indices: torch.Tensor, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> None:
    floats(grad_output)
    positions(indices)
    if not 0 <= num_weights < 2**40:
        raise ValueError("expects a number of rows for 'num_weights'")
    shaped("grad_output", grad_output, (*indices.shape, *grad_output.shape[-1:]))


TOTAL: dict[str, Callable[..., Any]] = {
    "aten::native_layer_norm": Guarded(_layer_norm, aten.native_layer_norm.default),
    "aten::native_layer_norm_backward": Guarded(_layer_norm_backward, layer_norm_backward),
    "aten::native_group_norm": Guarded(_group_norm, aten.native_group_norm.default),
    "aten::native_group_norm_backward": Guarded(_group_norm_backward, group_norm_backward),
    "aten::_native_batch_norm_legit_functional": Guarded(
        _batch_norm_functional, aten._native_batch_norm_legit_functional.default
    ),
    "aten::_native_batch_norm_legit.no_stats": Guarded(_batch_norm_no_stats, aten._native_batch_norm_legit.no_stats),
    "aten::_native_batch_norm_legit_no_training": Guarded(_batch_norm_no_training, batch_norm_no_training),
    "aten::native_batch_norm_backward": Guarded(_batch_norm_backward, batch_norm_backward),
    "aten::_scaled_dot_product_flash_attention_for_cpu": Guarded(_attention, attention),
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": Guarded(_attention_backward, attention_backward),
    "aten::embedding": Guarded(_embedding, embedding),
    "aten::embedding_dense_backward": Guarded(_embedding_backward, embedding_dense_backward),
}
