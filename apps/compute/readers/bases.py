"""The bases reader: the sums over rows that an AGG value is an affine map of, and how much one row can move each.

Noise goes on the bases; the map is public, and is applied to what the noise left. For workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod, sqrt
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from apps.compute.entries import Entry
from apps.compute.labels import AGG, PUBLIC, ROWS, Label, Shape
from apps.compute.programs import MAX_LINE, Program
from apps.compute.readers.bounds import Bounds
from apps.compute.readers.contributions import (
    COUNT,
    KINDS,
    PRODUCTS,
    SUMS,
    dims,
    of_loss,
    of_product,
    of_sum,
    row_axes,
)
from apps.compute.readers.intervals import Interval, Pair, hull, made
from apps.compute.readers.losses import LOSSES
from apps.compute.readers.people import People, people
from apps.compute.readers.torch import TorchReader
from apps.compute.rules.networks import MEAN, NONE, broadcast
from apps.compute.targets import DTYPES
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Ref
from gridclient.wire.errors import InvalidInputError, LimitExceededError

Rows = tuple[NDArray[np.float64], NDArray[np.int64] | None, NDArray[np.bool_] | None]


class Base(msgspec.Struct, frozen=True):
    """One sum over rows, of `size` numbers. `scale` and `centre`: [size], in the value's units.

    `reach`: [size], half of the range that a row's contribution can be in, a record or not; in the value's units.
    A row is (contribution - centre) / scale, and has a norm of at most `norm`; where the scale is 0 it is 0. `centred`:
    `rows` times the centre is added after the noise. An entity has at most `most` rows; there are at most `entities`.
    """

    ref: Ref
    size: int
    scale: list[float]
    centre: list[float]
    norm: float
    rows: int
    entities: int
    most: int
    centred: bool
    reach: list[float]


def bases(program: Program, ref: Ref) -> list[Ref]:
    """The sums over rows that a value is made of, in the order of the program.

    Raises InvalidInputError where the value is no sum over people, or a mean over a private number of them.
    """
    if program.fact(ref).label.kind != AGG:
        raise InvalidInputError(
            "Noise makes a sum over people releasable: a sum, mean or count over rows, a product such as x.T @ y, "
            "and what is computed from these by adding them and multiplying by public numbers. This value is none."
        )
    found: list[Ref] = []
    for number in _totals(program, ref):
        entry = program.entries[number]
        if not _sums_rows(program, entry):
            continue
        if entry.op not in KINDS:
            raise InvalidInputError(f"{entry.op} is not released with noise.", operation=entry.op, **_line(entry))
        if entry.presence is not None and entry.op in SUMS and SUMS[entry.op].mean:
            raise InvalidInputError(
                "How many records there are is private here: release the sum and the count, and divide.",
                operation=entry.op,
                **_line(entry),
            )
        found.append(Ref(number))
    return found


def form(program: Program, reader: TorchReader, refs: Sequence[Ref]) -> list[Base]:
    """What noise must know of each base, from public metadata and public operands only.

    Raises UnboundedError where nothing public bounds a contribution, and says what would help.
    """
    bounds = Bounds(program, reader)
    return [_form(program, reader, bounds, ref) for ref in refs]


def rows(program: Program, reader: TorchReader, base: Base) -> Rows:
    """Each row's contribution, scaled and centred: float64 [n, size]; its entity, int64 [n], or None where row i is
    entity i; and which rows are records, bool [n], or None for all. Private."""
    entry = program.entries[base.ref.node]
    folk = _people(program, reader, base.ref)
    found = _contributions(program, reader, entry, base.rows)
    scale = torch.tensor(base.scale, dtype=torch.float64)
    scaled = torch.where(scale > 0, (found - torch.tensor(base.centre, dtype=torch.float64)) / scale, 0.0)
    return scaled.numpy(), folk.codes(), folk.keep()


def declared(program: Program, reader: TorchReader, base: Base) -> AssetSpec:
    """The version whose identifiers name the entities of a base. Raises InvalidInputError where none does."""
    found = _people(program, reader, base.ref).declared
    if found is None:
        raise InvalidInputError("People without declared identifiers have no accounts of their own.")
    return found


def evaluate(program: Program, reader: TorchReader, ref: Ref, given: Mapping[Ref, torch.Tensor]) -> torch.Tensor:
    """The value for these values of its bases: float64, each in its base's shape or flat.

    Nothing private is read: what is neither given nor public is computed again from these.
    """
    return Affine(program, reader, ref)(given)


class Affine:
    """The public map from a value's bases to the value. What it needs of public values is computed once."""

    def __init__(self, program: Program, reader: TorchReader, ref: Ref) -> None:
        self._program, self._reader, self._ref = program, reader, ref
        self.bases = bases(program, ref)
        known = {base.node for base in self.bases}
        self._order = [number for number in _totals(program, ref) if number not in known]
        needed = {
            operand
            for number in self._order
            for operand in program.entries[number].operands
            if program.entries[operand].public()
        }
        refs = [
            Ref(number, output) for number in sorted(needed) for output in range(len(program.entries[number].facts))
        ]
        values = reader.values(refs, program.plan(refs, reader.has)) if refs else []
        self._public: dict[int, tuple[Any, ...]] = {}
        for public, value in zip(refs, values, strict=True):
            self._public[public.node] = (*self._public.get(public.node, ()), value)

    def __call__(self, given: Mapping[Ref, torch.Tensor]) -> torch.Tensor:
        running = dict(self._public)
        for base in self.bases:
            fact = self._program.fact(base)
            running[base.node] = (_as_dtype(given[base], fact.dtype).reshape(fact.shape),)
        for number in self._order:
            running[number] = self._reader.once(self._program.entries[number], running)
        value: torch.Tensor = running[self._ref.node][self._ref.output]
        return value


