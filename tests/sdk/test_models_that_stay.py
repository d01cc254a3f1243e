"""What cannot be sent stays here, whole, and the error names it; what is here already is what `grid.get` gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gridclient as grid
from gridclient.models import send_module
from gridclient.wire.errors import ConflictError, InvalidInputError
from tests.factories.crew import Crew
from tests.sdk.training_node import TrainingNode, away, parts


def test_a_module_that_is_here_is_returned(hospital: TrainingNode) -> None:
    model = nn.Linear(2, 1)
    assert grid.get(model) is model
    tensor = torch.ones(2)
    assert grid.get(tensor) is tensor
    assert torch.equal(grid.get(hospital.recorder.input_constant(tensor)), tensor)
    with pytest.raises(InvalidInputError, match="a pointer or a module"):
        grid.get(3)


@pytest.mark.parametrize("other", [False, True], ids=["same node", "other node"])
def test_a_module_that_is_on_a_node_cannot_be_sent(hospital: TrainingNode, company: TrainingNode, other: bool) -> None:
    model = send_module(nn.Linear(2, 1), hospital.recorder)
    with pytest.raises(ConflictError, match="weight is on hospital already"):
        send_module(model, (company if other else hospital).recorder)
    assert away(model.weight)
    assert parts(model)["weight"].location is hospital


def shared() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = nn.Parameter(parts(model)["0.weight"].data)
    return model


def with_buffer(tensor: Tensor) -> nn.Module:
    model = nn.Linear(2, 1)
    model.register_buffer("odd", tensor)
    return model


class Own(Tensor):
    pass


CANNOT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "two in one memory": (shared, "same memory"),
    "no shape yet": (lambda: nn.LazyLinear(2), "call the module once"),
    "complex": (lambda: with_buffer(torch.zeros(2, dtype=torch.complex64)), "complex64"),
    "no memory": (lambda: with_buffer(torch.zeros(2, device="meta")), "meta"),
    "sparse": (lambda: with_buffer(torch.eye(2).to_sparse()), "sparse"),
    "a class of its own": (lambda: with_buffer(torch.ones(2).as_subclass(Own)), "Own"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_cannot_travel_stays_whole_and_is_named(hospital: TrainingNode, case: str) -> None:
    make, words = CANNOT[case]
    model = make()
    kinds = [type(tensor) for tensor in parts(model).values()]
    with pytest.raises(InvalidInputError, match=words):
        send_module(model, hospital.recorder)
    assert [type(tensor) for tensor in parts(model).values()] == kinds


def test_send_takes_a_node_and_nothing_that_is_on_one(crew: Crew) -> None:
    with pytest.raises(InvalidInputError, match="takes a node"):
        grid.send(nn.Linear(2, 1), "hospital")  # type: ignore[call-overload]
    node = crew.hire("scientist")
    with pytest.raises(ConflictError, match="already"):
        grid.send(grid.send(torch.ones(2), node), node)
