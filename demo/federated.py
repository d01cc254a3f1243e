"""The second use case: a model is trained on the digits of four owners, whose images stay on their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

import gridclient as grid
from demo.digits import Digits, split
from demo.printing import StepFailed
from demo.stage import Stage, refused

ROUNDS = 5
BATCH = 32
SEED = 0


def walk(stage: Stage, digits: Digits) -> None:
    """The steps, after dana has signed in to the network. Raises StepFailed."""
    hook = grid.TorchHook(torch)
    try:
        with _one_thread():
            _Federated(stage, digits).walk()
    finally:
        hook.remove()


def new_model(points: int) -> nn.Module:
    """A model for images of so many points, always with the same first weights."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return nn.Sequential(nn.Flatten(), nn.Linear(points, 64), nn.ReLU(), nn.Linear(64, 10))


def new_optimizer(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, images: Any, labels: Any) -> Any:
    """One pass over images and labels, wherever they and the model are. Returns the last loss."""
    for first in range(0, len(images), BATCH):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[first : first + BATCH]), labels[first : first + BATCH])
        loss.backward()
        optimizer.step()
    return loss.detach()


def accuracy(model: nn.Module, test: Digits) -> float:
    """The share of test images that the model names rightly."""
    with torch.no_grad():
        return float((model(test.images).argmax(1) == test.labels).double().mean())


