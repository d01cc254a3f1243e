"""Intervals of losses of elements: a table of rules. For workers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log

import torch

from apps.compute.readers.intervals import Given, Pair, Rule, within


def _difference(given: Given) -> torch.Tensor:
    """The most by which a prediction and its target can be apart."""
    (a, b), (c, d) = given.interval("self").pair, given.interval("target").pair
    return torch.maximum((b - c).abs(), (d - a).abs())


def _weight(given: Given) -> torch.Tensor:
    """The most that one element of a loss counts."""
    most = torch.ones((), dtype=torch.float64)
    for name in ("weight", "pos_weight"):
        if given.args.get(name) is not None:
            most = most * given.interval(name).largest.clamp(min=1)
    return most


def _up_to(most: Callable[[Given], torch.Tensor]) -> Rule:
    """A loss, which is never negative."""

    def rule(given: Given) -> Pair:
        high = most(given)
        return torch.zeros_like(high), high

    return rule


def _entropy(given: Given) -> Pair:
    """Torch's logarithms end at -100."""
    return _signed(given, torch.full(given.shape, 100.0, dtype=torch.float64))


def _logits(given: Given) -> Pair:
    """Between the two labels; other targets than those are unbounded."""
    target = given.interval("target")
    labels = bool((target.low >= 0).all() and (target.high <= 1).all())
    return _signed(given, given.interval("self").largest + log(2)) if labels else within(-inf, inf)(given)


def _signed(given: Given, most: torch.Tensor) -> Pair:
    """A loss whose weights, where there are any, may be negative."""
    high = most * _weight(given)
    weighted = any(given.args.get(name) is not None for name in ("weight", "pos_weight"))
    return (-high if weighted else torch.zeros_like(high)), high


LOSSES: dict[str, Rule] = {
    "aten::mse_loss": _up_to(lambda given: _difference(given) ** 2),
    "aten::smooth_l1_loss": _up_to(_difference),
    "aten::huber_loss": _up_to(lambda given: _difference(given) * given.args["delta"]),
    "aten::soft_margin_loss": _up_to(
        lambda given: given.interval("self").largest * given.interval("target").largest + log(2)
    ),
    "aten::binary_cross_entropy": _entropy,
    "aten::binary_cross_entropy_with_logits": _logits,
}
"""Of elements, before they are added up."""
