"""Convolution, pooling, padding and interpolation, with their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import floor, prod
from typing import Any

import torch

from apps.compute.rows.networks import RESIZED
from apps.compute.totals.checks import MOST, Guarded, extents, floats, masked, overload, positions, shaped, wide

aten = torch.ops.aten


def _convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> None:
    floats(input, weight, bias)
    rank = weight.dim() - 2
    if not 1 <= rank <= 3 or input.dim() != weight.dim() or not all(weight.shape) or not all(input.shape[1:]):
        raise ValueError("expects an input [batch, channels, ...] and a weight with as many axes, none of them empty")
    for what, given, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        extents(what, given, [rank], least)
    extents("output_padding", output_padding, [rank])
    taken = weight.shape[0] if transposed else weight.shape[1] * groups
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    if not 1 <= groups <= MOST or taken != input.shape[1] or weight.shape[0] % groups:
        raise ValueError(f"expects an input of {taken} channels, in groups of equal size")
    shaped("bias", bias, (channels,))
    if any(
        more and (not transposed or more >= max(s, d))
        for more, s, d in zip(output_padding, stride, dilation, strict=True)
    ):
        raise ValueError("expects 'output_padding' below the stride or the dilation of a transposed convolution")
    made = aten.convolution.default(
        input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    ).shape
    if not all(extent > 0 for extent in made[2:]):
        raise ValueError("the window is larger than the input")


def convolution_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: list[int] | None,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    """Gradients that `output_mask` leaves out are empty."""
    made = aten.convolution_backward.default(grad_output, input, weight, bias_sizes, *rest)
    return masked(made, rest[-1], input)


def _convolution_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: list[int] | None,
    *rest: Any,
) -> None:
    *how, mask = rest
    _mask(mask, 3)
    floats(grad_output, input, weight)
    _convolution(input, weight, None, *how)
    made = aten.convolution.default(input, weight, None, *how)
    shaped("grad_output", grad_output, made.shape)
    # Autograd names no channels, instead of nothing, where there is no bias.
    if bias_sizes not in (None, [made.shape[1]]) and (bias_sizes != [0] or mask[2]):
        raise ValueError("expects one bias for each channel")


def _mask(mask: list[bool], length: int) -> None:
    if len(mask) != length:
        raise ValueError(f"expects {length} times true or false for 'output_mask'")


def _batched(rank: int, self: torch.Tensor) -> None:
    floats(self)
    if self.dim() not in (rank + 1, rank + 2) or not all(self.shape[-rank - 1 :]):
        raise ValueError(f"expects [batch, channels, ...] or [channels, ...] with {rank} more axes, none of them empty")


def _pool(rank: int, full: bool, self: torch.Tensor, *rest: Any, **more: Any) -> None:
    _batched(rank, self)
    if full:
        wide(self)
    for place, given in enumerate([*rest, *more.values()]):
        if isinstance(given, list) and given:
            extents("a window", given, [1, rank], int(place in (0, 1, 3)))


def _adaptive(rank: int, self: torch.Tensor, output_size: list[int]) -> None:
    _batched(rank, self)
    extents("output_size", output_size, [rank], 1)


def _pool_backward(
    rank: int, full: bool, forward: Any, grad_output: torch.Tensor, self: torch.Tensor, *rest: Any, **more: Any
) -> None:
    floats(grad_output, self)
    windows = [given for given in rest if not isinstance(given, torch.Tensor)]
    _pool(rank, full, self, *windows)
    made = forward(self, *windows)
    shape = (made[0] if isinstance(made, tuple) else made).shape
    shaped("grad_output", grad_output, shape)
    for index in rest:
        if isinstance(index, torch.Tensor):
            positions(index)
            shaped("indices", index, shape)


def _adaptive_backward(
    rank: int, grad_output: torch.Tensor, self: torch.Tensor, indices: torch.Tensor | None = None
) -> None:
    floats(grad_output, self)
    _batched(rank, self)
    _batched(rank, grad_output)
    shaped("grad_output", grad_output, (*self.shape[:-rank], *grad_output.shape[-rank:]))
    if indices is not None:
        positions(indices)
        shaped("indices", indices, grad_output.shape)


def _maxima(rank: int, forward: Any, self: torch.Tensor, *windows: Any) -> tuple[torch.Tensor, ...]:
    """Maxima, and their positions, which remember among how many they are: the gradient need not look again."""
    made: tuple[torch.Tensor, ...] = forward(self, *windows)
    dilation = windows[3] if len(windows) > 3 else [1]
    # A dilated window may step over every element: the kernel then names one that does not exist.
    if all(step == 1 for step in dilation):
        made[1].among = prod(self.shape[-rank:])  # type: ignore[attr-defined]
    return made


def _within(rank: int, backward: Any, grad_output: torch.Tensor, self: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Total form of the gradient of a maximum: a position that does not exist gets nothing."""
    *windows, indices = rest
    among = prod(self.shape[-rank:])
    if getattr(indices, "among", None) == among:
        made: torch.Tensor = backward(grad_output, self, *windows, indices)
        return made
    places = indices.clamp(0, max(among - 1, 0))
    nothing = torch.zeros((), dtype=grad_output.dtype, device=grad_output.device)
    return backward(torch.where(places == indices, grad_output, nothing), self, *windows, places)


