"""A session's program inside its worker: checked, judged and priced node by node as it grows. Nothing runs here.

What a node gives is known at once from its arguments (`Fact`: label, shape, dtype), or why it may not be there: the
error stays with the node and with everything that needs it, and is told when a value is asked for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from apps.compute import mapped
from apps.compute.constants import Constants
from apps.compute.labels import NOTHING, Call, Label, Operand, Shape, asset_label
from apps.compute.messages import Limits
from apps.compute.operations import TABLE
from apps.compute.readers import labels, shapes
from apps.compute.targets import TARGETS, bind
from apps.datasets.assets import MOCK, VALUES, AssetSpec
from apps.datasets.assets import TABLE as TABLE_KIND
from gridclient.program.graph import ASSET, CONSTANT, Dtype, Node, Ref, lineage_hash
from gridclient.wire.errors import (
    GridError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    OperationNotAllowedError,
)

MEMO = 20_000
MAX_LINE = 200
MAX_NODE = 2**32
COLUMN_DTYPES = {"number": "float64", "date": "float64", "category": "int64", "boolean": "bool"}

Key = tuple[int, int]


class Fact:
    """What is known of a value. One object for equal facts, so that memo keys compare by identity."""

    __slots__ = ("dtype", "label", "nbytes", "shape", "table")

    def __init__(self, label: Label, shape: Shape, dtype: str, table: AssetSpec | None) -> None:
        self.label, self.shape, self.dtype, self.table = label, shape, dtype, table
        self.nbytes = 8 * math.prod(max(extent, 1) for extent in shape) if table else shapes.nbytes(shape, dtype)


class Step(NamedTuple):
    """What a node gives, from its operation and what is known of its operands."""

    facts: tuple[Fact, ...]
    flops: int
    presence: tuple[int, frozenset[tuple[str, int]]] | None


class Entry:
    """One node of the program. `held` has a bit for each output that the client still holds."""

    __slots__ = ("facts", "flops", "held", "nbytes", "node", "operands", "presence")

    def __init__(self, node: Node, step: Step, operands: tuple[int, ...]) -> None:
        self.node, self.operands = node, operands
        self.facts, self.flops, self.presence = step
        self.held = (1 << len(step.facts)) - 1
        self.nbytes = sum(fact.nbytes for fact in step.facts)


class Failure(NamedTuple):
    """A node that may not be there, and where the user wrote it."""

    error: GridError
    line: str


class _Inherited(Exception):  # noqa: N818  (not an error of its own)
    """An operand's failure, on its way to the node that needs it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Plan(NamedTuple):
    """What is left to compute for a value, in order, and what that needs at most."""

    order: list[int]
    flops: int
    nbytes: int


class _Shared:
    """Memo of steps and facts: by operation, operands and static arguments with their Python types. Bounded."""

    def __init__(self) -> None:
        self.steps: OrderedDict[Any, Step] = OrderedDict()
        self.facts: OrderedDict[Any, Fact] = OrderedDict()

    def fact(self, label: Label, shape: Shape, dtype: str, table: AssetSpec | None = None) -> Fact:
        key = (label, shape, dtype, table and (table.dataset, table.version))
        found = self.facts.get(key)
        if found is None:
            found = self.facts[key] = Fact(label, shape, dtype, table)
            if len(self.facts) > MEMO:
                self.facts.popitem(last=False)
        return found


