"""The closed set, from the data themselves: the numbers of an answer, the cells that are checked, the crowds behind.

An answer is described by what it says, not by the program that asked: `labels.Answer`. For workers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from apps.compute import checks, crowds, mapped
from apps.compute.aggregates import COUNT, HISTOGRAM, PRODUCT, cells_of
from apps.compute.checks import FEW_VALUES, Cell, Floats
from apps.compute.crowds import Crowd, Crowds, Numbers
from apps.compute.messages import Closed, Examine
from apps.datasets.assets import TABLE, VALUES, AssetSpec
from gridclient.wire.messages import Column

BLOCK = 2**22
"""Numbers of whole rows that are hashed at a time."""
KEPT_ROWS = 2**18
"""Up to so many, who they are is kept for the next answer."""

Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]


class People(NamedTuple):
    """Whose row is which: `codes` int64 [n]; `identifiers` uint8 [entities, 32], None where a row is a person."""

    codes: Codes
    identifiers: NDArray[np.uint8] | None


class Rows(NamedTuple):
    """What answers from one version have in common. `hashes`: one of each row, of all that the version has of it;
    `values`: [n, columns] of a tensor, in its dtype."""

    people: People
    hashes: crowds.Hashes
    values: torch.Tensor | None


def numbers(spec: AssetSpec, answer: Closed) -> torch.Tensor:
    """The answer, float64 (int64 where rows are counted): [groups?] then [columns?], [cells] or [columns, others].

    A column without an axis of its own has none here either: that is for the caller's shape to say.
    """
    table = _Table(spec, answer, _values(spec))
    made = np.array([_numbers(answer, *table.part(rows)) for rows in table.groups()])
    counts = answer.kind in (COUNT, HISTOGRAM)
    return torch.from_numpy(made.astype(np.int64 if counts else np.float64))


class Examiner:
    """Examines answers. What many have in common is kept in between: the rows of a version, and who was behind what."""

    def __init__(self) -> None:
        self._earlier = crowds.Earlier()
        self._rows: tuple[AssetSpec, Rows] | None = None

    def examine(self, spec: AssetSpec, question: Examine) -> tuple[list[str], str, bytes]:
        """The names of the checks that an answer fails, sorted; the name of its crowds, and these, encoded.

        Every check is computed.
        """
        rows = self._rows_of(spec)
        table = _Table(spec, question.closed, rows.values)
        found = set(checks.failed(_cells_of(question.closed, table, rows.people), question.least))
        behind = _crowds_of(question.closed, table, rows, question.data)
        ours = crowds.read(behind)
        beside = [crowds.compatible(ours, self._earlier.read(known), question.least.k) for known in question.known]
        if not all(beside):
            found.add(checks.OVERLAP)
        encoded = crowds.encode(behind)
        return sorted(found), crowds.name(behind, encoded), encoded

    def _rows_of(self, spec: AssetSpec) -> Rows:
        """Kept of the version that was asked about last, if it isn't large."""
        if self._rows is not None and self._rows[0] == spec:
            return self._rows[1]
        values = _values(spec)
        rows = Rows(_people(spec), _whole_rows(spec, values), values)
        self._rows = (spec, rows) if spec.shape[0] <= KEPT_ROWS else None
        return rows


def _values(spec: AssetSpec) -> torch.Tensor | None:
    return None if spec.kind == TABLE else mapped.tensor(spec, VALUES).reshape(spec.shape[0], -1)