def _unpool(rank: int, self: torch.Tensor, indices: torch.Tensor, output_size: list[int], *rest: Any) -> torch.Tensor:
    """Total form: what belongs to a position that does not exist is written nowhere."""
    places = prod(output_size)
    front = self.shape[:-rank]
    inside = (indices >= 0) & (indices < places)
    made = self.new_zeros((*front, places + 1))
    made = made.scatter(-1, torch.where(inside, indices, places).reshape(*front, -1), self.reshape(*front, -1))
    return made[..., :places].reshape(*front, *output_size)


def _unpool_check(
    rank: int, self: torch.Tensor, indices: torch.Tensor, output_size: list[int], *windows: list[int]
) -> None:
    _batched(rank, self)
    positions(indices)
    shaped("indices", indices, self.shape)
    extents("output_size", output_size, [rank], 1)
    for given in windows:
        extents("a window", given, [rank])


def _pad(rank: int, mirrored: bool, self: torch.Tensor, padding: list[int]) -> None:
    _batched(rank, self)
    extents("padding", padding, [2 * rank])
    spaces = [extent for extent in reversed(self.shape[-rank:]) for _ in range(2)]
    if mirrored and any(more >= extent for more, extent in zip(padding, spaces, strict=True)):
        raise ValueError("expects less padding than there is to mirror")


def _pad_backward(rank: int, mirrored: bool, grad_output: torch.Tensor, self: torch.Tensor, padding: list[int]) -> None:
    floats(grad_output, self)
    _pad(rank, mirrored, self, padding)
    made = [
        extent + padding[-2 * place - 2] + padding[-2 * place - 1] for place, extent in enumerate(self.shape[-rank:])
    ]
    shaped("grad_output", grad_output, (*self.shape[:-rank], *made))


def _resize(rank: int, full: bool, self: torch.Tensor, output_size: list[int], *rest: Any) -> None:
    floats(self)
    if full:
        wide(self)
    if self.dim() != rank + 2 or not all(self.shape[1:]):
        raise ValueError(f"expects [batch, channels, ...] with {rank} more axes, none of them empty")
    extents("output_size", output_size, [rank], 1)


def _resize_backward(
    rank: int, full: bool, grad_output: torch.Tensor, output_size: list[int], input_size: list[int], *rest: Any
) -> None:
    extents("output_size", output_size, [rank], 1)
    extents("input_size", input_size, [rank + 2])
    _resize(rank, full, grad_output, output_size)
    shaped("grad_output", grad_output, (*input_size[:2], *output_size))
    if not all(input_size[1:]):
        raise ValueError("expects no empty axis")


def _scaled(name: str, back: bool) -> Callable[..., torch.Tensor]:
    """Total form: a scale that does not lead from one size to the other counts as none, or kernels read anywhere."""
    call = overload(f"{name}_backward" if back else name)
    corners = "nearest" not in name

    def scaled(given: torch.Tensor, output_size: list[int], *rest: Any) -> torch.Tensor:
        before: Sequence[int] = rest[0][2:] if back else given.shape[2:]
        fixed, scales = rest[: back + corners], rest[back + corners :]
        kept = [
            scale if scale is not None and 0 < scale < MOST and floor(extent * scale) == size else None
            for scale, extent, size in zip(scales, before, output_size, strict=False)
        ]
        return call(given, output_size, *fixed, *kept)

    return scaled


def _columns(self: torch.Tensor, kernel_size: list[int], *rest: list[int]) -> None:
    floats(self)
    if self.dim() not in (3, 4) or not all(self.shape[-3:]):
        raise ValueError("expects [batch, channels, height, width], none of them empty")
    _blocks(kernel_size, *rest)


def _blocks(kernel_size: list[int], dilation: list[int], padding: list[int], stride: list[int]) -> None:
    for what, given, least in (
        ("kernel_size", kernel_size, 1),
        ("dilation", dilation, 1),
        ("padding", padding, 0),
        ("stride", stride, 1),
    ):
        extents(what, given, [2], least)