class Program:
    """The nodes, the data they may name, and the limits they are held to."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entries: dict[int, Entry] = {}
        self.failures: dict[int, Failure] = {}
        self.hashes: dict[int, str] = {}
        self.specs: dict[tuple[str, int], tuple[AssetSpec, frozenset[str]]] = {}
        self.constants = Constants(limits.memory // 4)
        self._shared = _Shared()
        self._last = -1
        self._nbytes = 0
        self._broken: GridError | None = None

    # --- growing ---

    def bind(self, spec: AssetSpec, parts: Iterable[str]) -> None:
        """Let the program use these parts of a dataset version."""
        _, known = self.specs.get((spec.dataset, spec.version), (spec, frozenset()))
        self.specs[spec.dataset, spec.version] = (spec, known | frozenset(parts))

    def append(self, nodes: list[Node], nbytes: int) -> None:
        """Append nodes that arrived as `nbytes` bytes. Never raises: what is wrong is told when it is asked for."""
        self._nbytes += nbytes
        if len(self.entries) + len(self.failures) + len(nodes) > self.limits.nodes or self._nbytes > self.limits.program:
            self._broken = LimitExceededError(
                f"A session's program has at most {self.limits.nodes} operations in {self.limits.program} bytes. "
                "Begin a new session, or define a plan and run it.",
                limit=self.limits.nodes,
            )
        for node in nodes:
            if self._broken is not None:
                return
            self._append(node)

    def _append(self, node: Node) -> None:
        if not self._last < node.id < MAX_NODE:
            self._broken = InvalidInputError("Ids of nodes only grow, and are less than 2**32.")
            return
        self._last = node.id
        try:
            operands: list[int] = []
            key = self._key(node, operands)
            step = self._shared.steps.get(key)
            if step is None:
                step = self._shared.steps[key] = self._step(node)
                if len(self._shared.steps) > MEMO:
                    self._shared.steps.popitem(last=False)
            else:
                self._shared.steps.move_to_end(key)
            if node.outputs != len(step.facts):
                raise InvalidInputError(f"{node.op} has {len(step.facts)} outputs.", operation=node.op)
        except _Inherited as inherited:
            self.failures[node.id] = inherited.failure
        except GridError as error:
            self.failures[node.id] = Failure(error, node.line[:MAX_LINE])
        else:
            self.hashes[node.id] = lineage_hash(node, self.hashes)
            self.entries[node.id] = Entry(node, step, tuple(operands))

    def _key(self, node: Node, operands: list[int]) -> Any:
        """What decides about a node's outputs. Facts stand for references; floats count by kind, not by value."""

        def part(value: Any, nested: bool = False) -> Any:
            kind = type(value)
            if kind is Ref:
                fact = self._operand(node, value)
                operands.append(value.node)
                return fact
            if kind is int or value is None or kind is Dtype:
                return value
            if kind is bool:
                return "true" if value else "false"
            if kind is float:
                # Half precision refuses larger constants.
                return "float" if abs(value) <= 65504 else "large float"
            if kind is str:
                return ("text", value)
            if kind is list and not nested:
                return ("list", *(part(item, True) for item in value))
            raise InvalidInputError(f"{node.op[:64]} has an argument that no operation takes.")

        if node.op not in TABLE:
            raise OperationNotAllowedError(
                f"{node.op[:64]!r} is not among the operations of this node.", operation=node.op[:64]
            )
        key = (node.op, *(part(value) for value in node.args))
        if node.kwargs:
            key = (*key, *((name, part(value)) for name, value in sorted(node.kwargs.items())))
        if node.op == "aten::index_select":
            # Rows chosen alike pair by position: the label names the index by its lineage.
            key = (*key, tuple(self.hashes[number] for number in operands[1:]))
        return key

    def _operand(self, node: Node, ref: Ref) -> Fact:
        entry = self.entries.get(ref.node)
        if entry is None:
            failure = self.failures.get(ref.node)
            if failure is not None:
                raise _Inherited(failure)
            raise InvalidInputError(f"{node.op[:64]} refers to a node that is not there before it.")
        if not 0 <= ref.output < len(entry.facts):
            raise InvalidInputError(f"{node.op[:64]} refers to an output that {entry.node.op} does not have.")
        return entry.facts[ref.output]

    # --- asking ---

    def fact(self, ref: Ref) -> Fact:
        """What is known of a value. Raises what is wrong with it; `details["line"]` says where it was written."""
        entry = self.entries.get(ref.node)
        if entry is not None and 0 <= ref.output < len(entry.facts):
            return entry.facts[ref.output]
        failure = self.failures.get(ref.node)
        if failure is not None:
            error = failure.error
            raise type(error)(error.message, **(error.details | ({"line": failure.line} if failure.line else {})))
        raise self._broken or InvalidInputError("This value is not part of the session's program.")

    def plan(self, ref: Ref, has: Callable[[int], bool], held: int = 0) -> Plan:
        """What is left to compute. `has` says which nodes are there already; they take `held` bytes.

        Raises LimitExceededError where that is more than the limits allow; nothing has run then.
        """
        needed: set[int] = set()
        todo = [ref.node]
        while todo:
            number = todo.pop()
            if number not in needed and not has(number):
                needed.add(number)
                todo.extend(self.entries[number].operands)
        order = sorted(needed)
        flops = sum(self.entries[number].flops for number in order)
        if flops > self.limits.flops:
            raise LimitExceededError(
                f"This needs about {flops:.2e} operations; the limit is {self.limits.flops:.2e}.", limit=self.limits.flops
            )
        peak = live = held
        uses = self.last_uses(order)
        for number in order:
            entry = self.entries[number]
            if entry.node.op != ASSET:  # assets are mapped, not loaded
                live += entry.nbytes
            peak = max(peak, live)
            for done in uses.get(number, ()):
                if self.entries[done].node.op != ASSET and not self.entries[done].held:
                    live -= self.entries[done].nbytes
        if peak > self.limits.memory:
            raise LimitExceededError(
                f"This needs about {peak} bytes of memory at a time; the limit is {self.limits.memory}.",
                limit=self.limits.memory,
            )
        return Plan(order, flops, peak)

    def last_uses(self, order: list[int]) -> dict[int, list[int]]:
        """By node, which nodes of `order` are needed there for the last time."""
        last: dict[int, int] = {}
        for number in order:
            for operand in self.entries[number].operands:
                last[operand] = number
        ends: dict[int, list[int]] = {}
        mine = set(order)
        for operand, number in last.items():
            if operand in mine:
                ends.setdefault(number, []).append(operand)
        return ends

    # --- judging one node ---

    def _step(self, node: Node) -> Step:
        if node.op == ASSET:
            return Step((self._asset_fact(node),), 0, None)
        if node.op == CONSTANT:
            if len(node.args) != 1 or not isinstance(node.args[0], str) or node.kwargs:
                raise InvalidInputError("A constant is named by its digest.")
            header = self.constants.header(node.args[0])
            return Step((self._admitted(node, self._shared.fact(NOTHING, tuple(header.shape), header.dtype)),), 0, None)
        target = TARGETS[node.op]
        bound = bind(target, node)
        operands: list[Operand] = []
        tables: list[AssetSpec] = []

        def value(given: Any) -> Any:
            if isinstance(given, Ref):
                fact = self._operand(node, given)
                if fact.table is not None:
                    tables.append(fact.table)
                lineage = self.hashes[given.node] if node.op == "aten::index_select" else ""
                operand = Operand(fact.label, fact.shape, fact.dtype, f"{lineage}.{given.output}")
                operands.append(operand)
                return operand
            if isinstance(given, list):
                return [value(item) for item in given]
            return given

        bound = {name: value(given) for name, given in bound.items()}
        outputs = self._outputs(node, bound, operands, tables)
        call = Call(node.op, bound, tuple(operands), tuple(shape for shape, _ in outputs))
        facts = []
        judged = labels.judge(call)
        for (shape, dtype), label in zip(outputs, judged.labels, strict=True):
            facts.append(self._admitted(node, self._shared.fact(label, shape, dtype)))
        cost = TABLE[node.op].cost([operand.shape for operand in operands], [shape for shape, _ in outputs])
        return Step(tuple(facts), cost, judged.presence)

    def _admitted(self, node: Node, fact: Fact) -> Fact:
        if fact.nbytes > self.limits.value:
            raise LimitExceededError(
                f"{node.op} would give a value of {fact.nbytes} bytes; the limit is {self.limits.value}.",
                limit=self.limits.value,
                operation=node.op,
            )
        return fact

    def _outputs(
        self, node: Node, bound: dict[str, Any], operands: list[Operand], tables: list[AssetSpec]
    ) -> list[tuple[Shape, str]]:
        if not node.op.startswith("grid::"):
            if tables:
                raise InvalidInputError(f"{node.op} takes tensors: choose a column of the table first.", operation=node.op)
            return shapes.infer(TARGETS[node.op], bound)
        if not operands:
            raise InvalidInputError(f"{node.op} needs a value.", operation=node.op)
        if node.op == "grid::count":
            if not operands[0].shape:
                raise InvalidInputError("grid::count needs a value with rows.", operation=node.op)
            return [((), "int64")]
        if not tables:
            raise InvalidInputError("Only a table has columns by name.", operation=node.op)
        known = {column.name: column for column in tables[0].columns}
        names = bound["names"] if isinstance(bound["names"], list) else [bound["names"]]
        missing = [name for name in names if name not in known]
        if missing or len(set(names)) != len(names) or node.kwargs:
            raise InvalidInputError(f"Columns are named once each; this table has {', '.join(known)}.", operation=node.op)
        if isinstance(bound["names"], list):
            return [((operands[0].shape[0], len(names)), "float64")]
        return [((operands[0].shape[0],), COLUMN_DTYPES[known[names[0]].kind])]

    def asset(self, node: Node) -> tuple[AssetSpec, str]:
        """The dataset version and the part that an input names. Raises NotFoundError for one that was not bound."""
        match node.args:
            case [str() as dataset, int() as version, ("values" | "mock") as part] if not node.kwargs:
                spec, parts = self.specs.get((dataset, version), (None, frozenset[str]()))
                if spec is None or part not in parts:
                    raise NotFoundError("There is no such dataset or version.", dataset=dataset[:64], version=version)
                return spec, part
        raise InvalidInputError("An asset is named by dataset id, version and part ('values' or 'mock').")

    def _asset_fact(self, node: Node) -> Fact:
        spec, part = self.asset(node)
        shape = mapped.shape_of(spec, part)
        table = spec if spec.kind == TABLE_KIND else None
        if part == MOCK:
            return self._shared.fact(NOTHING, shape, spec.dtype, table)
        names = [column.name for column in spec.columns]
        if table is None and (len(shape) > 2 or len(names) != (shape[1] if len(shape) == 2 else 1)):
            names = []  # one bound for all elements: these are not columns
        label = asset_label(
            spec.dataset,
            spec.version,
            spec.sequence,
            shape[0],
            names,
            1 if len(shape) == 2 else None,
            spec.presence,
        )
        return self._shared.fact(label, shape, spec.dtype, table)
