"""Calls of plans: one node of a client's program that stands for a plan's operations. For workers only.

A call is written out at once, as if its operations had been appended one by one: each is checked, judged and priced,
and a reviewer reads each of them. Only a plan's results may be used from outside of it.

What was judged of a call holds for another one of the same plan with inputs of which the same is known
(`Program.append`).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from apps.compute.constants import Constants
from apps.compute.judging import CHOSEN
from apps.compute.targets import TARGETS, bind
from gridclient.program.graph import LineageForm, Node, Ref, refs
from gridclient.program.plan_format import decode_plan
from gridclient.program.plan_graph import MAX_VALUES, PlanGraph
from gridclient.wire.errors import GridError, InvalidInputError, NotFoundError

_NODE_BYTES, _ARGUMENT_BYTES = 16, 8
_MAX_SEED = 2**63


class Form:
    """One operation of a plan, for calls of which the arguments were checked before.

    References are the plan's own: by number of an input, or of an operation after the inputs.
    """

    __slots__ = ("bound", "lineage", "named", "op", "varying")

    def __init__(self, node: Node) -> None:
        self.op = node.op
        self.lineage = LineageForm(node)
        self.named = tuple({ref.node for ref in refs(node)})
        self.bound = bind(TARGETS[node.op], node) if node.op in TARGETS else {}
        self.varying = [name for name, value in self.bound.items() if _refers(value)]
        """The arguments that are other ones in each call."""


class Known:
    """A plan that may be called."""

    def __init__(self, graph: PlanGraph) -> None:
        self.graph = graph
        arguments = sum(_size([*node.args, *node.kwargs.values()]) for node in graph.nodes)
        self.nbytes = _NODE_BYTES * graph.size + _ARGUMENT_BYTES * arguments
        """What writing it out counts of a program's bytes."""
        self.repeats = not graph.draws and all(node.op not in CHOSEN for node in graph.nodes)
        """Whether what is judged of a call depends on nothing that another call with equal inputs could differ in: no
        seed is an argument, and no label names rows by the lineage of an index."""

    @cached_property
    def forms(self) -> list[Form]:
        return [Form(node) for node in self.graph.nodes]

    @cached_property
    def shown(self) -> list[int]:
        """By operation, a bit for each output that is a result."""
        shown = [0] * self.graph.size
        before = len(self.graph.inputs)
        for ref in self.graph.results:
            if ref.node >= before:
                shown[ref.node - before] |= 1 << ref.output
        return shown


class Call(NamedTuple):
    """A call that fits its plan, from node id `first` on."""

    plan: Known
    first: int
    operands: list[Ref]
    seed: int | None
    line: str

    def node(self, place: int) -> Node:
        """One of its operations, as if the client had written it."""
        return self.plan.graph.written(place, self.first, self.operands, self.seed, self.line)

    def bound(self, place: int) -> dict[str, Any]:
        """The arguments of one of them, by the schema's names. Only where an equal call was checked before."""
        form = self.plan.forms[place]
        bound = form.bound.copy()
        for name in form.varying:
            bound[name] = self.plan.graph.placed(bound[name], self.first, self.operands)
        return bound


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
        self._known[digest] = Known(graph)

    def call(self, node: Node) -> Call:
        """What a call names. Raises NotFoundError without such a plan, InvalidInputError where it does not fit."""
        match node.args:
            case [str() as digest, int() as size, list() as operands] if all(type(ref) is Ref for ref in operands):
                pass
            case _:
                raise InvalidInputError("A call names a plan by its digest, how many ids it takes, and its inputs.")
        if digest not in self._known:
            raise self._refused.get(digest) or NotFoundError("There is no such plan.", plan=digest[:64])
        known = self._known[digest]
        graph = known.graph
        if size != graph.size or len(operands) != len(graph.inputs):
            raise InvalidInputError(
                f"The plan {graph.name} takes {len(graph.inputs)} inputs and {graph.size} ids of nodes."
            )
        match node.kwargs:
            case {"seed": int() as seed, **more} if graph.draws and not more and 0 <= seed < _MAX_SEED:
                return Call(known, node.id, operands, seed, node.line)
            case {} if not graph.draws and not node.kwargs:
                return Call(known, node.id, operands, None, node.line)
        raise InvalidInputError(f"A call of {graph.name} {'brings a' if graph.draws else 'has no'} seed.")


def claimed(node: Node) -> int:
    """How many ids a call says that it takes; 1 where it does not say."""
    size = node.args[1] if len(node.args) > 1 else 1
    return size if type(size) is int and 0 <= size <= MAX_VALUES else 1


def _refers(value: Any) -> bool:
    return type(value) is Ref or (type(value) is list and any(map(_refers, value)))


def _size(values: list[Any]) -> int:
    return len(values) + sum(_size(value) for value in values if isinstance(value, list))
