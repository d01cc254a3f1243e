"""Losses and their gradients. A class that does not exist counts as one to be ignored, a bad probability gives NaN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from apps.compute.branchless import choose
from apps.compute.steady import steadied
from apps.compute.totals.checks import Guarded, fitted, floats, of_loss, overload, positions, reduction, shaped, wide

aten = torch.ops.aten
Maybe = torch.Tensor | None
NONE, MEAN = 0, 1


def _pair(self: torch.Tensor, target: torch.Tensor, how: int = MEAN, *more: float) -> None:
    floats(self, target)
    reduction(how)
    torch.broadcast_shapes(self.shape, target.shape)


def _pair_backward(grad_output: torch.Tensor, self: torch.Tensor, target: torch.Tensor, how: int, *more: float) -> None:
    floats(grad_output, self, target)
    of_loss(how, grad_output, torch.broadcast_shapes(self.shape, target.shape))


def _soft_margin(self: torch.Tensor, target: torch.Tensor, how: int = MEAN) -> None:
    _pair(self, target, how)
    shaped("target", target, self.shape)


def _soft_margin_backward(grad_output: torch.Tensor, self: torch.Tensor, target: torch.Tensor, how: int) -> None:
    shaped("target", target, self.shape)
    _pair_backward(grad_output, self, target, how)


def _by_width(
    call: Any, zero: bool, self: torch.Tensor, target: torch.Tensor, how: int = MEAN, width: float = 1.0
) -> torch.Tensor:
    """Huber and smooth L1: NaN for a width that is not positive, or 0 where `zero` is the absolute error."""
    if 0 < width < torch.inf or (zero and width == 0):
        return call(self, target, how, fitted(width, self.dtype))
    return torch.full_like(call(self, target, how, 1.0), torch.nan)


def _by_width_backward(
    call: Any,
    zero: bool,
    grad_output: torch.Tensor,
    self: torch.Tensor,
    target: torch.Tensor,
    how: int,
    width: float,
) -> torch.Tensor:
    if 0 < width < torch.inf or (zero and width == 0):
        return call(grad_output, self, target, how, fitted(width, self.dtype))
    return torch.full_like(call(grad_output, self, target, how, 1.0), torch.nan)


_exp = steadied("aten::exp", aten.exp.default)


def soft_margin_loss(self: torch.Tensor, target: torch.Tensor, how: int = MEAN) -> torch.Tensor:
    """As torch computes it, in a time that does not tell how large the margins are."""
    made = torch.log1p(_exp(-self * target))
    return made if how == NONE else made.mean() if how == MEAN else made.sum()


def soft_margin_loss_backward(
    grad_output: torch.Tensor, self: torch.Tensor, target: torch.Tensor, how: int
) -> torch.Tensor:
    """As torch computes it, in a time that does not tell how large the margins are."""
    power = _exp(-target * self)
    each = 1.0 / self.numel() if how == MEAN and self.numel() else 1.0
    return target * power * -each / (power + 1) * grad_output


def _probability(self: torch.Tensor, target: torch.Tensor, weight: Maybe = None, how: int = MEAN) -> None:
    floats(self, target, weight)
    reduction(how)
    shaped("target", target, self.shape)
    if weight is not None:
        shaped("weight", weight.expand(self.shape), self.shape)


def _probability_backward(
    grad_output: torch.Tensor, self: torch.Tensor, target: torch.Tensor, weight: Maybe = None, how: int = MEAN
) -> None:
    floats(grad_output, self)
    _probability(self, target, weight, how)
    of_loss(how, grad_output, self.shape)


def binary_cross_entropy(
    self: torch.Tensor, target: torch.Tensor, weight: Maybe = None, how: int = MEAN
) -> torch.Tensor:
    """Total form: NaN for a probability outside [0, 1]."""
    inside = (self >= 0) & (self <= 1) & (target >= 0) & (target <= 1)
    half = torch.full((), 0.5, dtype=self.dtype, device=self.device)
    made = aten.binary_cross_entropy.default(choose(inside, self, half), choose(inside, target, half), weight, NONE)
    made = choose(inside, made, torch.full((), torch.nan, dtype=self.dtype, device=self.device))
    return made if how == NONE else made.mean() if how == MEAN else made.sum()


def _logits(
    self: torch.Tensor, target: torch.Tensor, weight: Maybe = None, pos_weight: Maybe = None, how: int = MEAN
) -> None:
    _probability(self, target, weight, how)
    floats(self, pos_weight)
    if pos_weight is not None:
        shaped("pos_weight", pos_weight.expand(self.shape), self.shape)


def _classes(
    plane: bool, self: torch.Tensor, target: torch.Tensor, weight: Maybe, how: int, ignore_index: int = -100
) -> None:
    floats(self, weight)
    positions(target)
    reduction(how)
    ranks = (4,) if plane else (1, 2)
    if self.dim() not in ranks or not self.shape[-1 if self.dim() == 1 else 1]:
        raise ValueError("expects scores [batch, classes, ...], with at least one class")
    shaped("target", target, () if self.dim() == 1 else (self.shape[0], *self.shape[2:]))
    shaped("weight", weight, (self.shape[0 if self.dim() == 1 else 1],))


def _classes_backward(
    plane: bool,
    grad_output: torch.Tensor,
    self: torch.Tensor,
    target: torch.Tensor,
    weight: Maybe,
    how: int,
    ignore_index: int,
    total_weight: torch.Tensor,
) -> None:
    floats(grad_output, self, total_weight)
    _classes(plane, self, target, weight, how, ignore_index)
    of_loss(how, grad_output, target.shape)
    shaped("total_weight", total_weight, ())


def _existing(self: torch.Tensor, target: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Targets, with `ignore_index` for those that are no class."""
    classes = self.shape[0 if self.dim() == 1 else 1]
    return choose((target >= 0) & (target < classes), target, ignore_index)


