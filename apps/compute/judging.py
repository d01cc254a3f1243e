"""What one node gives: its arguments checked, its outputs' shapes, dtypes and labels read, its cost estimated.

Memoised: nodes with the same operation, equal facts about their operands and the same static arguments give the same.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from apps.compute import aggregates, mapped
from apps.compute.constants import Constants
from apps.compute.labels import NOTHING, PUBLIC, Call, Label, Operand, Shape, asset_label
from apps.compute.messages import Limits
from apps.compute.operations import TABLE
from apps.compute.readers import labels, shapes
from apps.compute.targets import TARGETS, bind
from apps.compute.training import MAX_ID, MAX_NAME, checked_name
from apps.datasets.assets import MOCK, AssetSpec
from apps.datasets.assets import TABLE as TABLE_KIND
from gridclient.program.graph import AGGREGATE, ASSET, CONSTANT, PARAMETER, Node, Ref
from gridclient.wire.errors import InvalidInputError, LimitExceededError, NotFoundError, OperationNotAllowedError

MEMO = 20_000
COMPOSED = frozenset({"grid::column", "grid::columns", "grid::count", AGGREGATE, PARAMETER})
"""Operations whose outputs follow from metadata alone."""
CHOSEN = {"aten::index_select": "index", "aten::index.Tensor": "indices"}
"""Operations that choose rows by position, and the argument that says which."""
COLUMN_DTYPES = {"number": "float64", "date": "float64", "category": "int64", "boolean": "bool"}


class Fact:
    """What is known of a value. One object for equal facts, so that memo keys compare by identity."""

    __slots__ = ("dtype", "label", "nbytes", "shape", "table")

    def __init__(self, label: Label, shape: Shape, dtype: str, table: AssetSpec | None) -> None:
        self.label, self.shape, self.dtype, self.table = label, shape, dtype, table
        self.nbytes = 8 * math.prod(max(extent, 1) for extent in shape) if table else shapes.nbytes(shape, dtype)


class Step(NamedTuple):
    """What a node gives, from its operation and what is known of its operands.

    `shapes_only`: it needs what is known of its operands only, so that these are not computed for it. `nbytes`: of
    all outputs together.
    """

    facts: tuple[Fact, ...]
    flops: int
    presence: tuple[int, frozenset[tuple[str, int]]] | None
    shapes_only: bool
    nbytes: int


def _step(
    facts: list[Fact],
    flops: int = 0,
    presence: tuple[int, frozenset[tuple[str, int]]] | None = None,
    *,
    shapes_only: bool = False,
) -> Step:
    return Step(tuple(facts), flops, presence, shapes_only, sum(fact.nbytes for fact in facts))


class _Memo:
    """Steps by key, and facts by what they say. Bounded: what was used longest ago goes."""

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


def _parameter(sent: Operand, bound: dict[str, Any], tables: list[AssetSpec]) -> tuple[Shape, str]:
    """Shape and dtype of a parameter or buffer. Raises InvalidInputError for what was not sent by the client."""
    checked_name(bound["module"], "The id of a module", MAX_ID)
    checked_name(bound["name"], "The name of a parameter", MAX_NAME)
    if tables or sent.label.kind != PUBLIC:
        raise InvalidInputError(
            "A parameter or buffer is a public tensor when it is sent; this value depends on private data.",
            operation=PARAMETER,
        )
    return sent.shape, sent.dtype


class Judge:
    """Judges the nodes of one program. `operand` gives the fact behind a reference, `hashes` the nodes' lineage."""

    def __init__(
        self,
        limits: Limits,
        constants: Constants,
        operand: Callable[[Node, Ref], Fact],
        hashes: Mapping[int, str],
    ) -> None:
        self._limits = limits
        self._constants = constants
        self._operand = operand
        self._hashes = hashes
        self._specs: dict[tuple[str, int], tuple[AssetSpec, frozenset[str]]] = {}
        self._memo = _Memo()

    def bind(self, spec: AssetSpec, parts: Iterable[str]) -> None:
        """Let the program use these parts of a dataset version."""
        _, known = self._specs.get((spec.dataset, spec.version), (spec, frozenset[str]()))
        self._specs[spec.dataset, spec.version] = (spec, known | frozenset(parts))

    def spec(self, dataset: str, version: int) -> AssetSpec:
        """A version that was bound."""
        return self._specs[dataset, version][0]

    def step(self, node: Node) -> tuple[Step, tuple[int, ...]]:
        """What the node gives, and which nodes it refers to. Raises GridError where it may not be there."""
        if node.op not in TABLE:
            raise OperationNotAllowedError(
                f"{node.op[:64]!r} is not among the operations of this node.", operation=node.op[:64]
            )
        # Checked before anything walks them.
        bound = self._input(node) if node.op in (ASSET, CONSTANT) else bind(TARGETS[node.op], node)
        operands: list[int] = []
        key = self._key(node, bound, operands)
        step = self._memo.steps.get(key)
        if step is None:
            step = self._memo.steps[key] = self._judged(node, bound)
            if len(self._memo.steps) > MEMO:
                self._memo.steps.popitem(last=False)
        else:
            self._memo.steps.move_to_end(key)
        if node.outputs != len(step.facts):
            raise InvalidInputError(f"{node.op} has {len(step.facts)} outputs.", operation=node.op)
        return step, tuple(set(operands))

    def _key(self, node: Node, bound: dict[str, Any], operands: list[int]) -> Any:
        """What decides about a node's outputs: its bound arguments, in whichever way they were written.

        Facts stand for references; floats count by kind, not by value.
        """

        def part(value: Any) -> Any:
            kind = type(value)
            if kind is Ref:
                fact = self._operand(node, value)
                operands.append(value.node)
                return fact
            if kind is int or value is None:
                return value
            if kind is bool:
                return "true" if value else "false"
            if kind is float:
                # Half precision refuses larger constants.
                return "float" if abs(value) <= 65504 else "large float"
            if kind is str:
                return ("text", value)
            return ("list", *map(part, value))

        key = (node.op, *map(part, bound.values()))
        if node.op in CHOSEN:
            # Rows chosen alike pair by position: the label names the index by its lineage.
            found = bound[CHOSEN[node.op]]
            indices = found if isinstance(found, list) else [found]
            key = (*key, *(None if index is None else self._lineage(index) for index in indices))
        return key

    def _lineage(self, ref: Ref) -> str:
        return f"{self._hashes[ref.node]}.{ref.output}"

    def _input(self, node: Node) -> dict[str, Any]:
        """The arguments of a node without operands. Raises InvalidInputError, or NotFoundError for an asset."""
        if node.op == ASSET:
            spec, part = self.asset(node)
            return {"dataset": spec.dataset, "version": spec.version, "part": part}
        match node.args:
            case [str() as digest] if not node.kwargs:
                return {"digest": digest}
        raise InvalidInputError("A constant is named by its digest.")

    def _judged(self, node: Node, bound: dict[str, Any]) -> Step:
        if node.op == ASSET:
            return _step([self._asset_fact(node)])
        if node.op == CONSTANT:
            header = self._constants.header(bound["digest"])
            return _step([self._admitted(node, self._memo.fact(NOTHING, tuple(header.shape), header.dtype))])
        operands: list[Operand] = []
        tables: list[AssetSpec] = []

        def value(given: Any) -> Any:
            if isinstance(given, Ref):
                fact = self._operand(node, given)
                if fact.table is not None:
                    tables.append(fact.table)
                lineage = self._lineage(given) if node.op in CHOSEN else ""
                operand = Operand(fact.label, fact.shape, fact.dtype, lineage)
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
            facts.append(self._admitted(node, self._memo.fact(label, shape, dtype)))
        shapes_only = labels.shapes_only(node.op) and judged.presence is None
        costing = [] if shapes_only else [operand.shape for operand in operands]
        cost = TABLE[node.op].price(bound, costing, [shape for shape, _ in outputs])
        return _step(facts, cost, judged.presence, shapes_only=shapes_only)

    def _admitted(self, node: Node, fact: Fact) -> Fact:
        if fact.nbytes > self._limits.value:
            raise LimitExceededError(
                f"{node.op} would give a value of {fact.nbytes} bytes; the limit is {self._limits.value}.",
                limit=self._limits.value,
                operation=node.op,
            )
        return fact

    def _outputs(
        self, node: Node, bound: dict[str, Any], operands: list[Operand], tables: list[AssetSpec]
    ) -> list[tuple[Shape, str]]:
        if node.op not in COMPOSED:
            if tables:
                raise InvalidInputError(
                    f"{node.op} takes tensors: choose a column of the table first.", operation=node.op
                )
            return shapes.infer(TARGETS[node.op], bound)
        if not operands:
            raise InvalidInputError(f"{node.op} needs a value.", operation=node.op)
        if node.op == PARAMETER:
            return [_parameter(operands[0], bound, tables)]
        if node.op == "grid::count":
            if not operands[0].shape:
                raise InvalidInputError("grid::count needs a value with rows.", operation=node.op)
            return [((), "int64")]
        if node.op == AGGREGATE:
            return [aggregates.shape(bound, tables, self.spec)]
        if not tables:
            raise InvalidInputError("Only a table has columns by name.", operation=node.op)
        known = {column.name: column for column in tables[0].columns}
        names = bound["names"] if isinstance(bound["names"], list) else [bound["names"]]
        missing = [name for name in names if name not in known]
        if missing or len(set(names)) != len(names):
            raise InvalidInputError(
                f"Columns are named once each; this table has {', '.join(known)}.", operation=node.op
            )
        if isinstance(bound["names"], list):
            return [((operands[0].shape[0], len(names)), "float64")]
        return [((operands[0].shape[0],), COLUMN_DTYPES[known[names[0]].kind])]

    def asset(self, node: Node) -> tuple[AssetSpec, str]:
        """The dataset version and the part that an input names. Raises NotFoundError for one that was not bound."""
        match node.args:
            case [str() as dataset, int() as version, ("values" | "mock") as part] if not (
                node.kwargs or isinstance(version, bool)
            ):
                spec, parts = self._specs.get((dataset, version), (None, frozenset[str]()))
                if spec is None or part not in parts:
                    raise NotFoundError("There is no such dataset or version.", dataset=dataset[:64], version=version)
                return spec, part
        raise InvalidInputError("An asset is named by dataset id, version and part ('values' or 'mock').")

    def _asset_fact(self, node: Node) -> Fact:
        spec, part = self.asset(node)
        shape = mapped.shape_of(spec, part)
        table = spec if spec.kind == TABLE_KIND else None
        if part == MOCK:
            return self._memo.fact(NOTHING, shape, spec.dtype, table)
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
        return self._memo.fact(label, shape, spec.dtype, table)
