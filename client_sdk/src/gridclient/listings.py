"""Lists and search results that show themselves as tables; in all else they are a plain list and a plain dict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsIndex, TypeVar, overload

from gridclient import html

T = TypeVar("T")
Columns = Mapping[str, Callable[[Any], Any]]
MOST_SHOWN = 50


class Listing(list[T]):
    """A list; `columns` says which values of an item its table shows, by header.

    `more`: it was asked for with a limit, and there are others.
    """

    def __init__(self, items: Iterable[T] = (), columns: Columns | None = None, *, more: bool = False) -> None:
        super().__init__(items)
        self.more = more
        self._columns: Columns = columns or {"item": repr}

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Listing[T]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> T | Listing[T]:
        if isinstance(index, slice):
            return Listing(super().__getitem__(index), self._columns)
        return super().__getitem__(index)

    def __repr__(self) -> str:
        if not self:
            return "[]"
        shown = self[:MOST_SHOWN].table()
        return f"{shown}\n{note}" if (note := self._note()) else shown

    def _repr_html_(self) -> str:
        if not self:
            return html.text("nothing")
        return html.table(list(self._columns), self[:MOST_SHOWN].rows(), note=self._note())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # IPython would print a list item by item

    def rows(self) -> list[list[Any]]:
        """The values of the table, row by row."""
        return [[value(item) for value in self._columns.values()] for item in self]

    def table(self) -> str:
        """All of it as a table of text."""
        return html.lines(list(self._columns), self.rows())

    def _note(self) -> str:
        if self.more:
            return f"{len(self)} of more than {len(self)}; a greater limit gives others, another term fewer"
        return f"... and {len(self) - MOST_SHOWN} more" if len(self) > MOST_SHOWN else ""


class Found(dict[str, list[T]]):
    """What a search found: lists of pointers by node id. `more`: beyond its limit there are others."""

    def __init__(self, items: Mapping[str, list[T]] | None = None, *, more: bool = False) -> None:
        super().__init__(items or {})
        self.more = more

    def __repr__(self) -> str:
        return repr(self._all()) if self else "{}"

    def _repr_html_(self) -> str:
        return self._all()._repr_html_()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def _all(self) -> Listing[tuple[str, int, T]]:
        columns: dict[str, Callable[[Any], Any]] = {"node": lambda row: row[0], "number": lambda row: row[1]}
        columns |= {name: _of(value) for name, value in POINTERS.items()}
        rows = [(node, n, item) for node, items in self.items() for n, item in enumerate(items)]
        return Listing(rows, columns, more=self.more)


def _of(value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda row: value(row[2])


POINTERS: Columns = {
    "dataset": lambda pointer: pointer.dataset,
    "shape": lambda pointer: tuple(pointer.shape),
    "columns": lambda pointer: pointer.columns,
    "tags": lambda pointer: pointer.tags,
    "description": lambda pointer: pointer.description,
}
DATASETS: Columns = {
    "name": lambda dataset: dataset.name,
    "version": lambda dataset: dataset.version,
    "kind": lambda dataset: dataset.kind,
    "shape": lambda dataset: dataset.shape,
    "tags": lambda dataset: dataset.tags,
    "rights": lambda dataset: dataset.rights,
    "description": lambda dataset: dataset.description,
}
PLANS: Columns = {
    "name": lambda plan: plan.name,
    "owner": lambda plan: plan.owner,
    "inputs": lambda plan: [f"{each.name} {each.dtype} {each.shape}" for each in plan.inputs],
    "description": lambda plan: plan.description,
}
REQUESTS: Columns = {
    "id": lambda request: request.id,
    "state": lambda request: request.state,
    "requester": lambda request: request.requester,
    "asked": lambda request: request.asked,
    "reason": lambda request: request.reason,
}
