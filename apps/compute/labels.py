"""Labels: what may be released of a value, judged from the program and metadata only (`design/privacy.md`).

PUBLIC    constants, released answers, mock data and what is computed from these
ROWS      along `axis`, each slice depends on one row of the sequence `rows`, and on public values
AGG       a sum over rows of contributions of one row each
TAINTED   depends on private data in any other way
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from apps.compute.messages import Closed, Input

PUBLIC, ROWS, AGG, TAINTED = "public", "rows", "agg", "tainted"
MOST_NUMBERS = 256
"""Columns of one member of the closed set, or products of them: all are compared with all of earlier answers."""

Shape = tuple[int, ...]


class Source(msgspec.Struct, frozen=True):
    """The value is nothing but these declared columns of all rows of a version, unmodified.

    `axis` is where the columns lie; None where the value is one column without an axis of its own.
    """

    dataset: str
    version: int
    columns: tuple[str, ...]
    axis: int | None


class Answer(msgspec.Struct, frozen=True):
    """A member of the closed set (see `messages.Closed`) over all rows of a version, or over each group of `by`."""

    kind: str
    dataset: str
    version: int
    columns: tuple[str, ...]
    others: tuple[str, ...] = ()
    by: str = ""

    def message(self) -> Closed:
        return Closed(self.kind, self.dataset, self.version, list(self.columns), list(self.others), self.by)


class Dependence(NamedTuple):
    """Private data that a value depends on; `columns` None: all of them."""

    dataset: str
    version: int
    columns: frozenset[str] | None


class Columns(msgspec.Struct, frozen=True):
    """Along `axis`, each slice depends on one of these declared columns, and on nothing else that is private.

    `padded`: except for which rows are records, which may depend on every column. Then a choice narrows nothing.
    """

    dataset: str
    version: int
    names: tuple[str, ...]
    axis: int | None
    padded: bool = False


class Label(msgspec.Struct, frozen=True):
    """One value's label. `axis`, `rows`, `source` and `mask` belong to ROWS; `closed` to AGG, and to TAINTED where the
    closed set has what is no sum over rows.

    `rows` identifies the sequence of rows: two values pair by position only where it is equal. `mask` names the
    versions whose presence flags say which rows are records; contributions of the others are 0 after every map.
    A missing value in any column may make a row a null record, so what has a mask always depends on all columns.
    `columns`: where declared columns still lie apart.
    """

    kind: str
    inputs: frozenset[Dependence] = frozenset()
    axis: int = 0
    rows: tuple[Any, ...] | None = None
    source: Source | None = None
    mask: frozenset[tuple[str, int]] = frozenset()
    closed: Answer | None = None
    columns: Columns | None = None

    def messages(self) -> list[Input]:
        """`inputs` as the web process reads them, in a fixed order."""
        return [
            Input(found.dataset, found.version, None if found.columns is None else sorted(found.columns))
            for found in sorted(self.inputs, key=lambda found: (found.dataset, found.version))
        ]


NOTHING = Label(PUBLIC)


class Operand(NamedTuple):
    """A value among the arguments of an operation. `lineage` only where the operation's rule asks for it."""

    label: Label
    shape: Shape
    dtype: str
    lineage: str = ""


class Call(NamedTuple):
    """An operation as a rule sees it: arguments by the schema's names (defaults filled in), operands, output shapes."""

    op: str
    args: dict[str, Any]
    operands: tuple[Operand, ...]
    outputs: tuple[Shape, ...]

    def operand(self, name: str) -> Operand:
        """A tensor argument; a bare number in its place is public and 0-dimensional."""
        found = self.args[name]
        return found if isinstance(found, Operand) else Operand(NOTHING, (), "")

    def tensors(self, name: str) -> list[Operand]:
        """A list of tensors."""
        return [found for found in self.args[name] if isinstance(found, Operand)]

    def private(self) -> list[Operand]:
        """The operands that are not public."""
        return [operand for operand in self.operands if operand.label.kind != PUBLIC]


