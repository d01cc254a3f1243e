"""Exact aggregates of a dataset: what an `aggregate` grant answers without anybody's approval, if its checks allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import Pointer, pointer_to
from gridclient.recorder.spec import Spec
from gridclient.tables import TablePointer
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column

if TYPE_CHECKING:
    from gridclient.recorder.tape import Value

KINDS = ("count", "sum", "mean", "variance", "histogram", "product")


def aggregate(
    data: TablePointer | Pointer,
    kind: str,
    columns: str | Sequence[str] | None = None,
    *,
    others: str | Sequence[str] | None = None,
    by: str | None = None,
) -> Pointer:
    """An exact aggregate of whole columns of a dataset, as a pointer; `.get()` takes it.

    data     the pointer to a dataset: a table, or a tensor with named columns
    kind     "count", "sum", "mean", "variance" (divided by n - 1), "histogram" (of one column, over its categories,
             true and false, or the edges that its owner declared) or "product" (x.T @ y)
    columns  a name, or a list of names; None: all
    others   of a product: the columns of the second factor
    by       a column that its owner declared as a partition: one result for each of its groups, along the first axis

    This set is all that an `aggregate` grant gives: who holds it can ask for every number of it, of each version. The
    node answers where its checks allow it: at least 10 people behind each number and none who is most of it, no few
    people apart from a value that the others share, ten degrees of freedom, and no few people between it and any
    answer that was given before. Else the value takes the queue, `.request(reason=...)`; which check it was is for the
    owner to know. Null records are left out. Raises InvalidInputError.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"kind is one of {', '.join(KINDS)}.")
    if (others is not None) != (kind == "product"):
        raise InvalidInputError("others: a product takes the columns of a second factor, the other kinds none.")
    schema = _schema(data)
    value, shape = _chosen(data, schema, columns)
    if by is not None and not schema[_place(schema, by)].partition:
        raise InvalidInputError(f"by: the owner did not declare {by!r} as a partition.")
    groups = () if by is None else (_cells(schema[_place(schema, by)]),)
    if kind == "histogram":
        if not isinstance(columns, str) or not _cells(schema[_place(schema, columns)]):
            raise InvalidInputError(
                "columns: a histogram is of one column, with declared edges, categories, or true and false."
            )
        shape = (_cells(schema[_place(schema, columns)]),)
    second, extents = (None, ()) if others is None else _chosen(data, schema, others)
    extents = () if kind == "count" else (*shape, *extents)
    dtype = torch.int64 if kind in ("count", "histogram") else torch.float64
    spec = Spec.dense((*groups, *extents), dtype)
    partition = None if by is None else _chosen(data, schema, by)[0]
    return pointer_to(Cell(value.tape.aggregate(value, kind, spec, second, partition)))


def _schema(data: TablePointer | Pointer) -> list[Column]:
    """The declared columns. Raises InvalidInputError for what has none."""
    found = data.schema if isinstance(data, TablePointer) else getattr(getattr(data, "_info", None), "schema", None)
    if not found:
        raise InvalidInputError("An aggregate is of a dataset with declared columns: give the pointer to the dataset.")
    return list(found)


def _chosen(
    data: TablePointer | Pointer, schema: list[Column], columns: str | Sequence[str] | None
) -> tuple[Value, tuple[int, ...]]:
    """Columns of a dataset, and the extents that they add to a result."""
    if columns is None:
        columns = [column.name for column in schema]
    places = _place(schema, columns) if isinstance(columns, str) else [_place(schema, name) for name in columns]
    found: Any
    if isinstance(data, TablePointer):
        found = data[columns]
    elif data.dim() == 1:
        found = data
    else:
        found = data[:, places] if isinstance(places, int) else _neighbours(data, places)
    shape = () if isinstance(places, int) or found.dim() == 1 else (len(places),)
    return found._place.current(), shape


def _neighbours(data: Pointer, places: list[int]) -> Any:
    """Columns of a tensor: a slice of it, which is what a node still knows as declared columns."""
    steps = {later - former for former, later in pairwise(places)} or {1}
    step = min(steps)
    if len(steps) > 1 or step < 1:
        raise InvalidInputError("columns: of a tensor, columns in their order and equally far apart.")
    return data[:, places[0] : places[-1] + 1 : step]


def _place(schema: list[Column], name: str) -> int:
    for place, column in enumerate(schema):
        if column.name == name:
            return place
    raise InvalidInputError(f"There is no column {name!r}; there are {', '.join(repr(c.name) for c in schema)}.")


def _cells(column: Column) -> int:
    """Cells of its histogram; 0: none was declared."""
    if column.kind == "boolean":
        return 2
    return len(column.categories) if column.categories is not None else max(0, len(column.edges or []) - 1)
