"""What `grid::aggregate` gives: checked against what the owner declared, from metadata alone. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from apps.compute.labels import ROWS, Operand, Shape, answer
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import AGGREGATE
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column

COUNT, SUM, MEAN, VARIANCE, HISTOGRAM, PRODUCT = "count", "sum", "mean", "variance", "histogram", "product"
KINDS = (COUNT, SUM, MEAN, VARIANCE, HISTOGRAM, PRODUCT)


def cells_of(column: Column) -> int:
    """How many cells the histogram of a column has, or groups its partition; 0: the owner declared none."""
    if column.kind == "boolean":
        return 2
    if column.categories is not None:
        return len(column.categories)
    return max(0, len(column.edges or []) - 1)


def shape(
    bound: dict[str, Any], tables: Sequence[AssetSpec], spec: Callable[[str, int], AssetSpec]
) -> tuple[Shape, str]:
    """Shape and dtype of the result: [groups] then what the kind has, without an axis for a column that has none.

    Raises InvalidInputError for what is no member of the closed set.
    """
    kind = bound["kind"]
    if kind not in KINDS:
        _refuse(f"kind is one of {', '.join(KINDS)}.")
    value, other, by = (bound[name] for name in ("self", "other", "by"))
    given = [operand for operand in (value, other, by) if isinstance(operand, Operand)]
    labels = [operand.label for operand in given]
    if tables or any(label.kind != ROWS or label.source is None for label in labels):
        _refuse("it takes whole declared columns of a dataset, with nothing computed on them.")
    if len({(label.rows, label.source.dataset, label.source.version) for label in labels if label.source}) != 1:
        _refuse("all columns are of one version of one dataset.")
    if (other is not None) != (kind == PRODUCT):
        _refuse("a product takes a second operand, the others none.")
    source = value.label.source
    if answer(kind, source, others=None if other is None else other.label.source) is None:
        _refuse("these are too many numbers for one answer; ask for them in parts.")
    declared = {column.name: column for column in spec(source.dataset, source.version).columns}
    groups: Shape = ()
    if by is not None:
        column = declared[by.label.source.columns[0]]
        if len(by.label.source.columns) != 1 or not column.partition:
            _refuse("'by' is a column that the owner declared as a partition.")
        groups = (cells_of(column),)
    if kind == COUNT:
        return groups, "int64"
    if kind == HISTOGRAM:
        cells = cells_of(declared[source.columns[0]])
        if len(source.columns) != 1 or not cells:
            _refuse("a histogram is of one column, with edges that the owner declared, categories, or true and false.")
        return (*groups, cells), "int64"
    extents = [_width(operand) for operand in (value, other) if operand is not None]
    return (*groups, *(extent for extent in extents if extent)), "float64"


def _width(operand: Operand) -> int:
    """Columns of an operand; 0 for one column without an axis of its own."""
    source = operand.label.source
    return 0 if source is None or source.axis is None else len(source.columns)


def _refuse(what: str) -> None:
    raise InvalidInputError(f"{AGGREGATE}: {what}", operation=AGGREGATE)
