"""The verbs of the grid as methods of torch's tensors and modules, for notebooks that are written that way."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from gridclient.models import get, send
from gridclient.node import Node
from gridclient.publish import PrivateTensor, private_tensor
from gridclient.recorder import Pointer
from gridclient.wire.errors import InvalidInputError

_DECLARED = "_declared"


class TorchHook:
    """Adds `.private_tensor`, `.tag`, `.describe`, `.send`, `.get` to tensors and `.send`, `.get` to modules.

    As often as you like; `remove()` takes them away again.
    """

    def __init__(self, torch: ModuleType) -> None:
        self.torch = torch
        for owner, methods in self._methods():
            for name, method in methods.items():
                setattr(owner, name, method)

    def __repr__(self) -> str:
        return f"<TorchHook on torch {self.torch.__version__}>"

    def remove(self) -> None:
        """Take the methods away."""
        for owner, methods in self._methods():
            for name, method in methods.items():
                if vars(owner).get(name) is method:
                    delattr(owner, name)

    def _methods(self) -> list[tuple[type, dict[str, Any]]]:
        return [
            (
                self.torch.Tensor,
                {"private_tensor": _private_tensor, "tag": _tag, "describe": _describe, "send": _send, "get": get},
            ),
            (self.torch.nn.Module, {"send": send, "get": get}),
        ]


def _private_tensor(self: torch.Tensor, **declared: Any) -> PrivateTensor:
    """These values made private, with the tags and the description they have: see `grid.private_tensor`."""
    tags, description = _declared(self)
    return private_tensor(self.detach(), **declared).tag(*tags).describe(description)


def _tag(self: torch.Tensor, *tags: str) -> torch.Tensor:
    """Add tags, like "#births": `.send(node)` then publishes."""
    old, description = _declared(self)
    _declare(self, [*old, *(tag for tag in tags if tag not in old)], description)
    return self


def _describe(self: torch.Tensor, description: str) -> torch.Tensor:
    """Say what the values are: `.send(node)` then publishes."""
    _declare(self, _declared(self)[0], description)
    return self


def _send(self: torch.Tensor, node: Node) -> Pointer:
    """A pointer on the node. A tensor with tags or a description is published there, and nobody but its owner may take
    it; any other is a public tensor of my session."""
    if not isinstance(self, Pointer) and any(_declared(self)):
        return _private_tensor(self).send(node)
    return send(self, node)


def _declared(tensor: torch.Tensor) -> tuple[list[str], str]:
    if isinstance(tensor, Pointer):
        raise InvalidInputError("A pointer is on its node already; tags and descriptions are given where it is made.")
    declared: tuple[list[str], str] = vars(tensor).get(_DECLARED, ([], ""))
    return declared


def _declare(tensor: torch.Tensor, tags: list[str], description: str) -> None:
    setattr(tensor, _DECLARED, (tags, description))
