"""How a value lies in memory changes no result, and nothing beside a value is ever read into one."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch

from apps.compute.totals.dense import DENSE
from tests.factories.operations import draw, samples

MOST_CASES = 6


def with_gaps(value: torch.Tensor) -> torch.Tensor:
    """The same elements, each followed by something that is none of them."""
    beside = torch.full((*value.shape, 2), 113, dtype=value.dtype)
    beside[..., 0] = value
    return beside[..., 0]


def reversed_axes(value: torch.Tensor) -> torch.Tensor:
    """The same elements, the first axis innermost."""
    axes = list(range(value.dim()))[::-1]
    return value.permute(axes).contiguous().permute(axes)


def repeated(value: torch.Tensor) -> torch.Tensor:
    """One number everywhere, which is there once, before others."""
    beside = torch.full((64,), 113, dtype=value.dtype)
    beside[0] = value.reshape(-1)[0] if value.numel() else 0
    return beside[0].expand(value.shape)


LAYOUTS: list[Callable[[torch.Tensor], torch.Tensor]] = [with_gaps, reversed_axes, repeated]


@pytest.mark.parametrize("op", sorted({sample.op for sample in samples(3, 4)}))
def test_a_value_counts_and_not_how_it_lies(op: str) -> None:
    source = random.Random(op)
    cases = [sample for sample in samples(3, 4) if sample.op == op]
    for sample in source.sample(cases, min(MOST_CASES, len(cases))):
        values = [draw(given, source) for given in sample.operands]
        for layout in LAYOUTS:
            laid = [layout(value) for value in values]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = sample.run([value.contiguous() for value in laid])
                found = sample.run(laid)
            for one, other in zip(expected, found, strict=True):
                exact = op in DENSE or not one.is_floating_point()
                assert one.dtype == other.dtype
                assert torch.allclose(one, other, *((0, 0) if exact else (1e-3, 1e-3)), equal_nan=True)
