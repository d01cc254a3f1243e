"""A model goes to a node, learns there and comes back: the same objects, and bit for bit what it would be here."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gridclient as grid
from gridclient.models import get_module, send_module
from gridclient.node import Node
from gridclient.program.graph import CONSTANT, PARAMETER
from gridclient.recorder import Pointer
from gridclient.wire.errors import (
    ConflictError,
    GetNotPermittedError,
    LimitExceededError,
    OperationNotAllowedError,
)
from tests.factories.crew import fresh, refused
from tests.factories.learners import LEARNERS, OPTIMIZERS, made
from tests.sdk.local_node import assert_same
from tests.sdk.training_node import TrainingNode, away, parts

Send = Callable[[Tensor], Tensor]


def here(values: Tensor) -> Tensor:
    return values


def steps(name: str, model: nn.Module, optimizer: Any, count: int = 10, send: Send = here) -> Any:
    """Train where the model is. Returns the losses."""
    learner = LEARNERS[name]
    x, y = send(learner.inputs), send(learner.targets)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = learner.loss(model, x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses


def assert_equal_models(there: nn.Module, local: nn.Module) -> None:
    mine, other = local.state_dict(), there.state_dict()
    assert list(mine) == list(other)
    for name, tensor in mine.items():
        assert_same(other[name], tensor.clone())  # an expanded one comes back with memory of its own


class Odd(nn.Module):
    """Tied and transposed weights, frozen and scalar parameters, buffers of every kind."""

    seen: Tensor
    kept: Tensor
    table: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3, bias=False)
        self.tied = nn.Linear(3, 3, bias=False)
        self.tied.weight = self.inner.weight
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.tensor(4))
        self.register_buffer("kept", torch.arange(3.0), persistent=False)
        self.register_buffer("table", torch.arange(3).expand(2, 3))
        self.register_buffer("nothing", None)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(0)
        made: Tensor = (self.tied(self.inner(x)) * self.frozen * self.scale) @ self.turned
        return made


# --- the same bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "between"])
@pytest.mark.parametrize("name", LEARNERS)
def test_forward_gradients_and_ten_steps_on_a_node_are_those_of_torch(
    hospital: TrainingNode, name: str, when: str
) -> None:
    local, there = made(name), made(name)
    of_local = OPTIMIZERS["Adam"](local.parameters())
    optimizer = OPTIMIZERS["Adam"](there.parameters()) if when == "before" else None
    send_module(there, hospital.recorder)
    optimizer = optimizer or OPTIMIZERS["Adam"](there.parameters())
    losses = steps(name, local, of_local), steps(name, there, optimizer, send=hospital.recorder.input_constant)
    for mine, other in zip(local.parameters(), there.parameters(), strict=True):
        assert isinstance(other.grad, Pointer)
        assert mine.grad is not None
        assert_same(other.grad.get(), mine.grad)
    get_module(there)  # while the losses are alive
    for mine, other in zip(*losses, strict=True):
        assert_same(other.get(), mine.detach())
    assert_equal_models(there, local)
    local.eval()
    there.eval()
    x = LEARNERS[name].inputs
    assert_same(there(x), local(x))
    after = steps(name, there, OPTIMIZERS["SGD"](there.parameters()), 1)
    assert_same(after[0], steps(name, local, OPTIMIZERS["SGD"](local.parameters()), 1)[0])


@pytest.mark.parametrize("name", ["ResNet block", "transformer"])
def test_a_model_in_evaluation_says_on_a_node_what_it_says_here(
    hospital: TrainingNode, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, there = made(name), made(name)
    x = LEARNERS[name].inputs
    for model in (local, there):
        steps(name, model, OPTIMIZERS["SGD"](model.parameters()), 2)
        model.eval()
    send_module(there, hospital.recorder)
    made_there: Any = there(hospital.recorder.input_constant(x))
    assert_same(made_there.get(), local(x))
    # With the shortcut, torch computes a transformer in one operation, which is refused and says what to do.
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
    with torch.no_grad():
        again: Any = there(hospital.recorder.input_constant(x))
        assert_same(again.get(), local(x))
    get_module(there)
    assert_equal_models(there, local)


def test_the_shortcut_for_transformers_is_refused_and_says_what_to_do(hospital: TrainingNode) -> None:
    model = made("transformer").eval()
    send_module(model, hospital.recorder)
    with torch.no_grad(), pytest.raises(OperationNotAllowedError, match=r"set_fastpath_enabled\(False\)"):
        model(hospital.recorder.input_constant(LEARNERS["transformer"].inputs))


def test_two_nodes_alternately_are_one_training(hospital: TrainingNode, company: TrainingNode) -> None:
    local, there = made("ResNet block"), made("ResNet block")
    optimizers = OPTIMIZERS["SGD"](local.parameters()), OPTIMIZERS["SGD"](there.parameters())
    for node in (hospital, company, hospital, company):
        steps("ResNet block", local, optimizers[0], 2)
        send_module(there, node.recorder)
        loss = steps("ResNet block", there, optimizers[1], 2, node.recorder.input_constant)
        get_module(there)
        assert isinstance(loss[-1], Pointer)
    assert_equal_models(there, local)


# --- the same objects -----------------------------------------------------------------------------------------------


def test_every_parameter_and_buffer_is_the_same_object_there_and_here(hospital: TrainingNode) -> None:
    plain = Odd()
    model = copy.deepcopy(plain)
    model.turned.unit = "kg"  # type: ignore[attr-defined]
    before = parts(model)
    assert send_module(model, hospital.recorder) is model
    assert {name: id(tensor) for name, tensor in parts(model).items()} == {n: id(t) for n, t in before.items()}
    assert all(away(tensor) and tensor.location is hospital for tensor in parts(model).values())
    assert model.tied.weight is model.inner.weight
    assert not model.frozen.requires_grad
    assert model.turned.unit == "kg"  # type: ignore[attr-defined]
    assert get_module(model) is model
    assert {name: id(tensor) for name, tensor in parts(model).items()} == {n: id(t) for n, t in before.items()}
    for name, tensor in parts(plain).items():
        assert type(parts(model)[name]) is type(tensor)
        assert parts(model)[name].requires_grad == tensor.requires_grad
        assert_same(parts(model)[name].detach(), tensor.detach().clone())
    assert list(vars(model.turned)) == ["unit"]


def test_each_tensor_is_marked_once_as_what_it_was_sent(hospital: TrainingNode) -> None:
    model = send_module(Odd(), hospital.recorder)
    marked = [node for node in hospital.program.values() if node.op == PARAMETER]
    assert [node.args[2] for node in marked] == list(parts(model))
    assert len({node.args[1] for node in marked}) == 1
    assert all(hospital.program[node.args[0].node].op == CONSTANT for node in marked)


def test_a_sent_parameter_is_no_copy_of_the_memory_here(hospital: TrainingNode) -> None:
    model = nn.Linear(2, 2, bias=False)
    memory = model.weight.detach()
    send_module(model, hospital.recorder)
    memory.zero_()
    get_module(model)
    assert model.weight.abs().sum() > 0
    assert model.weight.data_ptr() != memory.data_ptr()


def test_gradients_are_dropped_and_old_graphs_change_nothing(hospital: TrainingNode) -> None:
    model = nn.Linear(2, 1)
    x = torch.ones(3, 2)
    model(x).sum().backward()
    loss_here = model(x).sum()
    send_module(model, hospital.recorder)
    assert model.weight.grad is None
    loss_here.backward()
    assert model.weight.grad is None
    loss_there = model(hospital.recorder.input_constant(x)).sum()
    loss_there.backward(retain_graph=True)
    get_module(model)
    assert model.weight.grad is None
    loss_there.backward()
    assert model.weight.grad is None


def test_the_node_may_forget_a_model_that_came_back(hospital: TrainingNode) -> None:
    model = send_module(nn.Linear(2, 1), hospital.recorder)
    refs = [tensor.ref for tensor in parts(model).values()]
    get_module(model)
    gc.collect()
    assert set(refs) <= set(hospital.dropped)


# --- one decision ---------------------------------------------------------------------------------------------------


def test_a_state_is_asked_for_at_once_and_so_is_what_replaced_a_buffer(hospital: TrainingNode) -> None:
    plain = Odd()
    model = copy.deepcopy(plain)
    x = torch.ones(2, 3)
    plain(x)
    send_module(model, hospital.recorder)
    model(hospital.recorder.input_constant(x))
    get_module(model)
    ((module, names),) = hospital.states
    assert names == list(parts(model))
    assert_equal_models(model, plain)
    assert type(model.mean) is Tensor


def test_a_part_comes_back_under_the_names_it_was_sent_with(hospital: TrainingNode) -> None:
    model = send_module(nn.Sequential(Odd(), nn.Linear(2, 1)), hospital.recorder)
    odd = model[0]
    model(hospital.recorder.input_constant(torch.ones(2, 3)))
    get_module(odd)
    ((_, names),) = hospital.states
    assert names == [f"0.{name}" for name in parts(odd)]
    assert away(model[1].weight)
    with pytest.raises(ConflictError, match=r"1\.weight is on hospital already"):
        send_module(model, hospital.recorder)
    assert type(odd.scale) is nn.Parameter
    get_module(model)
    assert not away(model[1].weight)


def test_a_module_keeps_its_id_in_a_session_until_its_tensors_are_others(
    hospital: TrainingNode, company: TrainingNode
) -> None:
    model = nn.Linear(2, 1)

    def visit(node: TrainingNode) -> str:
        get_module(send_module(model, node.recorder))
        return node.states[-1][0]

    first = visit(hospital)
    assert visit(company) != first
    assert visit(hospital) == first
    model.bias.requires_grad_(False)
    assert visit(hospital) != first


def test_a_refused_state_leaves_the_model_where_it_is(hospital: TrainingNode) -> None:
    model = send_module(Odd(), hospital.recorder)
    hospital.refusal = GetNotPermittedError("train")
    with pytest.raises(GetNotPermittedError):
        get_module(model)
    assert all(away(tensor) for tensor in parts(model).values())
    hospital.refusal = None
    get_module(model)
    assert not any(isinstance(tensor, Pointer) for tensor in parts(model).values())


def test_a_send_that_fails_in_the_middle_leaves_the_model_here(
    hospital: TrainingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = nn.Linear(2, 1), torch.optim.SGD
    before = [tensor.clone() for tensor in parts(model).values()]
    monkeypatch.setattr("gridclient.recorder.tape.MAX_NODES", 3)
    with pytest.raises(LimitExceededError):
        send_module(model, hospital.recorder)
    assert all(type(tensor) is nn.Parameter for tensor in parts(model).values())
    for mine, old in zip(parts(model).values(), before, strict=True):
        assert_same(mine.detach(), old.detach())
    model(torch.ones(1, 2)).sum().backward()
    optimizer(model.parameters(), lr=0.1).step()


def test_a_state_that_does_not_fit_leaves_the_model_there(
    hospital: TrainingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = send_module(nn.Linear(2, 1), hospital.recorder)
    monkeypatch.setattr(hospital, "take", lambda *_: {"weight": torch.zeros(1, 2), "bias": torch.zeros(2)})
    with pytest.raises(grid.ConnectionLostError, match="other shapes"):
        get_module(model)
    assert away(model.weight)
    assert away(model.bias)


# --- a live node ----------------------------------------------------------------------------------------------------


def on(node: Node) -> Send:
    return lambda values: grid.send(values, node)


@pytest.mark.parametrize("name", LEARNERS)
def test_public_training_on_a_live_node_is_that_of_torch_and_comes_back_without_a_grant(
    scientist: Node, name: str
) -> None:
    local, there = made(name), made(name)
    optimizers = OPTIMIZERS["Adam"](local.parameters()), OPTIMIZERS["Adam"](there.parameters())
    losses = steps(name, local, optimizers[0])
    grid.send(there, scientist)
    losses_there = steps(name, there, optimizers[1], send=on(scientist))
    assert grid.get(there) is there
    assert_equal_models(there, local)
    assert_same(losses_there[-1].get(), losses[-1].detach())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_steps_on_a_live_node(scientist: Node, optimizer: str) -> None:
    local, there = made("MLP"), made("MLP")
    steps("MLP", local, OPTIMIZERS[optimizer](local.parameters()))
    grid.send(there, scientist)
    steps("MLP", there, OPTIMIZERS[optimizer](there.parameters()), send=on(scientist))
    assert_equal_models(grid.get(there), local)


def test_a_model_that_met_private_data_stays_there_until_somebody_decides(owner: Node, scientist: Node) -> None:
    rows, name = LEARNERS["MLP"].inputs, fresh("trained-on")
    pointer = grid.private_tensor(rows, name=name, bounds=(-5, 5)).send(owner)
    x: Any = scientist.dataset(pointer.dataset).pointer()
    local, there = nn.Linear(5, 1), nn.Linear(5, 1)
    there.load_state_dict(local.state_dict())
    optimizers = [OPTIMIZERS["momentum"](model.parameters()) for model in (local, there)]
    grid.send(there, x.location)
    for model, optimizer, values in zip((local, there), optimizers, (rows, x), strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            (model(values) ** 2).mean().backward()
            optimizer.step()
    error = refused(lambda: grid.get(there))
    assert all(away(tensor) for tensor in parts(there).values())
    request = error.request(reason="To see what can be learned.")
    (asked,) = [entry for entry in owner.requests() if entry.id == request.id]
    asked.approve(reason="Fine.")
    state = request.wait(timeout=30).get()
    assert list(state) == ["weight", "bias"]
    for given, tensor in local.state_dict().items():
        assert_same(state[given], tensor)
