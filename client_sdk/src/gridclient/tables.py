"""A table on a node, and its mock data here: code written on the mock runs on the pointer. There is more on tensors
here than on pointers (`tolist`, `item`), and `get` only on pointers: `grid.get(value)` takes the values of either.

`t["c"]` is one column as a tensor [n], by its declared kind:

    number    float64
    date      float64: days since 1970-01-01, the time of day as a fraction (`grid.days`, `grid.date_of`)
    category  int64: the position in `t.categories["c"]`, which is the declared order
    boolean   bool

Missing values follow what the owner declared (`t.missing`): "refuse" (there are none), a number that stands for them,
or "null" (such a row is no record: 0 in every column, and left out of `t.count()`, sums and means on the node).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from gridclient import html
from gridclient.calendar import date_of
from gridclient.listings import Listing
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from gridclient.datasets import Dataset
    from gridclient.node import Node
    from gridclient.questions import ColumnQuestions, Groups, TableQuestions
    from gridclient.recorder import Pointer, Recorder
    from gridclient.requests import DataRequest

T = TypeVar("T", bound=torch.Tensor)
_DTYPES = {"number": torch.float64, "date": torch.float64, "category": torch.int64, "boolean": torch.bool}
_DESCRIBED = ("column", "kind", "dtype", "low", "high", "categories", "missing")


class Table(ABC, Generic[T]):
    """What is public about a table, and how its columns are chosen."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return self._dataset.columns

    @property
    def schema(self) -> list[Column]:
        """Kinds, bounds and categories of the columns."""
        return list(self._dataset.schema)

    @property
    def bounds(self) -> Any:
        """{column: (low, high)} of the columns with declared bounds; None when there are none."""
        return self._dataset.bounds

    @property
    def categories(self) -> dict[str, list[str]]:
        """{column: its categories}: the position in the list is the number that the column holds."""
        return {column.name: list(column.categories) for column in self.schema if column.categories is not None}

    @property
    def missing(self) -> str | float:
        """What was declared about missing values: "refuse", "null", or the number that stands for them."""
        return self._dataset.missing

    @property
    def description(self) -> str:
        return self._dataset.description

    @property
    def tags(self) -> list[str]:
        return self._dataset.tags

    @property
    def location(self) -> Node:
        """The node that holds it."""
        return self._dataset.location

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self._dataset.name

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def describe(self) -> Listing[dict[str, Any]]:
        """What is public about each column, as a table: kind, dtype, bounds (dates as dates), categories, missing."""
        rows = [_described(column, self.missing) for column in self.schema]
        return Listing(rows, {name: lambda row, name=name: row[name] for name in _DESCRIBED})  # type: ignore[misc]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {html.plain(self.dataset)} {list(self.shape)} {self._where()}>"

    def _repr_html_(self) -> str:
        facts = {
            "rows": html.text(self._where()),
            "shape": html.text(self.shape),
            "tags": html.text(self.tags),
            "description": html.paragraphs(self.description),
        }
        return html.card(type(self).__name__, self.dataset, facts, below=self.describe()._repr_html_())

    def _ipython_key_completions_(self) -> list[str]:
        return self.columns

    def __contains__(self, name: object) -> bool:
        """Whether there is a column of this name."""
        return isinstance(name, str) and name in self.columns

    def __getitem__(self, names: str | Sequence[str]) -> T:
        """A column [n]; or, for a list of names, columns as float64 [n, len(names)]."""
        if isinstance(names, str):
            column = self._column(names)
            return self._one(column, _DTYPES[column.kind])
        if isinstance(names, (torch.Tensor, int, slice)):
            raise InvalidInputError(
                "Rows of a table are not chosen: how many are left would tell about them. Compute with the mask "
                'itself: (t["x"] * mask).sum() / mask.sum(), or torch.where(mask, t["x"], 0.0).'
            )
        wanted = [self._column(name) for name in names] if isinstance(names, (list, tuple)) else []
        if not wanted:
            raise InvalidInputError('Choose a column with t["name"], or several with t[["a", "b"]].')
        return self._several(wanted)

    def __iter__(self) -> Any:
        raise InvalidInputError("A table is not iterated: use t.columns, or t[name].")

    def _column(self, name: object) -> Column:
        for column in self._dataset.schema:
            if column.name == name:
                return column
        raise InvalidInputError(f"There is no column {name!r}; there are {', '.join(map(repr, self.columns))}.")

    def _where(self) -> str:
        """Where the rows are."""
        return f"on {html.plain(self.location.id)}"

    @abstractmethod
    def _one(self, column: Column, dtype: torch.dtype) -> T:
        """A column [n]."""

    @abstractmethod
    def _several(self, columns: Sequence[Column]) -> T:
        """Columns as float64 [n, len(columns)]."""


