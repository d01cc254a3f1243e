"""Models that travel: a module's parameters and buffers go to a node and come back, and stay the same objects.

So an optimiser that was made before, between or after finds them, wherever they are.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, overload
from weakref import WeakKeyDictionary

import torch
from torch import nn

import gridclient.optimizers  # noqa: F401  (its step hook belongs to every model that travels)
from gridclient.node import Node
from gridclient.program.graph import PARAMETER
from gridclient.recorder import Pointer, Recorder
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import pointer_to
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value, check_constant
from gridclient.swap import swap_all
from gridclient.values import local_tensor
from gridclient.wire.errors import ConflictError, ConnectionLostError, InvalidInputError

Module = TypeVar("Module", bound=nn.Module)
Signature = list[tuple[str, torch.Size, torch.dtype, bool]]
_SENT = "_sent"
_OF_POINTERS = frozenset({"_place", "_info", "_is_param", _SENT})


# By module and session. What an optimiser remembers there of one round meets the next: both are of the same module.
_numbers: WeakKeyDictionary[nn.Module, WeakKeyDictionary[Tape, tuple[str, Signature]]] = WeakKeyDictionary()


class Sent(NamedTuple):
    """As what a parameter or buffer was sent: the module's id in the session, and its name in the module."""

    module: str
    name: str


@overload
def send(value: Module, node: Node) -> Module: ...
@overload
def send(value: Any, node: Node) -> Pointer: ...
def send(value: Any, node: Node) -> Any:
    """A pointer to a public tensor of mine in my session on the node; or a module, moved to the node and returned.

    A module's parameters and buffers become pointers in place; their gradients are dropped.
    Raises ConflictError for a module that is on a node already, InvalidInputError for what cannot travel.
    """
    if not isinstance(node, Node):
        raise InvalidInputError("send(value, node) takes a node, from grid.connect(...) or a pointer's .location.")
    if isinstance(value, nn.Module):
        return send_module(value, node.recorder)
    if isinstance(value, Pointer):
        raise ConflictError(f"This is on {value.location.node_id} already. Take it with .get() first.")
    return node.recorder.input_constant(local_tensor(value, "value"))


def get(value: Any) -> Any:
    """The value behind a pointer; or a module, taken back from its node and returned. What is here is returned.

    Raises GetNotPermittedError, which carries `.request(reason=...)`; the module then stays where it is.
    """
    if isinstance(value, nn.Module):
        return get_module(value)
    if isinstance(value, torch.Tensor) and not isinstance(value, Pointer):
        return value
    if hasattr(value, "location"):
        return value.get()
    raise InvalidInputError(f"get(value) takes a pointer or a module, not {type(value).__name__}.")


def send_module(module: Module, recorder: Recorder) -> Module:
    """Move every parameter and buffer into the recorder's session, all or none of them."""
    _check_not_compiled(module)
    held = list(_state(module))
    _check_can_travel(held)
    number = _number(module, held, recorder.tape)
    pairs = [(tensor, _remote(recorder, tensor, Sent(number, name))) for name, tensor in held]
    swap_all(pairs)
    return module


def get_module(module: Module) -> Module:
    """Take back every parameter and buffer that is on a node, all or none of them."""
    away = {name: tensor for name, tensor in _state(module) if isinstance(tensor, Pointer)}
    values = _taken(away)
    swap_all([(pointer, _local(pointer, values[name])) for name, pointer in away.items()])
    return module


def _state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers with their names, each object once."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _number(module: nn.Module, held: list[tuple[str, torch.Tensor]], tape: Tape) -> str:
    """The module's random id in a session; another one when its tensors are others than when it was sent before."""
    signature = [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in held]
    numbers = _numbers.setdefault(module, WeakKeyDictionary())
    number, before = numbers.get(tape, ("", []))
    if not number or before != signature:
        number = secrets.token_hex(16)
        numbers[tape] = number, signature
    return number