def _from_columns(self: torch.Tensor, output_size: list[int], *rest: list[int]) -> None:
    floats(self)
    if self.dim() not in (2, 3) or not all(self.shape[-2:]):
        raise ValueError("expects [batch, channels x window, windows], none of them empty")
    extents("output_size", output_size, [2], 1)
    _blocks(*rest)


def _unshuffle(self: torch.Tensor, factor: int) -> None:
    if self.dim() < 3 or not all(self.shape) or not 1 <= factor <= MOST:
        raise ValueError("expects [..., channels, height, width], none of them empty, and a positive factor")


def _shuffle_channels(self: torch.Tensor, groups: int) -> None:
    if self.dim() < 3 or not all(self.shape) or not 1 <= groups <= MOST or self.shape[1] % groups:
        raise ValueError("expects [batch, channels, ...], none of them empty, and groups of equal size")


def _constant_pad(self: torch.Tensor, pad: list[int], value: float = 0) -> None:
    if len(pad) % 2 or len(pad) > 2 * self.dim() or any(abs(more) > MOST for more in pad):
        raise ValueError("expects two extents for each of the last axes")
    ends = [extent + sum(pad[2 * place : 2 * place + 2]) for place, extent in enumerate(reversed(self.shape))]
    if any(extent < 0 for extent in ends):
        raise ValueError("expects no more to be cut off than there is")


def _constant_padded(self: torch.Tensor, pad: list[int], value: float = 0) -> torch.Tensor:
    limits = torch.finfo if self.is_floating_point() else torch.iinfo
    if self.dtype != torch.bool and not limits(self.dtype).min <= value <= limits(self.dtype).max:
        # NaN and infinities stay what they are where there are such; integers get the nearest.
        value = value if self.is_floating_point() and value != value else _nearest(value, limits(self.dtype), self)
    return aten.constant_pad_nd.default(self, pad, value)


def _nearest(value: float, limits: Any, self: torch.Tensor) -> float:
    if self.is_floating_point():
        return torch.inf if value > 0 else -torch.inf
    return limits.max if value > 0 else limits.min if value < 0 else 0


def _made() -> dict[str, Callable[..., Any]]:
    made: dict[str, Callable[..., Any]] = {
        "convolution": Guarded(_convolution, aten.convolution.default),
        "convolution_backward": Guarded(_convolution_backward, convolution_backward),
        "im2col": Guarded(_columns, aten.im2col.default),
        "col2im": Guarded(_from_columns, aten.col2im.default),
        "pixel_unshuffle": Guarded(_unshuffle, aten.pixel_unshuffle.default),
        "pixel_shuffle": Guarded(_unshuffle, aten.pixel_shuffle.default),
        "channel_shuffle": Guarded(_shuffle_channels, aten.channel_shuffle.default),
        "constant_pad_nd": Guarded(_constant_pad, _constant_padded),
    }
    for rank in (1, 2, 3):
        for name, mirrored in ((f"reflection_pad{rank}d", True), (f"replication_pad{rank}d", False)):
            made[name] = Guarded(partial(_pad, rank, mirrored), overload(name))
            made[f"{name}_backward"] = Guarded(partial(_pad_backward, rank, mirrored), overload(f"{name}_backward"))
    for rank in (2, 3):
        for name, indexed in ((f"avg_pool{rank}d", False), (f"max_pool{rank}d_with_indices", True)):
            forward, back = overload(name), overload(f"{name}_backward")
            made[name] = Guarded(
                partial(_pool, rank, rank == 3 and not indexed), partial(_maxima, rank, forward) if indexed else forward
            )
            made[f"{name}_backward"] = Guarded(
                partial(_pool_backward, rank, rank == 3 and not indexed, forward),
                partial(_within, rank, back) if indexed else back,
            )
        for name, indexed in ((f"_adaptive_avg_pool{rank}d", False), (f"adaptive_max_pool{rank}d", True)):
            forward, back = overload(name), overload(f"{name}_backward")
            made[name] = Guarded(partial(_adaptive, rank), partial(_maxima, rank, forward) if indexed else forward)
            made[f"{name}_backward"] = Guarded(
                partial(_adaptive_backward, rank), partial(_within, rank, back) if indexed else back
            )
        made[f"max_unpool{rank}d"] = Guarded(partial(_unpool_check, rank), partial(_unpool, rank))
    for rank, names in RESIZED.items():
        for name in names:
            made[name] = Guarded(partial(_resize, rank, name.endswith("_aa")), _scaled(name, False))
            made[f"{name}_backward"] = Guarded(
                partial(_resize_backward, rank, name.endswith("_aa")),
                _scaled(name, True),
            )
    return {f"aten::{name}": call for name, call in made.items()}


TOTAL = _made()
