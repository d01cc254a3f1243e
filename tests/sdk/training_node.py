"""A node that is not there and trains: it keeps what it has computed, and gives whole states of modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gridclient.program.graph import PARAMETER, Node, Ref
from gridclient.recorder import Pointer
from tests.sdk.local_node import LocalNode, references


def parts(module: nn.Module) -> dict[str, Any]:
    """Parameters and buffers by name."""
    return dict([*module.named_parameters(), *module.named_buffers()])


def away(tensor: Any) -> bool:
    """Whether it is on a node."""
    return type(tensor) is Pointer


class TrainingNode(LocalNode):
    """Computes every node of the program once."""

    def __init__(self, node_id: str = "hospital") -> None:
        super().__init__(node_id)
        self.done: dict[int, Any] = {}
        self.states: list[tuple[str, list[str]]] = []
        self.refusal: Exception | None = None

    def take(self, module: str, names: list[str], pointers: list[Any]) -> dict[str, torch.Tensor]:
        """The state of a module that was sent, unless `refusal` is set."""
        if self.refusal is not None:
            raise self.refusal
        self.states.append((module, names))
        return {name: self.get(pointer.ref, pointer) for name, pointer in zip(names, pointers, strict=True)}

    def get(self, ref: Ref, pointer: Any) -> torch.Tensor:
        todo = [ref.node]
        needed = set[int]()
        while todo:
            number = todo.pop()
            if number not in needed and number not in self.done:
                needed.add(number)
                node = self.program[number]
                todo += [r.node for r in references([node.args, list(node.kwargs.values())])]
        with torch.no_grad():
            for number in sorted(needed):
                self.done[number] = self._compute(self.program[number], self.done)
        result = self.done[ref.node]
        value: torch.Tensor = result[ref.output] if isinstance(result, (tuple, list)) else result
        return value.clone(memory_format=torch.contiguous_format)

    def _compute(self, node: Node, done: dict[int, Any]) -> Any:
        if node.op == PARAMETER:
            return done[node.args[0].node]
        return super()._compute(node, done)
