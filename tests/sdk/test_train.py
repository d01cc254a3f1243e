"""Training on private data through the SDK: what a `train` grant gives, what it refuses, and the way by the queue."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gridclient
from gridclient.datasets import Dataset
from gridclient.node import Node
from gridclient.program.graph import PARAMETER
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import pointer_to
from tests.factories.crew import Crew, fresh, refused

WHY = "A risk score for the ward."
STEPS, RATE = 5, 0.1
FEATURES = torch.linspace(-2, 2, 60).reshape(20, 3) ** 3
LABELS = (FEATURES.sum(1, keepdim=True) > 0.5).to(torch.float32)
START = {"weight": torch.tensor([[0.1], [-0.2], [0.3]]), "bias": torch.zeros(1)}


class Logistic:
    """A logistic regression whose parameters were sent to a node; it trains by plain torch."""

    def __init__(self, node: Node) -> None:
        self.node, self.module = node, secrets.token_hex(16)
        self.parameters = {name: self._sent(name, value) for name, value in START.items()}

    def _sent(self, name: str, value: torch.Tensor) -> Any:
        tape = self.node.recorder.tape
        constant = tape.dense_constant(value)
        args = [constant.ref, self.module, name]
        return pointer_to(Cell(tape.write(PARAMETER, args, {}, constant.spec, constant.sources))).requires_grad_()

    def train(self, features: Any, labels: Any, steps: int = STEPS) -> list[Any]:
        """Train; returns the losses."""
        return train(self.parameters, features, labels, steps)

    def take(self) -> dict[str, torch.Tensor]:
        return self.node.take(self.module, list(self.parameters), list(self.parameters.values()))


def train(parameters: dict[str, Any], features: Any, labels: Any, steps: int = STEPS) -> list[Any]:
    losses = []
    for _ in range(steps):
        scores = features @ parameters["weight"] + parameters["bias"]
        loss = (scores.clamp_min(0) - scores * labels + torch.log1p(torch.exp(-scores.abs()))).mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(list(parameters.items()), gradients, strict=True):
                parameters[name] = (value - RATE * gradient).requires_grad_()
        losses.append(loss.detach())
    return losses


def local() -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """What the same training gives here."""
    parameters = {name: value.clone().requires_grad_() for name, value in START.items()}
    losses = train(parameters, FEATURES, LABELS)
    return {name: value.detach() for name, value in parameters.items()}, losses


def publish(owner: Node, values: torch.Tensor) -> Dataset:
    pointer = gridclient.private_tensor(values, name=fresh("train")).send(owner)
    return owner.dataset(pointer.dataset)


@pytest.fixture
def data(owner: Node) -> tuple[Dataset, Dataset]:
    """Features and labels of the same people."""
    return publish(owner, FEATURES), publish(owner, LABELS)


@pytest.fixture
def taught(scientist: Node, data: tuple[Dataset, Dataset]) -> tuple[Logistic, list[Any]]:
    """A model of the scientist's, trained on both datasets, and its losses."""
    model = Logistic(scientist)
    return model, model.train(*(scientist.dataset(each.name).pointer() for each in data))


def grant(data: tuple[Dataset, ...], to: Node, right: str, **named: Any) -> None:
    for dataset in data:
        dataset.grant(to.user, right, reason=WHY, **named)


def releases(crew: Crew) -> list[Any]:
    return [event.payload for event in crew.admin.audit(limit=40) if event.verb == "value_released"]


def check_is_local(state: dict[str, torch.Tensor]) -> None:
    expected, _ = local()
    assert list(state) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value)
        state[name].add_(1)  # mine: it may be trained on


def test_without_the_right_nothing_comes_and_the_way_by_the_queue_is_said(
    taught: tuple[Logistic, list[Any]], data: tuple[Dataset, Dataset], scientist: Node
) -> None:
    model, losses = taught
    grant(data, scientist, "aggregate")
    for take in (model.take, losses[-1].get):
        error = refused(take)
        assert "'train' grant on every dataset" in str(error) and ".request(reason=...)" in str(error)


def test_train_gives_the_state_and_the_losses_and_each_is_a_disclosure(
    taught: tuple[Logistic, list[Any]], data: tuple[Dataset, Dataset], scientist: Node, crew: Crew
) -> None:
    model, losses = taught
    grant(data, scientist, "train")
    assert scientist.dataset(data[0].name).rights == ["compute", "discover", "train"]
    check_is_local(model.take())
    for loss, expected in zip(losses, local()[1], strict=True):
        torch.testing.assert_close(loss.get(), expected)
    found = releases(crew)[: STEPS + 1]
    assert [entry["route"] for entry in found] == ["train"] * (STEPS + 1)
    assert [entry["kind"] for entry in found] == ["tensor"] * STEPS + ["state"]
    assert found[-1]["shape"] == [2, 4] and len({entry["program"] for entry in found}) == STEPS + 1


