"""Puts another tensor behind an object that others hold: a module, an optimiser, a graph that is still alive."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch

_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def swap(held: torch.Tensor, other: torch.Tensor) -> None:
    """Exchange two tensors, so that everybody who holds one of the objects now finds the other tensor there.

    Each object keeps its hooks; gradients stay with the tensors, as does every graph that was made with them.
    `torch.utils.swap_tensors` would refuse live graphs and weak references, and assigning to `.data` ends the process
    when one of the tensors is a pointer.
    Raises TypeError or RuntimeError, with both as they were, where torch cannot exchange them.
    """
    hooks = [(name, getattr(held, name), getattr(other, name)) for name in _HOOKS]
    _exchange(held, other)
    for name, mine, others in hooks:
        # The objects still have their dictionaries of hooks, but the tensors behind them know the other's. To assign
        # None would not make them forget it.
        if mine is not None or others is not None:
            setattr(held, name, OrderedDict() if mine is None else mine)
            setattr(other, name, OrderedDict() if others is None else others)


def swap_all(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Exchange all of them, or none: an error leaves every tensor as it was."""
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for held, other in pairs:
            swap(held, other)
            done.append((held, other))
    except BaseException:
        for held, other in reversed(done):
            swap(held, other)
        raise


def _exchange(held: torch.Tensor, other: torch.Tensor) -> None:
    classes, attributes = (type(held), type(other)), (held.__dict__, other.__dict__)
    try:
        held.__class__, other.__class__ = classes[1], classes[0]
        held.__dict__, other.__dict__ = attributes[1], attributes[0]
        torch._C._swap_tensor_impl(held, other)
    except BaseException:
        held.__class__, other.__class__ = classes
        held.__dict__, other.__dict__ = attributes
        raise
