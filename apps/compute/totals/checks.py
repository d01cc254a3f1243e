"""What total forms check: dtypes and shapes on meta tensors, once, where the kernel itself tells too late or never.

The checks look at nothing but shapes, dtypes and static arguments, and raise what torch raises for these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

FLOATS = frozenset([torch.float16, torch.bfloat16, torch.float32, torch.float64])
WIDE = frozenset([torch.float32, torch.float64])
MOST = 2**24
"""Of a stride, a padding or a window: kernels multiply them in 64, and some in 32 bits."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """`check` sees meta tensors only: what runs later has the shapes and dtypes that were judged."""

    check: Callable[..., None]
    run: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(given, torch.Tensor) and given.is_meta for given in args):
            self.check(*args, **kwargs)
        return self.run(*args, **kwargs)


def floats(*given: Any) -> None:
    """All tensors among `given` are floating-point numbers of one dtype."""
    dtypes = {tensor.dtype for tensor in given if isinstance(tensor, torch.Tensor)}
    if not dtypes <= FLOATS:
        raise NotImplementedError(f"not implemented for {_named(dtypes - FLOATS)}")
    if len(dtypes) > 1:
        raise TypeError(f"takes values of one dtype, not {_named(dtypes)}")


def wide(*given: Any) -> None:
    """As `floats`, without half precision, which the kernel does not know or sums in another dtype than it says."""
    floats(*given)
    dtypes = {tensor.dtype for tensor in given if isinstance(tensor, torch.Tensor)}
    if not dtypes <= WIDE:
        raise NotImplementedError(f"not implemented for {_named(dtypes - WIDE)}")


def positions(index: torch.Tensor) -> None:
    """An index tensor is int64."""
    if index.dtype != torch.int64:
        raise TypeError(f"takes positions as int64, not {_named({index.dtype})}")


def shaped(what: str, tensor: torch.Tensor | None, shape: Sequence[int]) -> None:
    """An operand that may be left out has this shape."""
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"expects the shape {tuple(shape)} for {what!r}, not {tuple(tensor.shape)}")


def alike(*given: Any) -> None:
    """All tensors have one floating-point dtype and one shape."""
    tensors = [tensor for tensor in given if isinstance(tensor, torch.Tensor)]
    floats(*tensors)
    for tensor in tensors:
        shaped("every operand", tensor, tensors[0].shape)


def extents(what: str, given: Sequence[int], lengths: Sequence[int], least: int = 0) -> None:
    """A list of extents has one of these lengths and nothing below `least` or absurdly large."""
    if len(given) not in lengths or not all(least <= extent <= MOST for extent in given):
        raise ValueError(f"expects {' or '.join(map(str, lengths))} extents from {least} to {MOST} for {what!r}")


def reduction(how: int) -> None:
    """0: none, 1: mean, 2: sum."""
    if how not in (0, 1, 2):
        raise ValueError("expects 0 (none), 1 (mean) or 2 (sum) for 'reduction'")


def of_loss(how: int, grad_output: torch.Tensor, rows: Sequence[int]) -> None:
    """The gradient of a loss has its shape: that of `rows`, or none where it was reduced."""
    reduction(how)
    shaped("grad_output", grad_output, rows if how == 0 else ())


def fitted(given: Any, dtype: torch.dtype) -> Any:
    """A number that kernels may convert to `dtype`: infinite where it is too large for it."""
    if isinstance(given, (int, float)) and not isinstance(given, bool) and abs(given) > torch.finfo(dtype).max:
        return torch.inf if given > 0 else -torch.inf
    return given


def masked(made: Sequence[torch.Tensor | None], mask: Sequence[bool], like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients; those that were not asked for are empty."""
    return tuple(
        gradient if wanted and gradient is not None else like.new_empty(0)
        for gradient, wanted in zip(made, mask, strict=True)
    )


def overload(name: str) -> Any:
    """An overload by its name in the table."""
    packet, _, which = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), which or "default")


def _named(dtypes: Any) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
