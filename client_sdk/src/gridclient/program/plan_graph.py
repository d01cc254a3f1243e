"""A plan in memory: a program over inputs that a call names, and what a call of it becomes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from gridclient.program.graph import Node, Ref
from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.program.plan_tensors import Constant
from gridclient.wire.tensors import MAX_DIMENSIONS

PLAN = "grid::plan"
"""A call: [digest of the plan, number of node ids that it takes, the values of its inputs], `seed` where it draws."""
INPUT = "grid::input"

MAX_PLAN = 16 * 2**20
"""Bytes of a plan, constants included."""
MAX_VALUES = 65_536
"""Inputs, constants and outputs of operations together."""
MAX_INPUTS = MAX_RESULTS = 1024
MAX_OPERATIONS = 16_384
MAX_WRITTEN_OUT = 2**18
"""Arguments of all operations together, once the plan is written out."""
MAX_NAME, MAX_DESCRIPTION = 70, 2_000
MAX_NBYTES = 2**50

SEEDED = frozenset(f"grid::{name}" for name in ("rand", "randn", "randint", "randperm", "bernoulli", "dropout"))
"""Operations whose last argument is a seed: 0 in a plan, drawn anew for every call."""


Extents = Annotated[list[int], msgspec.Meta(max_length=MAX_DIMENSIONS)]


class Input(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a call must give: a contiguous value of this dtype and shape."""

    name: str
    dtype: str
    shape: Extents


class Result(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a call gives. `stride` in elements; None where it is contiguous."""

    value: int
    dtype: str
    shape: Extents
    stride: Extents | None = None


class PlanGraph(msgspec.Struct, frozen=True):
    """A plan, decoded. Node ids: the inputs come first, without nodes of their own; then constants and operations.

    `results` are references by these ids, beside the specs that `signature` has.
    """

    name: str
    description: str
    inputs: list[Input]
    nodes: list[Node]
    results: list[Ref]
    signature: list[Result]
    constants: dict[str, Constant]
    operations: int = OPERATIONS_VERSION

    @property
    def size(self) -> int:
        """How many node ids a call takes."""
        return len(self.nodes)

    @property
    def draws(self) -> bool:
        """Whether it holds random operations, so that a call needs a seed."""
        return any(node.op in SEEDED for node in self.nodes)

    def written_out(self, first: int, operands: list[Ref], seed: int | None = None, line: str = "") -> Iterator[Node]:
        """The nodes of a call, as if they had been written one by one, from node id `first` on."""
        return (self.written(place, first, operands, seed, line) for place in range(self.size))

    def written(self, place: int, first: int, operands: list[Ref], seed: int | None = None, line: str = "") -> Node:
        """One node of a call: that of operation number `place`."""
        node = self.nodes[place]
        args = self.placed(node.args, first, operands)
        if node.op in SEEDED:
            args[-1] = seed_of(seed or 0, place)
        kwargs = {name: self.placed(given, first, operands) for name, given in node.kwargs.items()}
        return Node(first + place, node.op, args, kwargs, node.outputs, line)

    def placed(self, given: Any, first: int, operands: list[Ref]) -> Any:
        """An argument of the plan as a call has it that begins at node id `first`: its references are others."""
        if type(given) is Ref:
            before = len(operands)
            return operands[given.node] if given.node < before else Ref(first + given.node - before, given.output)
        return [self.placed(item, first, operands) for item in given] if type(given) is list else given


def seed_of(seed: int, place: int) -> int:
    """The seed of one random operation: 63 bits of a hash of the call's seed and of its place in the plan."""
    digest = hashlib.sha256(b"gridsite/plan-seed/1" + struct.pack("<QI", seed, place)).digest()
    return int.from_bytes(digest[:8], "little") >> 1
