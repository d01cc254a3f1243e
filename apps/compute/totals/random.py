"""Random numbers: one generator a node of the program, from the seed that the client drew.

A value has the same numbers however often it is computed. Of meta tensors only the shape is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _filled(size: list[int], dtype: torch.dtype, fill: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    made = torch.empty(size, dtype=dtype)
    # On one number where only the shape is wanted: which dtypes and bounds there are, kernels know.
    fill(torch.empty(1, dtype=dtype, device="cpu") if made.is_meta else made)
    return made


def rand(size: list[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Uniform in [0, 1)."""
    return _filled(size, dtype, lambda made: made.uniform_(generator=_generator(seed)))


def randn(size: list[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Normal with mean 0 and variance 1."""
    return _filled(size, dtype, lambda made: made.normal_(generator=_generator(seed)))


def randint(low: int, high: int, size: list[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Whole numbers from `low` to below `high`."""
    return _filled(size, dtype, lambda made: made.random_(low, high, generator=_generator(seed)))


def randperm(n: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """The numbers from 0 to below `n` in random order."""
    made = torch.empty([n], dtype=dtype)
    if n > (1 / torch.finfo(dtype).eps if dtype.is_floating_point else torch.iinfo(dtype).max):
        raise ValueError(f"{dtype} does not hold the numbers below {n}")
    return made if made.is_meta else torch.randperm(n, generator=_generator(seed)).to(dtype)


def bernoulli(self: torch.Tensor, seed: int) -> torch.Tensor:
    """1 with the probability that each element says, else 0; what is no probability counts as the nearest, NaN as 0."""
    if not self.is_floating_point():
        raise NotImplementedError(f"not implemented for '{self.dtype}'")
    if self.is_meta:
        return torch.empty_like(self)
    drawn = torch.rand(self.shape, dtype=torch.float64, generator=_generator(seed))
    return (drawn < self).to(self.dtype)


def dropout(self: torch.Tensor, p: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The value with a part `p` of its elements made 0 and the others scaled by 1 / (1 - p); and which are kept."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not self.is_floating_point():
        raise NotImplementedError(f"not implemented for '{self.dtype}'")
    if self.is_meta:
        return torch.empty_like(self), torch.empty_like(self, dtype=torch.bool)
    kept = torch.rand(self.shape, dtype=torch.float32, generator=_generator(seed)) >= p
    return self * kept * (0.0 if p == 1 else 1 / (1 - p)), kept


TOTAL: dict[str, Callable[..., Any]] = {
    "grid::rand": rand,
    "grid::randn": randn,
    "grid::randint": randint,
    "grid::randperm": randperm,
    "grid::bernoulli": bernoulli,
    "grid::dropout": dropout,
}
