"""The bounds reader: between which numbers does one row of a value lie, by public things alone? For workers.

Declared columns, public operands and the operations between decide; never a private value. A bound that is wrong costs
accuracy, never privacy: the kernel clips what each entity contributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, prod
from typing import Any, NamedTuple

import torch

from apps.compute.entries import Entry
from apps.compute.judging import Fact
from apps.compute.labels import PUBLIC, ROWS, Shape
from apps.compute.programs import MAX_LINE, Program
from apps.compute.readers.intervals import POINTWISE, Given, Interval, Pair, cleaned, hull, made, within
from apps.compute.readers.losses import LOSSES
from apps.compute.readers.slices import SLICES
from apps.compute.readers.torch import TorchReader
from apps.compute.targets import DTYPES, TARGETS, called
from apps.datasets.assets import AssetSpec
from apps.datasets.ingest.rules import allowed
from gridclient.program.graph import ASSET, Ref
from gridclient.wire.errors import UnboundedError

RULES = POINTWISE | LOSSES | SLICES
NARROW = frozenset({"bool", "uint8", "int8", "int16"})
"""dtypes that are bounds by themselves."""
_INPUTS = frozenset({ASSET, "grid::column", "grid::columns"})


class Bound(NamedTuple):
    """`low` and `high`: float64 in the value's shape, with extent 1 along the entity axis.

    `norm`: the most that one row's L2 norm can be, each element divided by the largest absolute value that it can have.
    """

    low: torch.Tensor
    high: torch.Tensor
    norm: float


class _Known(NamedTuple):
    """An interval, and the node where a bound was lost first; None where there is one."""

    interval: Interval
    lost: int | None


def bound(program: Program, reader: TorchReader, ref: Ref) -> Bound:
    """The bounds of one row of a ROWS value.

    Raises UnboundedError that names the operation and the line where there are none.
    """
    return Bound(*Bounds(program, reader).of(ref))


class Bounds:
    """The bounds of a program's values, each looked for once."""

    def __init__(self, program: Program, reader: TorchReader) -> None:
        self._program, self._reader = program, reader
        self._known: dict[Ref, _Known] = {}
        self._public: dict[Ref, torch.Tensor] = {}

    def of(self, ref: Ref) -> Interval:
        """The interval of a ROWS value. Raises UnboundedError."""
        for number in self._below([ref]):
            entry = self._program.entries[number]
            for output, fact in enumerate(entry.facts):
                if Ref(number, output) not in self._known and fact.label.kind == ROWS:
                    self._known[Ref(number, output)] = self._step(number, output, fact)
        interval, lost = self._known[ref]
        if lost is not None:
            raise _unbounded(self._program.entries[lost])
        return interval

    def unreduced(self, ref: Ref, bound: Mapping[str, Any], shape: Shape, axis: int) -> Interval:
        """The interval of a loss before it is added up: of elements of this shape, their rows on `axis`."""
        for given in bound.values():
            if isinstance(given, Ref) and self._program.fact(given).label.kind != PUBLIC:
                self.of(given)
        rows_of_one = tuple(1 if place == axis else extent for place, extent in enumerate(shape))
        interval, lost = self._ruled(ref.node, bound, rows_of_one, axis)
        if lost is not None:
            raise _unbounded(self._program.entries[lost])
        return interval

    def public(self, ref: Ref) -> torch.Tensor:
        """The value of a public operand."""
        if ref not in self._public:
            value = self._reader.value(ref, self._program.plan([ref], self._reader.has))
            assert isinstance(value, torch.Tensor)
            self._public[ref] = value
        return self._public[ref]

    def _below(self, results: list[Ref]) -> list[int]:
        """The private nodes that a value is computed from, in order."""
        seen: set[int] = set()
        todo = [ref.node for ref in results]
        while todo:
            number = todo.pop()
            entry = self._program.entries[number]
            if number not in seen and not entry.public():
                seen.add(number)
                todo += entry.operands
        return sorted(seen)

    def _step(self, number: int, output: int, fact: Fact) -> _Known:
        entry = self._program.entries[number]
        shape, axis = _slice(fact), fact.label.axis
        if entry.op in _INPUTS:
            pair = _declared(self._program, entry, fact, shape)
            found = made(*pair)
            return _Known(found, None if fact.table or found.finite() else number)
        return self._ruled(number, entry.bound(), shape, axis, output)

    def _ruled(self, number: int, bound: Mapping[str, Any], shape: Shape, axis: int, output: int = 0) -> _Known:
        entry = self._program.entries[number]
        used: list[_Known] = []

        def value(given: Any) -> Any:
            if isinstance(given, list):
                return [value(each) for each in given]
            if not isinstance(given, Ref):
                return given
            if self._program.fact(given).label.kind == PUBLIC:
                return self.public(given)
            used.append(self._known[given])
            return used[-1].interval

        args = {name: value(each) for name, each in bound.items()}
        found = ruled(entry.op, args, shape, axis, output, entry.facts[output].dtype)
        if found.finite():
            return _Known(found, None)
        return _Known(found, next((known.lost for known in used if known.lost is not None), number))


