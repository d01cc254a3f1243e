"""The nodes of a program as a worker keeps them: written by the client, or as a part of a plan's call."""

from __future__ import annotations

from typing import Any, NamedTuple

from apps.compute.calls import Call
from apps.compute.judging import Step
from apps.compute.labels import PUBLIC
from apps.compute.targets import TARGETS, bind
from apps.compute.training import Marks
from gridclient.program.graph import Node

Asset = tuple[str, int, str]
"""Dataset id, version and part."""


class Judged(NamedTuple):
    """What a node gives, all that it was made from (if only by their shape), and what it owes to modules that were
    sent. Nothing of it says where in a program the node is."""

    step: Step
    assets: frozenset[Asset]
    marks: Marks


class Entry:
    """One node of the program.

    `held` has a bit for each output that the client still holds. `waiting` counts the nodes that were appended, but
    neither computed nor given up: they need this one. `settled`: it was computed or given up itself.
    `operands`: the nodes whose values it needs.
    """

    __slots__ = (
        "assets", "facts", "flops", "held", "marks", "nbytes", "op", "operands", "presence", "settled", "shapes_only",
        "waiting",
    )  # fmt: skip

    def __init__(self, op: str, judged: Judged, operands: tuple[int, ...]) -> None:
        step, self.assets, self.marks = judged
        self.facts, self.flops, self.presence, self.shapes_only, self.nbytes = step
        self.op, self.operands = op, operands
        self.waiting, self.settled = 0, False
        self.held = (1 << len(self.facts)) - 1

    @property
    def node(self) -> Node:
        """The node, with its arguments as they were written."""
        raise NotImplementedError

    @property
    def judged(self) -> Judged:
        step = Step(self.facts, self.flops, self.presence, self.shapes_only, self.nbytes)
        return Judged(step, self.assets, self.marks)

    def bound(self) -> dict[str, Any]:
        """Its arguments by the schema's names."""
        return bind(TARGETS[self.op], self.node)

    def public(self) -> bool:
        """Whether nothing that it gives depends on private data."""
        return all(fact.label.kind == PUBLIC for fact in self.facts)


class Written(Entry):
    """A node that was written by itself."""

    __slots__ = ("_node",)

    def __init__(self, node: Node, judged: Judged, operands: tuple[int, ...]) -> None:
        super().__init__(node.op, judged, operands)
        self._node = node

    @property
    def node(self) -> Node:
        return self._node


class Called(Entry):
    """A node of a call that was judged before: it is written out where somebody reads it."""

    __slots__ = ("_call", "_place")

    def __init__(self, call: Call, place: int, op: str, judged: Judged, operands: tuple[int, ...]) -> None:
        super().__init__(op, judged, operands)
        self._call, self._place = call, place

    @property
    def node(self) -> Node:
        return self._call.node(self._place)

    def bound(self) -> dict[str, Any]:
        return self._call.bound(self._place)
