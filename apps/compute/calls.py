"""Calls of plans: one node of a client's program that stands for a plan's operations. For workers only.

A call is written out at once, as if its operations had been appended one by one: each is checked, judged and priced,
and a reviewer reads each of them. Only a plan's results may be used from outside of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from apps.compute.constants import Constants
from gridclient.program.graph import Node, Ref
from gridclient.program.plan_format import decode_plan
from gridclient.program.plan_graph import MAX_VALUES, PlanGraph
from gridclient.wire.errors import GridError, InvalidInputError, NotFoundError

_NODE_BYTES, _ARGUMENT_BYTES = 16, 8
_MAX_SEED = 2**63


class Known(NamedTuple):
    """A plan, and what writing it out counts of a program's bytes."""

    graph: PlanGraph
    nbytes: int


class Call(NamedTuple):
    """A call that fits its plan."""

    graph: PlanGraph
    operands: list[Ref]
    seed: int | None
    nbytes: int

    def results(self, first: int) -> dict[int, int]:
        """By id of the nodes that a call from `first` on takes: a bit for each output that is a result."""
        shown = dict.fromkeys(range(first, first + self.graph.size), 0)
        before = len(self.graph.inputs)
        for ref in self.graph.results:
            if ref.node >= before:
                shown[first + ref.node - before] |= 1 << ref.output
        return shown


class Plans:
    """The plans that a session may call, by digest."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._known: dict[str, Known] = {}
        self._refused: dict[str, GridError] = {}

    def put(self, digest: str, data: bytes) -> None:
        """Take a plan. Never raises: what is wrong is told when it is called."""
        try:
            graph = decode_plan(data)
        except GridError as error:
            self._refused[digest] = error
            return
        for name, (header, values) in graph.constants.items():
            self._constants.put(name, header, bytes(values), None)
        arguments = sum(_size([*node.args, *node.kwargs.values()]) for node in graph.nodes)
        self._known[digest] = Known(graph, _NODE_BYTES * graph.size + _ARGUMENT_BYTES * arguments)

    def call(self, node: Node) -> Call:
        """What a call names. Raises NotFoundError without such a plan, InvalidInputError where it does not fit."""
        match node.args:
            case [str() as digest, int() as size, list() as operands] if all(type(ref) is Ref for ref in operands):
                pass
            case _:
                raise InvalidInputError("A call names a plan by its digest, how many ids it takes, and its inputs.")
        if digest not in self._known:
            raise self._refused.get(digest) or NotFoundError("There is no such plan.", plan=digest[:64])
        graph, nbytes = self._known[digest]
        if size != graph.size or len(operands) != len(graph.inputs):
            raise InvalidInputError(
                f"The plan {graph.name} takes {len(graph.inputs)} inputs and {graph.size} ids of nodes."
            )
        match node.kwargs:
            case {"seed": int() as seed, **more} if graph.draws and not more and 0 <= seed < _MAX_SEED:
                return Call(graph, operands, seed, nbytes)
            case {} if not graph.draws and not node.kwargs:
                return Call(graph, operands, None, nbytes)
        raise InvalidInputError(f"A call of {graph.name} {'brings a' if graph.draws else 'has no'} seed.")


def claimed(node: Node) -> int:
    """How many ids a call says that it takes; 1 where it does not say."""
    size = node.args[1] if len(node.args) > 1 else 1
    return size if type(size) is int and 0 <= size <= MAX_VALUES else 1


def _size(values: list[Any]) -> int:
    return len(values) + sum(_size(value) for value in values if isinstance(value, list))