class TablePointer(Table["Pointer"]):
    """A table on a node: its columns are pointers, `get` gives all of it as Arrow where that is permitted."""

    def __init__(self, recorder: Recorder, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._recorder = recorder
        self._table = recorder.input_table(dataset.id, dataset.version, info=dataset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows (padded where their number is private) and columns."""
        return self._dataset.shape

    @property
    def mock(self) -> MockTable:
        """Public rows that look alike, with the same interface."""
        found: MockTable = self._dataset.mock
        return found

    @property
    def counted(self) -> bool:
        """Whether the number of records is public: all rows are records."""
        return self._dataset.rows_public and self.missing != "null"

    @property
    def dp(self) -> TableQuestions:
        """Questions about several columns, answered privately: `covariance`, `regression`."""
        from gridclient.questions import TableQuestions

        return TableQuestions(self)

    def group_by(self, name: str) -> Groups:
        """The records by the declared categories of a column: `t.group_by("smoke").mean("weight").get(epsilon=0.2)`."""
        from gridclient.questions import Groups

        return Groups(self, name)

    def declared(self, name: str) -> Column:
        """What was declared of a column. Raises InvalidInputError where there is none of the name."""
        return self._column(name)

    def codes(self, name: str) -> tuple[Pointer, int]:
        """A column of categories (or false and true) as numbers from 0, and how many categories there are."""
        column = self._column(name)
        if column.kind == "boolean":
            return self[name].to(torch.int64), 2  # type: ignore[return-value]
        if column.categories is None:
            raise InvalidInputError(
                f"{name!r} has no declared categories; group numbers with t[{name!r}].dp.histogram(edges)."
            )
        return self[name], len(column.categories)

    def count(self) -> Pointer:
        """How many records there are, as a pointer: int64 []."""
        return self._recorder.count(self._table)

    def get(self) -> pa.Table:
        """The whole table: categories as dictionaries of their texts, dates as date32 (timestamps where there is a
        time of day), null records as nulls. Raises GetNotPermittedError with `.request(reason=...)`."""
        return self.location.get(self._table.ref, self)

    def request(self, reason: str) -> DataRequest:
        """Ask the people who decide on this table for all of it."""
        return self.location.request(self._table.ref, reason, self)

    def _one(self, column: Column, dtype: torch.dtype) -> Pointer:
        pointer = self._recorder.table_column(self._table, column.name, (len(self),), dtype)
        pointer._questions = partial(_questions, self, column)
        return pointer

    def _several(self, columns: Sequence[Column]) -> Pointer:
        names = [column.name for column in columns]
        return self._recorder.table_column(self._table, names, (len(self), len(names)), torch.float64)


class MockTable(Table[torch.Tensor]):
    """Public rows that look like those of a table, here: columns are local tensors."""

    def __init__(self, dataset: Dataset, rows: pa.Table) -> None:
        super().__init__(dataset)
        self._rows = rows

    def __repr__(self) -> str:
        return f"<MockTable {list(self.shape)}: mock of {html.plain(self.dataset)}, {self._where()}>"

    def _where(self) -> str:
        return "here"

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of the mock data (usually fewer than the table has) and columns."""
        return self._rows.num_rows, self._rows.num_columns

    @property
    def mock(self) -> MockTable:
        """Itself."""
        return self

    def count(self) -> torch.Tensor:
        """How many records there are: int64 []."""
        first = self._rows.column(0)
        return torch.tensor(len(first) - first.null_count)

    def get(self) -> pa.Table:
        """The rows as Arrow, as the pointer's `get` gives them."""
        return self._rows

    def _one(self, column: Column, dtype: torch.dtype) -> torch.Tensor:
        from gridclient.frames import numbers

        return torch.from_numpy(numbers(self._rows.column(column.name), column)).to(dtype)

    def _several(self, columns: Sequence[Column]) -> torch.Tensor:
        return torch.stack([self._one(column, torch.float64) for column in columns], dim=1)


def _questions(table: TablePointer, column: Column) -> ColumnQuestions:
    from gridclient.questions import ColumnQuestions

    return ColumnQuestions(table, column)


def _described(column: Column, missing: str | float) -> dict[str, Any]:
    low: Any = column.low
    high: Any = column.high
    if column.kind == "date" and low is not None and high is not None:
        low, high = _date(low), _date(high)
    if missing == "refuse":
        rule = "none"
    elif missing == "null":
        rule = "the row is no record"
    else:
        # Of categories and booleans no number could stand for a missing one.
        rule = f"{missing:g} stands for it" if column.kind in ("number", "date") else "none"
    values = (column.name, column.kind, str(_DTYPES[column.kind]), low, high, column.categories, rule)
    return dict(zip(_DESCRIBED, values, strict=True))


def _date(number: float) -> Any:
    """The date where there is one: bounds may lie beyond the calendar."""
    try:
        return date_of(number)
    except InvalidInputError:
        return number