def _as_dtype(value: torch.Tensor, dtype: str) -> torch.Tensor:
    if "float" in dtype:
        return value.to(DTYPES[dtype])
    most = 2.0**62
    return value.to(torch.float64).round().clamp(-most, most).to(DTYPES[dtype])


def _totals(program: Program, ref: Ref) -> list[int]:
    """The nodes from which an AGG value is computed, down to the sums over rows, in order."""
    seen: set[int] = set()
    todo = [ref.node]
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        entry = program.entries[number]
        if not _sums_rows(program, entry):
            todo += [operand for operand in entry.operands if not program.entries[operand].public()]
    return sorted(seen)


def _sums_rows(program: Program, entry: Entry) -> bool:
    """Whether a total is made here, and not from other totals."""
    return not any(label.kind == AGG for label in _labels(program, entry))


def _labels(program: Program, entry: Entry) -> list[Label]:
    """The labels of the private operands."""
    found = []
    for given in entry.bound().values():
        for ref in given if isinstance(given, list) else [given]:
            if isinstance(ref, Ref) and program.fact(ref).label.kind != PUBLIC:
                found.append(program.fact(ref).label)
    return found


def _line(entry: Entry) -> dict[str, str]:
    return {"line": entry.node.line[:MAX_LINE]} if entry.node.line else {}


def _people(program: Program, reader: TorchReader, ref: Ref) -> People:
    entry = program.entries[ref.node]
    (kind,) = {label.kind for label in _labels(program, entry)}
    assert kind == ROWS
    labels = _labels(program, entry)
    mask = frozenset(version for label in labels for version in label.mask)
    label = msgspec.structs.replace(labels[0], inputs=entry.facts[0].label.inputs, mask=mask)
    return people(program, reader, ref, label)


def _contributions(program: Program, reader: TorchReader, entry: Entry, count: int) -> torch.Tensor:
    """What each row adds, unscaled: float64 [n, size]."""
    if entry.op == COUNT:
        return torch.ones((count, 1), dtype=torch.float64)
    bound = entry.bound()
    refs = list(dict.fromkeys(given for given in bound.values() if isinstance(given, Ref)))
    found = reader.values(refs, program.plan(refs, reader.has))
    held = dict(zip(refs, found, strict=True))
    args = {name: held[given] if isinstance(given, Ref) else given for name, given in bound.items()}
    if entry.op in PRODUCTS:
        product = PRODUCTS[entry.op]
        return of_product(product, args[product.left], args[product.right])
    if entry.op in LOSSES:
        return of_loss(entry.op, args, _elements(program, bound)[1])
    kind, fact = SUMS[entry.op], program.fact(bound["self"])
    added = dims(fact.shape, bound)
    made_up = of_sum(kind.map(args["self"], bound), fact.label.axis, added)
    return made_up / _number(fact.shape, added) if kind.mean else made_up


def _number(shape: Shape, added: Iterable[int]) -> int:
    return max(prod(shape[axis] for axis in added), 1)