def ruled(op: str, args: dict[str, Any], shape: Shape, axis: int, output: int, dtype: str) -> Interval:
    """What a rule gives for one output. `args` by the schema's names, as `Given` has them; no rule: no bounds."""
    target = TARGETS[op]

    def call(changed: dict[str, Any]) -> list[torch.Tensor]:
        return called(target, changed, lambda given: given)

    rule = RULES.get(op, within(-inf, inf))
    found = rule(Given(op, args, shape, axis, output, target.call, call))
    low, high, norm = found if isinstance(found, Interval) else (*found, inf)
    low, high = (end.to(torch.float64).expand(shape) for end in (low, high))
    return _held(Interval(low, high, norm), dtype)


def _held(found: Interval, dtype: str) -> Interval:
    """What a dtype makes of it: truth values are 0 or 1, narrow integers wrap, narrow floats end."""
    low, high = cleaned(found.pair)
    norm = found.norm
    if DTYPES[dtype].is_floating_point:
        most = torch.finfo(DTYPES[dtype]).max
        low, high = torch.where(low < -most, -inf, low), torch.where(high > most, inf, high)
    else:
        least, greatest = _range(dtype)
        inside = (low >= least) & (high <= greatest)
        norm = norm if inside.all() else inf
        low, high = torch.where(inside, low, least), torch.where(inside, high, greatest)
        if dtype not in NARROW:
            # As good as no bound, whatever could come in there.
            low, high = torch.where(low <= least, -inf, low), torch.where(high >= greatest, inf, high)
    return made(low, high, norm)


def _range(dtype: str) -> tuple[float, float]:
    if dtype == "bool":
        return 0.0, 1.0
    limits = torch.iinfo(DTYPES[dtype])
    return float(limits.min), float(limits.max)


def _slice(fact: Fact) -> Shape:
    """A value's shape, with extent 1 along its entity axis."""
    return tuple(1 if place == fact.label.axis else extent for place, extent in enumerate(fact.shape))


def _declared(program: Program, entry: Entry, fact: Fact, shape: Shape) -> Pair:
    """What is declared of an asset or of columns of it; null records are 0."""
    if entry.op == ASSET:
        spec, _ = program.judge.asset(entry.node)
        pairs = [allowed(column) for column in spec.columns]
        if spec.kind == "table" or (len(shape) == 2 and len(pairs) == shape[1]) or len(pairs) == 1:
            return _hulled(spec, _ends(pairs, fact.dtype, shape))
        return _hulled(spec, _ends([None], fact.dtype, shape))
    bound = entry.bound()
    spec, _ = program.judge.asset(program.entries[bound["self"].node].node)
    known = {column.name: column for column in spec.columns}
    names = bound["names"] if isinstance(bound["names"], list) else [bound["names"]]
    return _hulled(spec, _ends([allowed(known[name]) for name in names], fact.dtype, shape))


def _ends(pairs: list[tuple[float, float] | None], dtype: str, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    nothing = _range(dtype) if dtype in NARROW else (-inf, inf)
    if not prod(shape):
        return torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    ends = torch.tensor([nothing if pair is None else pair for pair in pairs], dtype=torch.float64)
    return ends[:, 0].expand(shape), ends[:, 1].expand(shape)


def _hulled(spec: AssetSpec, pair: Pair) -> Pair:
    zero = torch.zeros((), dtype=torch.float64)
    return hull(pair, (zero, zero)) if spec.presence else pair


def _unbounded(entry: Entry) -> UnboundedError:
    node = entry.node
    if entry.op in _INPUTS:
        what = "The dataset declares no bounds here"
        helps = "its owner can declare them, or clip the values first: torch.clamp(x, low, high)"
    else:
        what = f"Nothing public bounds what {entry.op} gives"
        helps = "clip its operand or its result: torch.clamp(x, low, high)"
    return UnboundedError(
        f"{what}, so that no noise would be enough. To help, {helps}.",
        operation=entry.op,
        **({"line": node.line[:MAX_LINE]} if node.line else {}),
    )