class _Federated:
    def __init__(self, stage: Stage, digits: Digits) -> None:
        self.stage, self.out = stage, stage.out
        self.names = sorted(stage.where["nodes"])
        self.parts, self.test = split(digits, len(self.names))
        self.points = digits.images[0].numel()

    def walk(self) -> None:
        self.publish()
        images, labels = self.find()
        model = new_model(self.points)
        optimizer = new_optimizer(model)
        self.without_a_right(model, optimizer, images["hospital"], labels["hospital"])
        self.grants(images, labels)
        model = new_model(self.points)
        optimizer = new_optimizer(model)
        self.rounds(model, optimizer, images, labels)
        self.compare(model)

    def publish(self) -> None:
        out, part = self.out, self.parts[0]
        out.step("Federated training. Each of the four owners has handwritten digits, and publishes images and labels.")
        out.code("images = grid.private_tensor(images, bounds=(0.0, 1.0))")
        out.code('images = images.tag("#digits", "#images").describe("...").send(node)')
        out.code("labels = grid.private_tensor(labels, bounds=(0, 9), entities_of=images)")
        out.code('labels.tag("#digits", "#labels").describe("...").send(node)')
        for name, part in zip(self.names, self.parts, strict=True):
            node = self.stage.node(name, "olivia")
            images = grid.private_tensor(part.images, name="Digits", bounds=(0.0, 1.0))
            described = f"Handwritten digits, {len(part)} images of {part.images.shape[1]} x {part.images.shape[2]}."
            pointer = images.tag("#digits", "#images").describe(described).send(node)
            labels = grid.private_tensor(part.labels, name="Labels", bounds=(0, 9), entities_of=pointer)
            labels.tag("#digits", "#labels").describe("Which digit each of the images shows.").send(node)
            out.show(f"{name}: {pointer!r}")
        out.show(f"{len(self.test)} more images are public: to test with.")

    def find(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Images and labels by node."""
        out = self.out
        out.step("Dana searches for both.")
        out.code('data = network.search("#digits", "#images")')
        out.code('target = network.search("#digits", "#labels")')
        images, labels = (self.stage.search("#digits", tag, nodes=4) for tag in ("#images", "#labels"))
        out.show(f"images and labels on {', '.join(sorted(images))}")
        return {name: found[0] for name, found in images.items()}, {name: found[0] for name, found in labels.items()}

    def without_a_right(self, model: nn.Module, optimizer: SGD, images: Any, labels: Any) -> None:
        out = self.out
        out.step("She sends a model to the hospital's node, and takes a step of training there, in plain torch.")
        out.code("model.send(worker)")
        out.code("loss = F.cross_entropy(model(images[:32]), labels[:32])")
        out.code("loss.backward()")
        out.code("optimizer.step()")
        model.send(images.location)  # type: ignore[operator]  # TorchHook's
        loss = train(model, optimizer, images[:BATCH], labels[:BATCH])
        out.show(repr(loss))
        out.step("Both know of the images now, and stay there without a right.")
        out.code("loss.get()")
        out.show(str(refused(loss.get)))
        out.code("model.get()")
        error = refused(model.get)  # type: ignore[arg-type]
        out.show(str(error))
        out.step("Each error carries its request. This one is for the state of the model.")
        out.code('request = error.request(reason="Digits: one step of training.")')
        request = error.request(reason="Digits: one step of training.")
        out.show(repr(request))
        out.step("Olivia approves it. Dana receives the weights, and they are those that local torch gives.")
        [asked] = self.stage.node("hospital", "olivia").requests(state="submitted")
        asked.approve(reason="One step says little.")
        out.code("state = request.wait().get()")
        state = request.wait(timeout=60).get()
        clear = new_model(self.points)
        part = self.parts[self.names.index("hospital")]
        train(clear, new_optimizer(clear), part.images[:BATCH], part.labels[:BATCH])
        for name, value in clear.state_dict().items():
            self.same(name, state[name], value)
        out.show(f"{', '.join(state)}: the same in the clear, to the last bit")

    def grants(self, images: dict[str, Any], labels: dict[str, Any]) -> None:
        self.out.step(
            "The owners grant dana to train: the state of a module that was trained may leave, and its losses. They "
            "are told that this protects nobody from a determined analyst."
        )
        self.out.code('node.dataset(name).grant("dana@network", "train", reason="Digits.")')
        for name in self.names:
            # Her refused question is how a node gets to know the account that a grant can name.
            refused(labels[name].count().get)
            for pointer in (images[name], labels[name]):
                self.stage.grant(name, pointer.dataset, "train", "Digits.")

    def rounds(self, model: nn.Module, optimizer: SGD, images: dict[str, Any], labels: dict[str, Any]) -> None:
        out = self.out
        out.step(f"{ROUNDS} rounds: in each the model visits every node, and is tested when it is back.")
        out.code(
            "for name in data:",
            "    images, labels = data[name][0], target[name][0]",
            "    model.send(images.location)",
            "    loss = train(model, optimizer, images, labels)",
            "    model.get(); loss = loss.get()",
        )
        for number in range(ROUNDS):
            losses = []
            for name in self.names:
                model.send(images[name].location)  # type: ignore[operator]
                loss = train(model, optimizer, images[name], labels[name])
                model.get()  # type: ignore[operator]
                losses.append(float(loss.get()))
            told = ", ".join(f"{name} {loss:.2f}" for name, loss in zip(self.names, losses, strict=True))
            out.show(f"round {number + 1}: {100 * accuracy(model, self.test):.0f} % right; losses: {told}")

    def compare(self, model: nn.Module) -> None:
        self.out.step("The same training with all images in one place, in plain torch, gives the same model.")
        clear = new_model(self.points)
        # What an optimiser remembers of one node never goes to another.
        optimizers = [new_optimizer(clear) for _ in self.parts]
        for _ in range(ROUNDS):
            for optimizer, part in zip(optimizers, self.parts, strict=True):
                train(clear, optimizer, part.images, part.labels)
        for name, value in clear.state_dict().items():
            self.same(name, model.state_dict()[name], value)
        self.out.show(f"{', '.join(clear.state_dict())}: equal to the last bit")

    def same(self, name: str, got: Tensor, clear: Tensor) -> None:
        if not torch.equal(got, clear):
            raise StepFailed(f"{name} is another after training on the grid than in the clear.")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in the order in which a node, which computes with one thread, takes them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