def _nll(call: Any, self: torch.Tensor, target: torch.Tensor, weight: Maybe, how: int, ignore_index: int) -> Any:
    return call(self, _existing(self, target, ignore_index), weight, how, ignore_index)


def _nll_backward(
    call: Any,
    grad_output: torch.Tensor,
    self: torch.Tensor,
    target: torch.Tensor,
    weight: Maybe,
    how: int,
    ignore_index: int,
    total_weight: torch.Tensor,
) -> torch.Tensor:
    places = _existing(self, target, ignore_index)
    return call(grad_output, self, places, weight, how, ignore_index, total_weight)


def _margins(
    self: torch.Tensor, target: torch.Tensor, p: float = 1, margin: float = 1, weight: Maybe = None, how: int = MEAN
) -> None:
    wide(self)
    if self.dim() != 2 or not self.numel():
        raise ValueError("expects scores [batch, classes], none of them 0")
    if isinstance(p, bool) or p not in (1, 2):
        raise ValueError("expects 1 or 2 for 'p'")
    if type(p) is not int or type(margin) is bool:
        raise TypeError("expects an integer for 'p' and a number for 'margin'")
    _classes(False, self, target, weight, how)


def _margins_backward(
    grad_output: torch.Tensor, self: torch.Tensor, target: torch.Tensor, p: float, margin: float, *rest: Any
) -> None:
    floats(grad_output, self)
    _margins(self, target, p, margin, *rest)
    of_loss(rest[1] if len(rest) > 1 else MEAN, grad_output, target.shape)


def _known(self: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and targets. Where the class does not exist, scores that lose nothing to class 0."""
    inside = (target >= 0) & (target < self.shape[1])
    limits = torch.finfo(self.dtype)
    lost = torch.full((self.shape[1],), limits.min, dtype=self.dtype)
    lost[0] = limits.max
    return choose(inside.unsqueeze(1), self, lost), choose(inside, target, 0)


def multi_margin_loss(
    self: torch.Tensor, target: torch.Tensor, p: int = 1, margin: float = 1, weight: Maybe = None, how: int = MEAN
) -> torch.Tensor:
    """Total form: nothing is lost where the class does not exist."""
    if self.is_meta:
        return self.new_empty(target.shape if how == NONE else ())
    return aten.multi_margin_loss.default(*_known(self, target), p, fitted(margin, self.dtype), weight, how)


def multi_margin_loss_backward(
    grad_output: torch.Tensor,
    self: torch.Tensor,
    target: torch.Tensor,
    p: int,
    margin: float,
    weight: Maybe = None,
    how: int = MEAN,
) -> torch.Tensor:
    """Total form: no gradient where the class does not exist."""
    if self.is_meta:
        return torch.empty_like(self)
    scores, places = _known(self, target)
    return aten.multi_margin_loss_backward.default(
        grad_output, scores, places, p, fitted(margin, self.dtype), weight, how
    )


def _made() -> dict[str, Callable[..., Any]]:
    made: dict[str, Callable[..., Any]] = {
        "mse_loss": Guarded(_pair, aten.mse_loss.default),
        "mse_loss_backward": Guarded(_pair_backward, aten.mse_loss_backward.default),
        "soft_margin_loss": Guarded(_soft_margin, soft_margin_loss),
        "soft_margin_loss_backward": Guarded(_soft_margin_backward, soft_margin_loss_backward),
        "binary_cross_entropy": Guarded(_probability, binary_cross_entropy),
        "binary_cross_entropy_backward": Guarded(_probability_backward, aten.binary_cross_entropy_backward.default),
        "binary_cross_entropy_with_logits": Guarded(_logits, aten.binary_cross_entropy_with_logits.default),
        "multi_margin_loss": Guarded(_margins, multi_margin_loss),
        "multi_margin_loss_backward": Guarded(_margins_backward, multi_margin_loss_backward),
    }
    for name, zero in (("smooth_l1_loss", True), ("huber_loss", False)):
        back = overload(f"{name}_backward")
        made[name] = Guarded(_pair, partial(_by_width, overload(name), zero))
        made[f"{name}_backward"] = Guarded(_pair_backward, partial(_by_width_backward, back, zero))
    for name, plane in (("nll_loss", False), ("nll_loss2d", True)):
        forward, back = overload(f"{name}_forward"), overload(f"{name}_backward")
        made[f"{name}_forward"] = Guarded(partial(_classes, plane), partial(_nll, forward))
        made[f"{name}_backward"] = Guarded(partial(_classes_backward, plane), partial(_nll_backward, back))
    return {f"aten::{name}": call for name, call in made.items()}


TOTAL = _made()
