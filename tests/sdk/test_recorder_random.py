"""Random numbers on a node follow this process's generator, and batch normalisation keeps its statistics there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gridclient.recorder import Pointer
from gridclient.wire.errors import InvalidInputError, OperationNotAllowedError
from tests.sdk.local_node import LocalNode, assert_same


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


@pytest.fixture
def zeros(node: LocalNode) -> Pointer:
    return node.publish(torch.zeros(4000))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        yield


EXPECTED: dict[str, tuple[Callable[[Any], Any], float, float]] = {  # mean and standard deviation
    "rand_like": (torch.rand_like, 0.5, 0.289),
    "randn_like": (torch.randn_like, 0.0, 1.0),
    "randint_like": (lambda x: torch.randint_like(x, 10), 4.5, 2.87),
    "randint_like from": (lambda x: torch.randint_like(x, -3, 4, dtype=torch.int64), 0.0, 2.0),
    "bernoulli": (lambda x: torch.bernoulli(x + 0.25), 0.25, 0.433),
    "bernoulli by a number": (lambda x: torch.bernoulli(x, 0.75), 0.75, 0.433),
    "normal": (lambda x: torch.normal(x + 2, 3.0), 2.0, 3.0),
    "normal by deviations": (lambda x: torch.normal(1.0, x + 2), 1.0, 2.0),
    "normal_": (lambda x: x.normal_(3, 2), 3.0, 2.0),
    "uniform_": (lambda x: x.uniform_(-1, 3), 1.0, 1.155),
    "exponential_": (lambda x: x.exponential_(2), 0.5, 0.5),
    "log_normal_": (lambda x: x.log_normal_(0, 0.5), 1.133, 0.604),
    "geometric_": (lambda x: x.geometric_(0.5), 2.0, 1.414),
    "random_": (lambda x: x.random_(6), 2.5, 1.708),
    "bernoulli_": (lambda x: x.bernoulli_(0.2), 0.2, 0.4),
    "bernoulli_ of integers": (lambda x: x.to(torch.int64).bernoulli_(0.2), 0.2, 0.4),
    "dropout": (lambda x: F.dropout(x + 1, 0.2), 1.0, 0.5),
    "native_dropout": (lambda x: torch.native_dropout(x + 1, 0.2, True)[0], 1.0, 0.5),
    "alpha_dropout": (lambda x: F.alpha_dropout(torch.randn_like(x), 0.2, training=True), 0.0, 1.0),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_numbers_are_distributed_as_torch_s(zeros: Pointer, case: str) -> None:
    run, mean, deviation = EXPECTED[case]
    drawn = run(zeros).get().double()
    assert drawn.mean().item() == pytest.approx(mean, abs=0.1 * max(deviation, 0.5))
    assert drawn.std().item() == pytest.approx(deviation, rel=0.1)


def test_manual_seed_or_a_generator_repeats_what_was_drawn(zeros: Pointer) -> None:
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        own = torch.Generator().manual_seed(seed + 10)
        draws.append(
            [torch.rand_like(zeros).get(), F.dropout(zeros + 1).get(), zeros.clone().normal_(generator=own).get()]
        )
    for first, again, other in zip(*draws, strict=True):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_a_generator_of_the_user_leaves_torch_s_alone(zeros: Pointer) -> None:
    before = torch.get_rng_state()
    zeros.uniform_(generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_depends_on_nothing_private(node: LocalNode, zeros: Pointer) -> None:
    torch.bernoulli(zeros, 0.5)
    drawn = next(entry for entry in node.program.values() if entry.op == "grid::rand")
    assert drawn.args[:1] == [[4000]]
    assert 0 <= drawn.args[2] < 2**63


def test_arguments_outside_a_distribution_are_refused(zeros: Pointer) -> None:
    for run in (
        lambda: zeros.bernoulli_(1.5),
        lambda: zeros.normal_(0, -1),
        lambda: zeros.uniform_(2, 1),
        lambda: zeros.exponential_(0),
        lambda: zeros.geometric_(1.0),
        lambda: torch.randint_like(zeros, 0),
        lambda: torch.randint_like(zeros, 300, dtype=torch.int8),
    ):
        with pytest.raises(InvalidInputError):
            run()


def test_a_layer_in_training_updates_its_statistics_on_the_node_and_learns(node: LocalNode) -> None:
    x = torch.randn(6, 3, 4, 4)
    here = torch.nn.BatchNorm2d(3)
    there = torch.nn.BatchNorm2d(3)
    state = {name: node.publish(value, name) for name, value in here.state_dict().items()}
    weight = state["weight"].requires_grad_()
    values = node.publish(x)
    for _ in range(3):
        expected = here(x)
        made = torch.func.functional_call(there, {**state, "weight": weight}, (values,))
    assert_same(made.get(), expected)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert_same(state[name].get(), here.state_dict()[name])
    assert here.running_mean is not None
    (expected**2).sum().backward()
    (made**2).sum().backward()
    assert here.weight.grad is not None
    assert weight.grad is not None
    assert_same(weight.grad.get(), here.weight.grad)
    here.eval()
    there.eval()
    assert_same(torch.func.functional_call(there, state, (values,)).get(), here(x))


def test_statistics_of_a_local_layer_are_not_written_with_private_values(node: LocalNode) -> None:
    values = node.publish(torch.randn(6, 3, 4, 4))
    with pytest.raises(OperationNotAllowedError, match="local tensor"):
        torch.nn.BatchNorm2d(3)(values)


@pytest.mark.parametrize("layer", [torch.nn.GRU, torch.nn.RNN])
def test_recurrent_layers_without_a_kernel_of_their_own_replay_exactly(node: LocalNode, layer: Any) -> None:
    local = layer(4, 3, 2, bidirectional=True)
    names, x = [name for name, _ in local.named_parameters()], torch.randn(5, 2, 4)
    sent = {name: node.publish(value, name).requires_grad_() for name, value in local.named_parameters()}
    here, _ = local(x)
    there, _ = torch.func.functional_call(local, sent, (node.publish(x),))
    assert_same(there.get(), here)
    here.pow(2).sum().backward()
    there.pow(2).sum().backward()
    for name in names:
        gradient = sent[name].grad
        assert gradient is not None
        assert_same(gradient.get(), local.get_parameter(name).grad)
