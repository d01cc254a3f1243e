"""A node that is not there: keeps what a recorder sends and computes it with plain torch, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gridclient.program.graph import ASSET, CONSTANT, Dtype, Node, Ref
from gridclient.program.operations import OPERATIONS
from gridclient.recorder import Pointer, Recorder


def dropout(x: torch.Tensor, p: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.rand(x.shape, generator=generator) >= p
    return torch.where(mask, x / (1 - p), 0), mask


DRAWS: dict[str, Callable[..., Any]] = {
    "grid::rand": lambda size, dtype, g: torch.rand(size, dtype=dtype, generator=g),
    "grid::randn": lambda size, dtype, g: torch.randn(size, dtype=dtype, generator=g),
    "grid::randint": lambda low, high, size, dtype, g: torch.randint(low, high, size, dtype=dtype, generator=g),
    "grid::bernoulli": lambda p, g: torch.bernoulli(p.contiguous(), generator=g),
    "grid::dropout": dropout,
}
"""The seeded composites, as a node computes them: a generator for each."""


class LocalNode:
    """A recorder's channel. Every node of the program is computed from the inputs alone, as a worker would."""

    def __init__(self, node_id: str = "hospital") -> None:
        self.node_id = node_id
        self.program: dict[int, Node] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.assets: dict[str, torch.Tensor] = {}
        self.dropped: list[Ref] = []
        self.asked: list[tuple[Ref, str]] = []
        self.recorder = Recorder(self)

    def publish(self, tensor: torch.Tensor, name: str = "births") -> Pointer:
        """A pointer to a dataset that holds a copy of `tensor`."""
        self.assets[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return self.recorder.input_asset(name, 1, tensor.shape, tensor.dtype)

    def append(self, node: Node, held: Sequence[Ref] = ()) -> None:
        assert not self.program or node.id > max(self.program), "ids only grow"
        self.program[node.id] = node

    def constant(self, digest: str, tensor: torch.Tensor) -> None:
        assert tensor.is_contiguous()
        self.constants[digest] = tensor

    def drop(self, ref: Ref) -> None:
        self.dropped.append(ref)

    def request(self, ref: Ref, reason: str, pointer: Any) -> str:
        self.asked.append((ref, reason))
        return "request 1"

    def get(self, ref: Ref, pointer: Any) -> torch.Tensor:
        done: dict[int, Any] = {}
        needed, todo = set[int](), [ref.node]
        while todo:
            number = todo.pop()
            if number not in needed:
                needed.add(number)
                node = self.program[number]
                todo += [r.node for r in references([node.args, list(node.kwargs.values())])]
        for number in sorted(needed):
            done[number] = self._compute(self.program[number], done)
        result = done[ref.node]
        value: torch.Tensor = result[ref.output] if isinstance(result, tuple) else result
        return value

    def _compute(self, node: Node, done: dict[int, Any]) -> Any:
        assert node.op in OPERATIONS
        if node.op == ASSET:
            return self.assets[node.args[0]]
        if node.op == CONSTANT:
            return self.constants[node.args[0]]
        if node.op == "grid::count":
            return torch.tensor(done[node.args[0].node].shape[0])
        if node.op in DRAWS:
            *given, seed = (
                done[arg.node][arg.output] if isinstance(arg, Ref) and isinstance(done[arg.node], tuple)
                else done[arg.node] if isinstance(arg, Ref)
                else getattr(torch, arg.name) if isinstance(arg, Dtype)
                else arg
                for arg in node.args
            )  # fmt: skip
            return DRAWS[node.op](*given, torch.Generator().manual_seed(seed))
        packet, _, overload = node.op.removeprefix("aten::").partition(".")
        call = getattr(getattr(torch.ops.aten, packet), overload or "default")
        assert not call._schema.is_mutable

        def real(arg: Any) -> Any:
            if isinstance(arg, Ref):
                result = done[arg.node]
                return result[arg.output] if isinstance(result, (tuple, list)) else result
            if isinstance(arg, Dtype):
                return getattr(torch, arg.name)
            return [real(item) for item in arg] if isinstance(arg, list) else arg

        options = {name: real(value) for name, value in node.kwargs.items()}
        if "memory_format" in options:
            options["memory_format"] = getattr(torch, options["memory_format"])
        result = call(*[real(arg) for arg in node.args], **options)
        assert node.outputs == (len(result) if isinstance(result, tuple) else 1)
        return result


def references(value: Any) -> list[Ref]:
    """Every reference in nested lists."""
    if isinstance(value, Ref):
        return [value]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def assert_same(there: torch.Tensor, here: torch.Tensor) -> None:
    """Bit for bit: dtype, shape and every byte; the strides too, where an axis has more than one element."""
    assert there.dtype is here.dtype
    assert there.shape == here.shape
    if here.numel():
        steps = zip(here.shape, here.stride(), there.stride(), strict=True)
        assert all(mine == other for extent, mine, other in steps if extent > 1), (there.stride(), here.stride())
    assert raw(there) == raw(here), (there, here)


def raw(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return bytes(flat.view(torch.uint8).numpy())
