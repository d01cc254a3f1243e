"""Another tensor behind the same object: whoever holds it finds the new one, and a graph from before the old one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gridclient.recorder import Pointer
from gridclient.swap import swap, swap_all
from tests.sdk.training_node import TrainingNode

X = torch.arange(3.0)


@pytest.fixture
def remote() -> nn.Parameter:
    return nn.Parameter(TrainingNode().recorder.input_constant(torch.full((3,), 2.0)))


def kinds(*tensors: Any) -> list[type]:
    return [type(tensor) for tensor in tensors]


def grad_of(tensor: Any) -> Any:
    return tensor.grad


def test_who_holds_a_parameter_finds_the_remote_one_and_then_the_local_one_again(remote: nn.Parameter) -> None:
    parameter = nn.Parameter(torch.ones(3))
    layer, optimizer, watched = nn.Module(), torch.optim.SGD([parameter]), weakref.ref(parameter)
    layer.weight = parameter
    swap(parameter, remote)
    assert kinds(parameter, remote) == [Pointer, nn.Parameter]
    assert layer.weight is parameter is optimizer.param_groups[0]["params"][0] is watched()
    assert isinstance(layer.weight, nn.Parameter)
    assert dict(layer.named_parameters()) == {"weight": parameter}
    assert parameter.requires_grad
    assert parameter.is_leaf
    swap(parameter, remote)
    assert kinds(parameter, remote) == [nn.Parameter, Pointer]
    assert torch.equal(parameter, torch.ones(3))


def test_a_graph_from_before_changes_nothing_when_its_gradients_come(remote: nn.Parameter) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    loss = (parameter * X).sum()
    swap(parameter, remote)
    assert grad_of(parameter) is None
    loss.backward()
    assert grad_of(parameter) is None
    (parameter * X).sum().backward()
    assert type(grad_of(parameter)) is Pointer
    there = (parameter * X).sum()
    swap(parameter, remote)
    there.backward()
    assert torch.equal(parameter, torch.ones(3))
    assert kinds(parameter, remote) == [nn.Parameter, Pointer]


def test_hooks_stay_with_the_object_that_they_were_given_to(remote: nn.Parameter) -> None:
    parameter, seen = nn.Parameter(torch.ones(3)), list[str]()
    parameter.register_hook(lambda grad: seen.append(f"gradient {type(grad).__name__}"))
    after = parameter.register_post_accumulate_grad_hook(lambda tensor: seen.append(type(tensor).__name__))
    before = (parameter * X).sum()
    swap(parameter, remote)
    before.backward()
    assert seen == []
    (parameter * X).sum().backward()
    assert seen == ["gradient Pointer", "Pointer"]
    after.remove()
    remote.register_hook(lambda grad: seen.append("later"))
    swap(parameter, remote)
    seen.clear()
    (parameter * X).sum().backward()
    (remote * X).sum().backward()
    assert seen == ["gradient Tensor", "later"]


def test_attributes_go_with_the_tensor(remote: nn.Parameter) -> None:
    buffer = torch.ones(3)
    buffer.unit = "kg"  # type: ignore[attr-defined]
    there: Any = remote
    swap(buffer, there)
    assert there.unit == "kg"
    assert not hasattr(buffer, "unit")


class Slotted(Tensor):
    __slots__ = ("unit",)


def slotted() -> tuple[Tensor, Any]:
    return torch.ones(2).as_subclass(Slotted), None


def held_by_c() -> tuple[Tensor, Any]:
    tensor: Any = torch.ones(2)
    return tensor, getattr(torch._C, "_WeakTensorRef")(tensor)  # noqa: B009  (torch's stub lacks it)


@pytest.mark.parametrize("make", [slotted, held_by_c])
def test_what_torch_cannot_exchange_stays_as_it_was(make: Callable[[], tuple[Tensor, Any]]) -> None:
    odd, _weak = make()
    kind = type(odd)
    good, others = [nn.Parameter(torch.full((2,), float(n))) for n in (3, 4)], torch.zeros(2, 2)
    first = others[0]
    good[0].register_hook(lambda grad: grad)
    with pytest.raises((TypeError, RuntimeError)):
        swap_all([(good[0], first), (odd, others[1]), (good[1], torch.zeros(2))])
    assert kinds(*good, odd, first) == [nn.Parameter, nn.Parameter, kind, Tensor]
    assert [tensor.tolist() for tensor in good] == [[3.0, 3.0], [4.0, 4.0]]
    assert torch.equal(odd.as_subclass(Tensor), torch.ones(2))
    assert good[0]._backward_hooks
