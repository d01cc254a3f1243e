"""Optimisers of models that travel: what they remember of a parameter stays on the node where it was made.

Before each step of any optimiser its state is aligned with where its parameters are now. Importing this registers that.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim import LBFGS, Adagrad, Adamax, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gridclient.recorder import Pointer
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import pointer_to
from gridclient.recorder.tape import Tape
from gridclient.wire.errors import OperationNotAllowedError, RemoteValueError

State = dict[str, Any]
Home = Tape | None
"""The session that a state is in; None: it is here."""

_MAXIMUM = "aten::maximum.out"
_INTO_OUT = "torch writes its maximum with out=, which is not recorded"
_OPTIONS = {
    "capturable": "it is for graphs of a GPU",
    "differentiable": "a step is recorded without gradients of its own",
    "amsgrad": _INTO_OUT,
}
COUNTERS = frozenset({"step", "mu_product", "eta", "mu"})
"""Numbers that torch's optimisers read at every step: they stay here."""


class _Memory:
    """Of one optimiser: where the state of each parameter is, and the states that wait on other nodes."""

    def __init__(self) -> None:
        self.homes: dict[torch.Tensor, Home] = {}
        self.parked: dict[torch.Tensor, dict[Tape, State]] = {}


# By optimiser, so that what is parked goes when the optimiser goes.
_memories: WeakKeyDictionary[Optimizer, _Memory] = WeakKeyDictionary()


def align(optimizer: Optimizer, args: Any = (), kwargs: Any = None) -> None:
    """Bring the state of every parameter to where the parameter is.

    State that is still here is uploaded. State in another session is parked, and what was parked in this one is taken
    up again; where nothing was, it begins empty.
    Raises RemoteValueError and OperationNotAllowedError for optimisers and options that cannot work on a node.
    """
    memory = _memories.get(optimizer) or _Memory()
    try:
        for group in optimizer.param_groups:
            if any(isinstance(parameter, Pointer) for parameter in group["params"]):
                _prepare(optimizer, group)
            for parameter in group["params"]:
                _align(optimizer, group, parameter, memory)
    finally:
        if memory.homes:
            _memories[optimizer] = memory


def _prepare(optimizer: Optimizer, group: dict[str, Any]) -> None:
    if isinstance(optimizer, LBFGS):
        raise RemoteValueError(
            "LBFGS decides by the values of losses and gradients, and they are on a node. Use another optimiser, such "
            "as SGD or Adam."
        )
    name = type(optimizer).__name__
    if isinstance(optimizer, Adamax):
        raise OperationNotAllowedError(f"{name} cannot step on a node: {_INTO_OUT}.", operation=_MAXIMUM)
    for option, why in _OPTIONS.items():
        if group.get(option):
            raise OperationNotAllowedError(f"{name}({option}=True) cannot step on a node: {why}.", operation=option)
    # Kernels for many tensors at once are not recorded; `zero_grad` looks at the defaults.
    for options in (group, optimizer.defaults):
        options |= {name: False for name in ("foreach", "fused") if name in options}


def _align(optimizer: Optimizer, group: dict[str, Any], parameter: torch.Tensor, memory: _Memory) -> None:
    here = parameter._place.tape if isinstance(parameter, Pointer) else None
    state: State = optimizer.state.get(parameter, {})
    home = _home(state, memory.homes.get(parameter))
    if home is here:
        if here is not None:
            memory.homes[parameter] = here
        return
    parked = memory.parked.setdefault(parameter, {})
    if home is None and state:
        assert here is not None
        found = {name: _uploaded(name, kept, parameter, here) for name, kept in state.items()}
    else:
        found = (parked.get(here) if here else None) or _beginning(optimizer, group, parameter)
    if home is not None:
        parked[home] = state
    if here is not None:
        parked.pop(here, None)
    if found:
        optimizer.state[parameter] = found
    else:
        optimizer.state.pop(parameter, None)
    memory.homes[parameter] = here


def _home(state: State, last: Home) -> Home:
    """Where a state is. One of counters only, or none, is where it was at the last step."""
    for name, kept in state.items():
        if isinstance(kept, Pointer):
            return kept._place.tape
        if isinstance(kept, torch.Tensor) and name not in COUNTERS:
            last = None
    return last


def _uploaded(name: str, kept: Any, parameter: torch.Tensor, tape: Tape) -> Any:
    if not isinstance(kept, torch.Tensor) or (kept.dim() == 0 and (parameter.dim() or name in COUNTERS)):
        return kept
    return pointer_to(Cell(tape.constant(kept)))


def _beginning(optimizer: Optimizer, group: dict[str, Any], parameter: torch.Tensor) -> State:
    """The state before the first step: most optimisers make it then, Adagrad when it is made."""
    if isinstance(optimizer, Adagrad):
        start = group["initial_accumulator_value"]
        with torch.no_grad():
            return {"step": torch.tensor(0.0), "sum": torch.full_like(parameter, start)}
    return {}


register_optimizer_step_pre_hook(align)