def inputs_of(operands: Iterable[Operand]) -> frozenset[Dependence]:
    """Everything private that the operands depend on, one entry a version."""
    merged: dict[tuple[str, int], frozenset[str] | None] = {}
    for operand in operands:
        for dataset, version, columns in operand.label.inputs:
            known = merged.get((dataset, version), frozenset())
            merged[dataset, version] = None if columns is None or known is None else known | columns
    return frozenset(Dependence(dataset, version, columns) for (dataset, version), columns in merged.items())


def narrowed_to(label: Label, version: tuple[str, int], columns: Iterable[str]) -> frozenset[Dependence]:
    """The label's inputs where only these columns of a version are left; all of them where it has null records."""
    if version in label.mask:
        return label.inputs
    chosen = frozenset(columns)
    return frozenset(
        found._replace(columns=chosen) if (found.dataset, found.version) == version else found for found in label.inputs
    )


def tainted(call: Call) -> Label:
    """Depends on all its operands, in a way that no rule names."""
    return Label(TAINTED, inputs_of(call.operands))


def tainted_answer(call: Call, closed: Answer | None) -> Label:
    """TAINTED, and a member of the closed set."""
    return Label(TAINTED, inputs_of(call.operands), closed=closed)


def answer(
    kind: str, source: Source | None, *, others: Source | None = None, by: Source | None = None
) -> Answer | None:
    """The member of the closed set that is made of these columns; None where there is none.

    `others` and `by` are of the same rows: that is the caller's to know.
    """
    if source is None or len(source.columns) * (len(others.columns) if others else 1) > MOST_NUMBERS:
        return None
    second = others.columns if others else ()
    if others is not None and (others.dataset, others.version) != (source.dataset, source.version):
        return None
    if by is not None and (by.dataset, by.version) != (source.dataset, source.version):
        return None
    columns = () if kind == "count" else source.columns
    return Answer(kind, source.dataset, source.version, columns, second, by.columns[0] if by else "")


def total(call: Call, closed: Answer | None = None) -> Label:
    """A sum over rows."""
    return Label(AGG, inputs_of(call.operands), closed=closed)


def by_rows(call: Call, axis: int, like: Iterable[Label], *, rows: tuple[Any, ...] | None = None) -> Label:
    """ROWS along `axis` of the output, with the row sequence of `like` or the new one `rows`; no longer a source."""
    like = list(like)
    mask = frozenset(entry for label in like for entry in label.mask)
    return Label(ROWS, inputs_of(call.operands), axis, like[0].rows if rows is None else rows, None, mask)


def aligned(operands: Sequence[Operand], shape: Shape) -> int | None:
    """The one axis of `shape` on which the entity axes of all private operands lie after broadcasting, else None.

    None also where an entity axis would be broadcast, where the sequences differ, and for labels other than ROWS.
    """
    axis: int | None = None
    rows: tuple[Any, ...] | None = None
    for label, extents, _, _ in operands:
        if label.kind == PUBLIC:
            continue
        if label.kind != ROWS:
            return None
        here = label.axis + len(shape) - len(extents)
        if not 0 <= here < len(shape) or shape[here] != extents[label.axis]:
            return None
        if axis is not None and (here != axis or label.rows != rows):
            return None
        axis, rows = here, label.rows
    return axis


def asset_label(
    dataset: str, version: int, sequence: str, rows: int, columns: Sequence[str], axis: int | None, mask: bool
) -> Label:
    """The label of a published version: rows along axis 0. `columns` empty: it has no declared columns."""
    named = frozenset(columns) if columns else None
    return Label(
        ROWS,
        frozenset([Dependence(dataset, version, named)]),
        0,
        ("asset", sequence, rows),
        Source(dataset, version, tuple(columns), axis) if columns else None,
        frozenset([(dataset, version)]) if mask else frozenset(),
        columns=Columns(dataset, version, tuple(columns), axis, mask) if columns and axis is not None else None,
    )
