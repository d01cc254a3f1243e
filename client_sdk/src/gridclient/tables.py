"""A table on a node: columns are pointers that torch computes with, the table itself is Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from gridclient.datasets import Dataset
    from gridclient.node import Node
    from gridclient.recorder import Pointer, Recorder
    from gridclient.requests import DataRequest

_DTYPES = {"number": torch.float64, "date": torch.float64, "category": torch.int64, "boolean": torch.bool}


class TablePointer:
    """`t["c"]` is float64 [n] (numbers; dates as days since 1970), int64 codes in declared order, or bool."""

    def __init__(self, recorder: Recorder, dataset: Dataset) -> None:
        self._recorder = recorder
        self._table = recorder.input_table(dataset.id, dataset.version, info=dataset)
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
    def description(self) -> str:
        return self._dataset.description

    @property
    def tags(self) -> list[str]:
        return self._dataset.tags

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows (padded where their number is private) and columns."""
        return self._dataset.shape

    @property
    def location(self) -> Node:
        """The node that holds it."""
        return self._dataset.location

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self._dataset.name

    @property
    def mock(self) -> pa.Table:
        """Public rows that look alike."""
        return self._dataset.mock

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<TablePointer {self._dataset.name} {list(self.shape)} on {self.location.id}>"

    def __getitem__(self, names: str | Sequence[str]) -> Pointer:
        """A column [n]; or, for a list of names, columns as float64 [n, len(names)]."""
        if isinstance(names, str):
            kind = self._column(names).kind
            return self._recorder.table_column(self._table, names, (len(self),), _DTYPES[kind])
        wanted = [self._column(name).name for name in names] if isinstance(names, (list, tuple)) else []
        if not wanted:
            raise InvalidInputError('Choose a column with t["name"], or several with t[["a", "b"]].')
        return self._recorder.table_column(self._table, wanted, (len(self), len(wanted)), torch.float64)

    def __iter__(self) -> Any:
        raise InvalidInputError("A table is not iterated: use t.columns, or t[name].")

    def count(self) -> Pointer:
        """How many records there are, as a pointer: int64 []."""
        return self._recorder.count(self._table)

    def get(self) -> pa.Table:
        """The whole table. Raises GetNotPermittedError with `.request(reason=...)`."""
        return self.location.get(self._table.ref, self)

    def request(self, reason: str) -> DataRequest:
        """Ask the people who decide on this table for all of it."""
        return self.location.request(self._table.ref, reason, self)

    def _column(self, name: object) -> Column:
        for column in self._dataset.schema:
            if column.name == name:
                return column
        raise InvalidInputError(f"There is no column {name!r}; there are {', '.join(map(repr, self.columns))}.")