def _elements(program: Program, bound: Mapping[str, Any]) -> tuple[Shape, int]:
    """The shape of a loss before it is added up, and where its rows lie."""
    facts = [program.fact(bound[name]) for name in ("self", "target")]
    shape = broadcast(facts[0].shape, facts[1].shape)
    private = next(fact for fact in facts if fact.label.kind == ROWS)
    return shape, private.label.axis + len(shape) - len(private.shape)


def _interval(program: Program, bounds: Bounds, ref: Ref) -> tuple[Pair, float]:
    """The bounds of one row's contribution [1, size], and of its norm."""
    entry = program.entries[ref.node]
    if entry.op == COUNT:
        one = torch.ones((1, 1), dtype=torch.float64)
        return (one, one), 1.0
    bound = entry.bound()
    if entry.op in PRODUCTS:
        product = PRODUCTS[entry.op]
        sides = [
            _side(program, bounds, bound[name], axis)
            for name, axis in zip((product.left, product.right), row_axes(product), strict=True)
        ]
        corners = [of_product(product, left, right) for left in sides[0].pair for right in sides[1].pair]
        return hull(*((corner, corner) for corner in corners)), sides[0].norm * sides[1].norm
    if entry.op in LOSSES:
        shape, axis = _elements(program, bound)
        each = bounds.unreduced(ref, bound | {"reduction": NONE}, shape, axis)
        number = _number(shape, range(len(shape))) if bound["reduction"] == MEAN else 1
        low, high = (of_sum(end, axis, set(range(len(shape)))) / number for end in each.pair)
        return (low, high), 1.0
    fact, kind = program.fact(bound["self"]), SUMS[entry.op]
    added = dims(fact.shape, bound)
    found = bounds.of(bound["self"])
    counted = "count_nonzero" in entry.op
    ends = [torch.zeros_like(found.low), torch.ones_like(found.high)] if counted else list(found.pair)
    number = _number(fact.shape, added) if kind.mean else 1
    low, high = (of_sum(end, fact.label.axis, added) / number for end in ends)
    alone = not counted and all(axis == fact.label.axis or fact.shape[axis] == 1 for axis in added)
    return (low, high), found.norm if alone else sqrt(low.numel())


def _side(program: Program, bounds: Bounds, ref: Ref, axis: int) -> Interval:
    """A factor of a product: of a public one, the extremes along the rows, and the largest norm of one row."""
    if program.fact(ref).label.kind != PUBLIC:
        return bounds.of(ref)
    value = bounds.public(ref).to(torch.float64)
    if not value.shape[axis]:
        return made(torch.zeros_like(value), torch.zeros_like(value))
    found = made(value.amin(axis, keepdim=True), value.amax(axis, keepdim=True))
    largest = found.largest
    scaled = torch.where(largest > 0, value / largest, 0.0).movedim(axis, 0).reshape(value.shape[axis], -1)
    return found._replace(norm=min(found.norm, float(scaled.norm(dim=1).max())))


def _check_fits(program: Program, rows: int, size: int, ref: Ref) -> None:
    """Here, so that it is refused before it is charged."""
    limit = program.limits.memory // 4
    if rows * size * 8 > limit:
        raise LimitExceededError(
            f"{rows} rows of {size} numbers each are more than fit into memory at a time.",
            limit=limit,
            **_line(program.entries[ref.node]),
        )


def _form(program: Program, reader: TorchReader, bounds: Bounds, ref: Ref) -> Base:
    folk = _people(program, reader, ref)
    pair, norm = _interval(program, bounds, ref)
    low, high = (end.reshape(-1) for end in pair)
    whole = Interval(low, high, norm)
    scale, centre, centred = whole.largest, torch.zeros_like(low), False
    norm = made(low, high, norm).norm
    if folk.even:
        half = (high - low) / 2
        around = sqrt(int((half > 0).sum()))
        # The smaller noise: centred rows are shorter, but no longer mostly zeros where they were.
        if around * float(half.norm()) <= norm * float(scale.norm()):
            scale, centre, norm, centred = half, (low + high) / 2, around, True
    _check_fits(program, folk.rows, len(scale), ref)
    reach = (high - low) / 2 if folk.even else (high.clamp(min=0.0) - low.clamp(max=0.0)) / 2
    return Base(
        ref,
        len(scale),
        scale.tolist(),
        centre.tolist(),
        max(norm, 1.0),
        folk.rows,
        folk.entities,
        folk.most,
        centred,
        reach.tolist(),
    )
