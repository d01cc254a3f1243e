"""Models that people train, small: each with a batch of inputs, its targets and its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Learner(NamedTuple):
    """`loss(model, inputs, targets)` is a loss without axes."""

    model: Callable[[], nn.Module]
    inputs: Tensor
    targets: Tensor
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 6, 3)
        self.dense, self.out = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(torch.tanh(self.first(x)), 2)
        x = F.avg_pool2d(torch.relu(self.second(x)), 2)
        return self.out(torch.relu(self.dense(x.flatten(1))))


class Residual(nn.Module):
    """A block of a ResNet, with batch norm in the block and in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.norm_one, self.norm_two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(1, 4, 1, 2, bias=False), nn.BatchNorm2d(4))
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.norm_two(self.two(torch.relu(self.norm_one(self.one(x)))))
        return self.out(F.adaptive_avg_pool2d(torch.relu(y + self.shortcut(x)), 1).flatten(1))


class Encoder(nn.Module):
    """A layer of a transformer over embedded words, whose embedding is also the last layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 11)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Any:
        return self.out(self.norm(self.layer(self.embedding(x)))).flatten(0, 1)


class UNet(nn.Module):
    """Down and up again, with the way across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.up, self.out = nn.ConvTranspose2d(6, 4, 2, 2), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Any:
        across = F.gelu(self.down(x))
        deep = F.leaky_relu(self.norm(self.deep(F.max_pool2d(across, 2))))
        return self.out(torch.cat([across, self.up(deep)], 1))


def _learners() -> dict[str, Learner]:
    draw = torch.Generator().manual_seed(11)
    rows, images = torch.randn(12, 5, generator=draw), torch.randn(6, 1, 10, 10, generator=draw)
    of_rows, of_images = torch.randint(3, (12,), generator=draw), torch.randint(3, (6,), generator=draw)
    words, next_words = torch.randint(11, (3, 4), generator=draw), torch.randint(11, (12,), generator=draw)

    def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    def logistic(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y)

    def error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x), y)

    def likelihood(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(F.log_softmax(model(x), 1), y)

    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3))

    return {
        "logistic regression": Learner(lambda: nn.Linear(5, 1), rows, (of_rows > 1).float(), logistic),
        "MLP": Learner(mlp, rows, of_rows, likelihood),
        "LeNet": Learner(LeNet, images, of_images, cross_entropy),
        "ResNet block": Learner(Residual, images, of_images, cross_entropy),
        "transformer": Learner(Encoder, words, next_words, cross_entropy),
        "U-Net": Learner(UNet, images, images.abs(), error),
    }


LEARNERS = _learners()

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05, initial_accumulator_value=0.1),
    "NAdam": lambda parameters: torch.optim.NAdam(parameters, lr=0.01),
}


def made(name: str) -> nn.Module:
    """The model of that name, always with the same weights; torch's own random state stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LEARNERS[name].model()