def _whole_rows(spec: AssetSpec, values: torch.Tensor | None) -> crowds.Hashes:
    """A hash of each row, of all that the version has of it: uint64 [n]. A wide tensor is read block by block."""
    if values is None:
        return crowds.row_hashes(_columns(spec, [column.name for column in spec.columns], None))
    step = max(1, BLOCK // max(values.shape[1], 1))
    blocks = (values[first : first + step].to(torch.float64).numpy() for first in range(0, max(len(values), 1), step))
    return np.concatenate([crowds.row_hashes(block) for block in blocks])


class _Table:
    """The rows that an answer is about."""

    def __init__(self, spec: AssetSpec, answer: Closed, values: torch.Tensor | None) -> None:
        n = spec.shape[0]
        self.spec = spec
        self.records: Mask = mapped.presence(spec).numpy() if spec.presence else np.ones(n, dtype=bool)
        self.left = _columns(spec, answer.columns, values)
        self.right = _columns(spec, answer.others, values)
        self.bins = _bins(self.left[:, 0], _declared(spec, answer.columns[0])) if answer.kind == HISTOGRAM else None
        self.by = None
        if answer.by:
            self.by = _bins(_columns(spec, [answer.by], values)[:, 0], _declared(spec, answer.by))

    def groups(self) -> Iterator[Mask]:
        """The partition's groups in declared order, or all rows as one; padding and null records in none."""
        if self.by is None:
            yield self.records
            return
        codes, count = self.by
        for group in range(count):
            yield self.records & (codes == group)

    def named(self, answer: Closed) -> dict[str, Floats]:
        """The columns [n] by name."""
        names = [*answer.columns, *answer.others]
        return dict(zip(names, [*self.left.T, *self.right.T], strict=True))

    def part(self, rows: Mask) -> tuple[Floats, Floats, tuple[Codes, int] | None]:
        """The columns of these rows."""
        return self.left[rows], self.right[rows], None if self.bins is None else (self.bins[0][rows], self.bins[1])


def _numbers(answer: Closed, left: Floats, right: Floats, bins: tuple[Codes, int] | None) -> Any:
    n = len(left)
    with np.errstate(all="ignore"):
        match answer.kind:
            case "count":
                return n
            case "histogram" if bins is not None:
                return np.bincount(bins[0], minlength=bins[1])
            case "sum":
                return left.sum(0)
            case "mean":
                return left.sum(0) / np.float64(n)
            case "variance":
                return ((left - left.sum(0) / np.float64(n)) ** 2).sum(0) / np.float64(n - 1)
            case _:
                return left.T @ right


def _cells_of(answer: Closed, table: _Table, people: People) -> Iterator[Cell]:
    for rows in table.groups():
        yield from _cells(answer, table, people, rows)


def _crowds_of(answer: Closed, table: _Table, known: Rows, data: str) -> Crowds:
    spec, (people, hashes, _) = table.spec, known
    by_column = {name: crowds.row_hashes(column[:, None]) for name, column in table.named(answer).items()}

    def crowd(rows: Mask) -> Crowd:
        codes = people.codes[rows]
        prints: dict[str, Numbers] = {crowds.WHOLE_ROW: crowds.printed(hashes[rows])}
        for name, column in by_column.items():
            if crowds.telling(column[rows]):
                prints[name] = crowds.printed(column[rows])
        return Crowd(crowds.people(codes, people.identifiers), prints)

    namespace = spec.sequence if people.identifiers is None else crowds.DECLARED
    found = [crowd(part) for rows in table.groups() for part in _parts(answer, table, rows)]
    if answer.kind == COUNT and not answer.by and spec.rows_public and not spec.presence:
        found = []  # what everybody sees from the shape tells of nobody
    return Crowds(spec.dataset, spec.version, data, namespace, spec.max_rows_per_entity, found)


def _cells(answer: Closed, table: _Table, people: People, rows: Mask) -> Iterator[Cell]:
    codes = people.codes[rows]
    _, entity = np.unique(codes, return_inverse=True)
    count = int(entity.max()) + 1 if len(entity) else 0

    def brought(each: Floats) -> Floats:
        return np.bincount(entity, weights=each, minlength=count).astype(np.float64)

    left, right, bins = table.part(rows)
    match answer.kind:
        case "count":
            yield Cell(brought(np.ones(len(codes))), (), codes)
        case "histogram" if bins is not None:
            for each in range(bins[1]):
                chosen = brought((bins[0] == each).astype(np.float64))
                yield Cell(chosen[chosen > 0], (), codes)
        case "product":
            parameters = len({*answer.columns, *answer.others})
            for i, j in product(range(left.shape[1]), range(right.shape[1])):
                values = (left[:, i], right[:, j], left[:, i] * right[:, j])
                yield Cell(brought(values[2]), values[:2], codes, parameters)
            for part in selected(table.named(answer), rows):
                inside = part[rows]
                here = brought(inside.astype(np.float64)) > 0
                yield Cell(brought(inside.astype(np.float64))[here], (), codes)
                for column in (*left.T, *right.T):
                    if len(np.unique(column)) > FEW_VALUES:
                        yield Cell(brought(column * inside)[here], (), codes)
        case "variance":
            for column in left.T:
                squares = (column - column.sum() / max(len(column), 1)) ** 2
                yield Cell(brought(squares), (column,), codes, 1)
        case _:
            for column in left.T:
                yield Cell(brought(column), (column,), codes)


def _parts(answer: Closed, table: _Table, rows: Mask) -> Iterator[Mask]:
    """The sets of rows of one group that the answer tells apart."""
    yield rows
    if table.bins is not None:
        for each in range(table.bins[1]):
            yield rows & (table.bins[0] == each)
    if answer.kind == PRODUCT:
        yield from selected(table.named(answer), rows)


def selected(columns: dict[str, Floats], rows: Mask) -> Iterator[Mask]:
    """Where a column has few values, its products with another one are the other's sums over those who have each."""
    few = {}
    for name, values in columns.items():
        distinct = np.unique(values[rows])
        if len(distinct) <= FEW_VALUES:
            few[name] = [rows & (values == each) for each in distinct]
    for (_, ours), (_, theirs) in combinations_with_replacement(sorted(few.items()), 2):
        for one, other in product(ours, theirs):
            if one is other or ours is not theirs:
                yield one & other


def _people(spec: AssetSpec) -> People:
    if spec.entities != "declared":
        return People(np.arange(spec.shape[0], dtype=np.int64), None)
    found = mapped.identifiers(spec)
    return People(mapped.codes(spec), found.view(np.uint8).reshape(len(found), found.itemsize))


def _declared(spec: AssetSpec, name: str) -> Column:
    return next(column for column in spec.columns if column.name == name)


def _columns(spec: AssetSpec, names: list[str], values: torch.Tensor | None) -> Floats:
    """float64 [n, len(names)]. `values`: as of `Rows`."""
    if not names:
        return np.zeros((spec.shape[0], 0))
    if values is None:
        return np.asarray(mapped.columns(spec, VALUES, names).numpy())
    order = [column.name for column in spec.columns]
    return np.asarray(values[:, [order.index(name) for name in names]].to(torch.float64).numpy())


def _bins(values: Floats, column: Column) -> tuple[Codes, int]:
    """The cell of each value, and how many there are. The last cell has both its ends."""
    count = cells_of(column)
    if column.edges is None:
        return values.astype(np.int64), count
    places = np.searchsorted(np.asarray(column.edges), values, side="right") - 1
    return np.clip(places, 0, count - 1).astype(np.int64), count
