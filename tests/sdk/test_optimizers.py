"""An optimiser remembers, on each node, what it learned there: like one optimiser a node, without anybody's care."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from gridclient import optimizers
from gridclient.models import get_module, send_module
from gridclient.recorder import Pointer
from gridclient.wire.errors import OperationNotAllowedError, RemoteValueError
from tests.factories.learners import LEARNERS, OPTIMIZERS, made
from tests.sdk.local_node import assert_same
from tests.sdk.training_node import TrainingNode

NAME = "MLP"
MLP = LEARNERS[NAME]


def steps(model: nn.Module, optimizer: optim.Optimizer, count: int = 3, node: TrainingNode | None = None) -> None:
    """Train where the model is: on the node's copy of the batch, or on a node's own batch here."""
    x, y = MLP.inputs, MLP.targets
    if node is not None:
        x, y = node.recorder.input_constant(x), node.recorder.input_constant(y)
    for _ in range(count):
        optimizer.zero_grad()
        MLP.loss(model, x, y).backward()
        optimizer.step()


def visit(model: nn.Module, optimizer: optim.Optimizer, node: TrainingNode, count: int = 3) -> None:
    send_module(model, node.recorder)
    steps(model, optimizer, count, node)
    get_module(model)


def assert_equal_models(there: nn.Module, here: nn.Module) -> None:
    mine, other = here.state_dict(), there.state_dict()
    assert list(mine) == list(other)
    for name, tensor in mine.items():
        assert_same(other[name], tensor)


@pytest.mark.parametrize("when", ["before", "between"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_on_a_node_are_ten_steps_here(hospital: TrainingNode, name: str, when: str) -> None:
    here, there = made(NAME), made(NAME)
    steps(here, OPTIMIZERS[name](here.parameters()), 10)
    optimizer = OPTIMIZERS[name](there.parameters()) if when == "before" else None
    send_module(there, hospital.recorder)
    optimizer = optimizer or OPTIMIZERS[name](there.parameters())
    steps(there, optimizer, 10, hospital)
    assert_equal_models(get_module(there), here)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_nodes_alternately_are_two_optimisers_of_one_model(
    hospital: TrainingNode, company: TrainingNode, name: str
) -> None:
    here, there = made(NAME), made(NAME)
    first, second = (OPTIMIZERS[name](here.parameters()) for _ in range(2))
    optimizer = OPTIMIZERS[name](there.parameters())
    for _ in range(2):
        for of_node, node in ((first, hospital), (second, company)):
            steps(here, of_node)
            visit(there, optimizer, node)
    assert_equal_models(there, here)


@pytest.mark.parametrize("name", ["momentum", "Adam", "Adagrad", "NAdam"])
def test_what_was_learned_here_goes_along_and_what_was_learned_there_stays(hospital: TrainingNode, name: str) -> None:
    here, there = made(NAME), made(NAME)
    first, again = OPTIMIZERS[name](here.parameters()), OPTIMIZERS[name](here.parameters())
    optimizer = OPTIMIZERS[name](there.parameters())
    steps(here, first)
    steps(there, optimizer)
    steps(here, first)
    visit(there, optimizer, hospital)
    steps(here, again)
    steps(there, optimizer)
    assert_equal_models(there, here)
    assert not any(isinstance(kept, Pointer) for state in optimizer.state.values() for kept in state.values())
    steps(here, again)
    visit(there, optimizer, hospital)
    assert_equal_models(there, here)


def test_an_optimiser_that_begins_on_a_node_begins_anew_here(hospital: TrainingNode) -> None:
    here, there = made(NAME), send_module(made(NAME), hospital.recorder)
    optimizer = OPTIMIZERS["Adagrad"](there.parameters())
    get_module(there)
    steps(there, optimizer)
    steps(here, OPTIMIZERS["Adagrad"](here.parameters()))
    assert_equal_models(there, here)


def test_counters_stay_here_and_everything_else_is_on_the_node(hospital: TrainingNode) -> None:
    scale = nn.Parameter(torch.tensor(2.0))
    model = nn.Module()
    model.scale = scale
    optimizer = optim.NAdam([scale], lr=0.1)
    here = nn.Parameter(torch.tensor(2.0))
    mine = optim.NAdam([here], lr=0.1)

    def step(parameter: Tensor, optimizer: optim.Optimizer) -> None:
        optimizer.zero_grad()
        (parameter**2).backward()
        optimizer.step()

    step(scale, optimizer)
    send_module(model, hospital.recorder)
    step(scale, optimizer)
    kept = {name: type(value) for name, value in optimizer.state[scale].items()}
    assert kept == {"step": Tensor, "mu_product": Tensor, "exp_avg": Pointer, "exp_avg_sq": Pointer}
    for _ in range(2):
        step(here, mine)
    get_module(model)
    assert_same(scale, here)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
        lambda optimizer: optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8),
    ],
    ids=["step", "cosine", "one cycle"],
)
def test_schedulers_drive_steps_on_a_node(hospital: TrainingNode, make: Callable[[Any], Any]) -> None:
    models = made(NAME), send_module(made(NAME), hospital.recorder)
    for model, node in zip(models, (None, hospital), strict=True):
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        scheduler = make(optimizer)
        for _ in range(5):
            steps(model, optimizer, 1, node)
            scheduler.step()
    assert_equal_models(get_module(models[1]), models[0])


CLIPS: dict[str, Callable[[Iterator[nn.Parameter]], Any]] = {
    "norm": lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.05),
    "largest": lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.05, norm_type=float("inf")),
    "value": lambda parameters: nn.utils.clip_grad_value_(parameters, 0.01),
}


@pytest.mark.parametrize("none", [True, False], ids=["to none", "to zero"])
@pytest.mark.parametrize("clip", CLIPS)
def test_gradients_are_clipped_and_zeroed_on_a_node(hospital: TrainingNode, clip: str, none: bool) -> None:
    here, there = made(NAME), send_module(made(NAME), hospital.recorder)
    norms = []
    for model, send in ((here, lambda x: x), (there, hospital.recorder.input_constant)):
        optimizer = OPTIMIZERS["SGD"](model.parameters())
        x, y = send(MLP.inputs), send(MLP.targets)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=none)
            MLP.loss(model, x, y).backward()
            norms.append(CLIPS[clip](model.parameters()))
            optimizer.step()
    if norms[0] is not None:
        for mine, other in zip(norms[:3], norms[3:], strict=True):
            assert_same(other.get(), mine)
    assert_equal_models(get_module(there), here)


def test_options_for_many_tensors_at_once_are_switched_off_on_a_node_only(hospital: TrainingNode) -> None:
    here, there = made(NAME), made(NAME)
    optimizer = optim.Adam(there.parameters(), lr=0.01, foreach=True)
    untouched = optim.Adam(here.parameters(), lr=0.01, fused=True)
    send_module(there, hospital.recorder)
    x, y = hospital.recorder.input_constant(MLP.inputs), hospital.recorder.input_constant(MLP.targets)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=False)
        MLP.loss(there, x, y).backward()
        optimizer.step()
    steps(here, untouched, 1)
    assert untouched.param_groups[0]["fused"]
    assert not optimizer.param_groups[0]["foreach"]
    plain = made(NAME)
    steps(plain, optim.Adam(plain.parameters(), lr=0.01), 2)
    assert_equal_models(get_module(there), plain)


REFUSED: dict[str, tuple[Callable[[Any], optim.Optimizer], type[Exception], str]] = {
    "LBFGS": (lambda p: optim.LBFGS(p), RemoteValueError, "LBFGS"),
    "capturable": (lambda p: optim.Adam(p, capturable=True), OperationNotAllowedError, "capturable"),
    "differentiable": (lambda p: optim.SGD(p, 0.1, differentiable=True), OperationNotAllowedError, "differentiable"),
    "amsgrad": (lambda p: optim.AdamW(p, amsgrad=True), OperationNotAllowedError, "amsgrad"),
    "Adamax": (lambda p: optim.Adamax(p), OperationNotAllowedError, "Adamax"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_optimiser_that_cannot_step_on_a_node_says_so_before_it_changes_anything(
    hospital: TrainingNode, case: str
) -> None:
    make, error, words = REFUSED[case]
    model = send_module(made(NAME), hospital.recorder)
    optimizer = make(model.parameters())
    before = len(hospital.program)
    with pytest.raises(error, match=words):
        optimizer.step(lambda: 0.0)
    assert len(hospital.program) == before
    get_module(model)
    assert_equal_models(model, made(NAME))


def test_a_scheduler_that_asks_for_a_loss_is_told_that_it_is_remote(hospital: TrainingNode) -> None:
    model = send_module(made(NAME), hospital.recorder)
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    loss = MLP.loss(model, *(hospital.recorder.input_constant(x) for x in (MLP.inputs, MLP.targets)))
    with pytest.raises(RemoteValueError):
        optim.lr_scheduler.ReduceLROnPlateau(optimizer).step(loss)


def test_what_was_parked_is_freed_with_the_optimiser(hospital: TrainingNode, company: TrainingNode) -> None:
    known = len(optimizers._memories)
    model = made(NAME)
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    for node in (hospital, company):
        visit(model, optimizer, node)
    waiting = [
        kept.ref
        for states in optimizers._memories[optimizer].parked.values()
        for state in states.values()
        for kept in state.values()
        if isinstance(kept, Pointer)
    ]
    assert len(waiting) == 2 * len(list(model.parameters()))
    gc.collect()
    assert not set(waiting) & set(hospital.dropped)
    del optimizer
    gc.collect()
    assert len(optimizers._memories) == known
    assert set(waiting) <= set(hospital.dropped)


def test_optimisers_of_local_models_are_left_alone() -> None:
    here, plain = made(NAME), made(NAME)
    steps(here, OPTIMIZERS["Adam"](here.parameters()), 2)
    optimizer = OPTIMIZERS["Adam"](plain.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        MLP.loss(plain, MLP.inputs, MLP.targets).backward()
        optimizer.step()
    assert optimizer not in optimizers._memories
    assert_equal_models(plain, here)