def test_train_gives_no_gradient_no_row_and_nothing_on_the_way(
    taught: tuple[Logistic, list[Any]], data: tuple[Dataset, Dataset], scientist: Node
) -> None:
    grant(data, scientist, "train")
    features, labels = (scientist.dataset(each.name).pointer() for each in data)
    model, _ = taught
    weight = model.parameters["weight"]
    scores = features @ weight
    rows: Any = (scores - labels) ** 2
    gradient: Any = torch.autograd.grad(rows.mean(), [weight])[0]
    momentum = gradient * 0.9 + gradient
    private: list[Callable[[], Any]] = [features.get, features.sum(0).get, features.mean().get, labels[0, 0].get]
    for take in [value.get for value in (scores, rows, gradient, momentum, weight.detach(), rows.mean(0))] + private:
        refused(take)
    assert rows.mean().detach().get().shape == ()


def test_train_is_needed_on_every_dataset(
    taught: tuple[Logistic, list[Any]], data: tuple[Dataset, Dataset], scientist: Node
) -> None:
    model, losses = taught
    grant(data[:1], scientist, "train")
    for take in (model.take, losses[0].get):
        refused(take)
    grant(data[1:], scientist, "read")
    check_is_local(model.take())


def test_a_grant_for_programs_gives_what_these_made(
    taught: tuple[Logistic, list[Any]], data: tuple[Dataset, Dataset], scientist: Node, crew: Crew
) -> None:
    model, losses = taught
    request = refused(model.take).request(WHY)
    grant(data, scientist, "train", programs=[request.program_hash])
    check_is_local(model.take())
    assert losses[-1].shape == () and request.program_hash not in str(refused(losses[-1].get))


def test_read_and_no_private_data_give_a_state_too(owner: Node, data: tuple[Dataset, Dataset]) -> None:
    mine = Logistic(owner)
    mine.train(*(each.pointer() for each in data))
    check_is_local(mine.take())
    public = Logistic(owner)
    public.train(gridclient.send(FEATURES, owner), gridclient.send(LABELS, owner))
    check_is_local(public.take())


def test_an_approved_request_gives_the_whole_state(
    crew: Crew, taught: tuple[Logistic, list[Any]], data: tuple[Dataset, Dataset], owner: Node
) -> None:
    model, _ = taught
    error = refused(model.take)
    with pytest.raises(gridclient.InvalidInputError, match="reason"):
        error.request(" ")
    request = error.request(WHY)
    with pytest.raises(gridclient.RequestPendingError):
        request.get()
    assert "The state of a module: 2 tensors with 4 numbers in all" in request.words
    assert all(dataset.name in request.words for dataset in data) and "“weight”: 3 x 1 numbers" in request.words
    owner.http.post(f"requests/{request.id}/approve/", reason="Agreed.")
    check_is_local(request.wait(30).get())
    check_is_local(request.get())
    check_is_local(model.take())  # the approval is for this program, wherever it runs


def test_a_long_state_arrives_whole(owner: Node, scientist: Node) -> None:
    wide = torch.arange(60_000, dtype=torch.float32).reshape(3, 20_000)
    tape = scientist.recorder.tape
    constant = tape.dense_constant(wide)
    pointer: Any = pointer_to(Cell(tape.write(PARAMETER, [constant.ref, "ab12", "wide"], {}, constant.spec,
                                              constant.sources)))  # fmt: skip
    found = scientist.take("ab12", ["wide", "half"], [pointer, pointer.to(torch.bfloat16)])
    assert torch.equal(found["wide"], wide) and torch.equal(found["half"], wide.to(torch.bfloat16))
    with pytest.raises(gridclient.InvalidInputError):
        scientist.take("ab12", ["wide"], [])


def test_a_module_that_was_sent_comes_back_trained_or_stays(
    owner: Node, scientist: Node, data: tuple[Dataset, Dataset]
) -> None:
    """With buffers that move before anything was trained on."""
    model, mirror = (torch.nn.Sequential(torch.nn.Linear(3, 1), Moving()) for _ in range(2))
    mirror.load_state_dict(model.state_dict())
    features, labels = (scientist.dataset(each.name).pointer() for each in data)
    gridclient.send(model, scientist)
    for net, x, y in ((model, features, labels), (mirror, FEATURES, LABELS)):
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
        ((net(x) - y) ** 2).mean().backward()
        optimizer.step()
    assert refused(lambda: gridclient.get(model)).request(WHY).state == "submitted"
    grant(data, scientist, "train")
    gridclient.get(model)
    for name, value in mirror.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


class Moving(torch.nn.Module):
    """Keeps a moving mean of what passes through, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.mean.mul_(0.9).add_(x.mean(0) * 0.1)  # type: ignore[operator]
            self.count.add_(1)  # type: ignore[operator]
        return x