def _check_not_compiled(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule) or "_orig_mod" in part._modules:
            raise InvalidInputError("A compiled module cannot travel: send the one that it was compiled from.")


def _check_can_travel(held: list[tuple[str, torch.Tensor]]) -> None:
    at: dict[int, str] = {}
    for name, tensor in held:
        if isinstance(tensor, Pointer):
            raise ConflictError(
                f"{name} is on {tensor.location.node_id} already. Take the module back with grid.get(module) first."
            )
        if nn.parameter.is_lazy(tensor):
            raise InvalidInputError(f"{name} has no shape yet: call the module once on local data before it is sent.")
        if type(tensor) not in (torch.Tensor, nn.Parameter):
            raise InvalidInputError(f"{name} is a {type(tensor).__name__}; only plain tensors travel.")
        try:
            check_constant(tensor)
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}: {error.message}") from None
        same = at.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if same != name:
            raise InvalidInputError(
                f"{same} and {name} are two tensors in the same memory, which they would not be on a node; make them "
                "one tensor."
            )


def _remote(recorder: Recorder, tensor: torch.Tensor, sent: Sent) -> torch.Tensor:
    """What takes the place of a local parameter or buffer: the same values on the node, marked as what they are."""
    tape = recorder.tape
    constant = tape.dense_constant(tensor)
    args = [constant.ref, *sent, tensor.requires_grad]
    marked: Value = tape.write(PARAMETER, args, {}, constant.spec, constant.sources, arguments=12)
    spec = Spec.of_tensor(tensor)
    pointer = pointer_to(Cell(marked if spec.overlaps else tape.laid_out(marked, spec)))
    remote = _like(tensor, pointer)
    remote.__dict__ |= vars(tensor) | {_SENT: sent}
    return remote


def _local(pointer: Pointer, value: torch.Tensor) -> torch.Tensor:
    """What takes the place of a remote parameter or buffer: its value, in memory of its own, laid out as it was."""
    if value.shape != pointer.shape or value.dtype != pointer.dtype:
        raise ConnectionLostError("The node sent a state of other shapes than the module has. Connect again.")
    memory = torch.empty_strided(pointer.shape, pointer.stride(), dtype=pointer.dtype)
    local = _like(pointer, memory.copy_(value))
    local.__dict__ |= {name: kept for name, kept in vars(pointer).items() if name not in _OF_POINTERS}
    return local


def _like(held: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values` as a parameter or buffer, as `held` is one."""
    if isinstance(held, nn.Parameter):
        return nn.Parameter(values, requires_grad=held.requires_grad)
    return values.requires_grad_(held.requires_grad)


def _taken(away: dict[str, Pointer]) -> dict[str, torch.Tensor]:
    """Values by name. Each state that was sent is asked for at once: it is one decision."""
    values: dict[str, torch.Tensor] = {}
    states: dict[tuple[Any, str], dict[str, str]] = {}
    for name, pointer in away.items():
        sent = _sent_as(name, pointer, away)
        if sent is None:
            values[name] = pointer.get()
        else:
            states.setdefault((pointer.location, sent.module), {})[name] = sent.name
    for (node, module), named in states.items():
        state = node.take(module, list(named.values()), [away[name] for name in named])
        values |= {name: state[sent_name] for name, sent_name in named.items()}
    return values


def _sent_as(name: str, pointer: Pointer, away: dict[str, Pointer]) -> Sent | None:
    """As what a tensor of the state was sent. One that the module has put in the place of a buffer since, as in
    `self.mean = 0.9 * self.mean + x.mean(0)`, is that buffer of the one sending that the others are of."""
    own: Sent | None = vars(pointer).get(_SENT)
    if own is not None:
        return own
    others = {
        (sent.module, sent.name.removesuffix(other))
        for other, tensor in away.items()
        if tensor.location is pointer.location and (sent := vars(tensor).get(_SENT)) and sent.name.endswith(other)
    }
    if len(others) != 1:
        return None
    ((module, prefix),) = others
    return Sent(module, prefix + name)
