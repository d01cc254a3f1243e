"""The state of a module that was sent: taken as one, or asked for through the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gridclient.program.graph import Ref
from gridclient.requests import DataRequest, GetNotPermittedError, checked_reason
from gridclient.wire import messages as m
from gridclient.wire.errors import ConnectionLostError, InvalidInputError
from gridclient.wire.errors import GetNotPermittedError as Refused

if TYPE_CHECKING:
    import torch

    from gridclient.node import Node


def take(node: Node, module: str, names: Sequence[str], pointers: Sequence[Any]) -> dict[str, torch.Tensor]:
    """What a module's parameters and buffers are now, by name, in one answer.

    `module`: the id that they were sent with; `pointers`: their values, one for each name, with the shapes that were
    sent. Raises GetNotPermittedError with `.request()`, InvalidInputError.
    """
    if len(names) != len(pointers) or not names:
        raise InvalidInputError("A state has a pointer for each name, and at least one.")
    # As they are now: a request that is made later is for the state that was refused.
    refs = [pointer.ref for pointer in pointers]
    try:
        found: dict[str, torch.Tensor] = node.value(lambda ask: m.Take(ask, module, list(names), refs))
    except Refused as error:
        raise GetNotPermittedError(error, lambda reason: request(node, module, names, refs, reason)) from None
    if found.keys() != set(names):
        raise ConnectionLostError("The node answered with another state than was asked for. Connect again.")
    return {name: found[name] for name in names}


def request(node: Node, module: str, names: Sequence[str], refs: Sequence[Ref], reason: str) -> DataRequest:
    """Put the program behind a state into the queue."""
    text = checked_reason(reason)
    return node.submit(lambda ask, key: m.Request(ask, refs[0], text, module, list(names), list(refs), key))
