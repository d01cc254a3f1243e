"""Plans for tests: a training step, a small model, and what they are in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from gridclient.program.graph import Node, Ref
from gridclient.program.plan_format import encode_plan
from gridclient.program.plan_graph import Input, PlanGraph, Result

CLASSES = 5


def parameters(seed: int = 0) -> list[torch.Tensor]:
    """Three layers of weights and biases, and a velocity for each."""
    source = torch.Generator().manual_seed(seed)
    shapes = [(32, 20), (32,), (32, 32), (32,), (CLASSES, 32), (CLASSES,)]
    weights = [(torch.randn(shape, generator=source) * 0.1).requires_grad_() for shape in shapes]
    return [*weights, *(torch.zeros(shape) for shape in shapes)]


def batch(seed: int = 1, rows: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 20, generator=source), torch.randint(0, CLASSES, (rows,), generator=source)


def train_step(x: torch.Tensor, y: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One step of SGD with Nesterov momentum, weight decay and clipping on a perceptron of three layers.

    Returns the new state, the loss and the accuracy.
    """
    weights, velocities = state[:6], state[6:]
    hidden = F.relu(F.linear(x, weights[0], weights[1]))
    hidden = F.relu(F.linear(hidden, weights[2], weights[3]))
    scores = F.linear(hidden, weights[4], weights[5])
    loss = F.cross_entropy(scores, y)
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        steps = [new.clamp(-1, 1).add(old, alpha=1e-4) for new, old in zip(gradients, weights, strict=True)]
        velocities = tuple(old * 0.9 + step for old, step in zip(velocities, steps, strict=True))
        steps = [step.add(velocity, alpha=0.9) for step, velocity in zip(steps, velocities, strict=True)]
        weights = tuple(old.add(step, alpha=-0.05) for old, step in zip(weights, steps, strict=True))
        accuracy = (scores.argmax(1) == y).to(torch.float32).mean()
    return (*weights, *velocities, loss.detach(), accuracy)


def double(name: str) -> bytes:
    """The bytes of a plan that doubles two numbers."""
    pair = Result(0, "float32", [2])
    node = Node(1, "aten::mul.Tensor", [Ref(0), 2.0])
    return encode_plan(PlanGraph(name, "", [Input("x", "float32", [2])], [node], [Ref(1)], [pair], {}))


def same(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    """Equal bit for bit, dtypes included."""
    return len(found) == len(wanted) and all(
        one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(found, wanted, strict=True)
    )
