"""Notebooks that call the verbs as methods of tensors and modules: the same verbs, added only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import gridclient as grid
from gridclient.node import Node
from tests.factories.crew import fresh, refused

VERBS = ["private_tensor", "tag", "describe", "send", "get"]


@pytest.fixture
def hook() -> Iterator[grid.TorchHook]:
    hook = grid.TorchHook(torch)
    yield hook
    hook.remove()


def tensor(values: Any) -> Any:
    """Torch's types do not know the added methods."""
    return torch.tensor(values)


def test_torch_is_as_it_was_before_and_after() -> None:
    verbs = [(owner, verb) for owner, names in ((torch.Tensor, VERBS), (nn.Module, VERBS[3:])) for verb in names]
    assert not any(hasattr(owner, verb) for owner, verb in verbs)
    hooks = [grid.TorchHook(torch), grid.TorchHook(torch)]
    assert all(hasattr(owner, verb) for owner, verb in verbs)
    for hook in hooks:
        hook.remove()
    assert not any(hasattr(owner, verb) for owner, verb in verbs)


@pytest.mark.usefixtures("hook")
def test_a_module_is_sent_and_taken_by_its_methods(scientist: Node) -> None:
    model: Any = nn.Linear(2, 1)
    before = model.weight.clone()
    assert model.get() is model
    assert model.send(scientist) is model
    assert model.weight.location is scientist
    assert model.get() is model
    assert torch.equal(model.weight, before)
    table: Any = nn.ParameterDict({"a": nn.Parameter(torch.ones(1))})
    assert table.get("b", 3) == 3


@pytest.mark.usefixtures("hook")
def test_a_plain_tensor_is_sent_into_my_session(scientist: Node) -> None:
    x = tensor([1.0, 2.0])
    assert x.get() is x
    pointer = x.send(scientist)
    assert (pointer * 2).get().tolist() == [2.0, 4.0]
    for verb in (lambda: pointer.tag("#a"), lambda: pointer.describe("x"), lambda: pointer.private_tensor()):
        with pytest.raises(grid.InvalidInputError, match="on its node already"):
            verb()
    with pytest.raises(grid.ConflictError):
        pointer.send(scientist)


@pytest.mark.usefixtures("hook")
def test_tags_and_a_description_publish_in_any_order(owner: Node, scientist: Node) -> None:
    word = fresh("hooked")
    rows = tensor([[1.0], [2.0], [3.0]])
    assert rows.tag(f"#{word}", "#weights") is rows
    assert rows.tag("#weights").describe(f"Weights of {word}.") is rows
    published = rows.send(owner)
    private = (
        tensor([[4.0], [5.0], [6.0]])
        .describe(f"More of {word}.")
        .private_tensor(allowed_users=[scientist.user])
        .tag(f"#{word}")
        .send(owner)
    )
    assert published.tags == [f"#{word}", "#weights"]
    assert private.description == f"More of {word}."
    found: Any = {pointer.description: pointer for pointer in scientist.search(f"#{word}")}
    assert set(found) == {f"Weights of {word}.", f"More of {word}."}
    assert found[f"More of {word}."].get().tolist() == [[4.0], [5.0], [6.0]]
    refused(found[f"Weights of {word}."].get)
