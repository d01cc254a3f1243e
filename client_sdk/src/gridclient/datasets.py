"""A dataset as it is known from outside: its public metadata, and what its owner does with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from gridclient import html
from gridclient.admin import iso
from gridclient.listings import Listing
from gridclient.records import Grant
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column

if TYPE_CHECKING:
    from gridclient.node import Node
    from gridclient.publish import Publication

Bounds = tuple[float | None, float | None]


class Dataset:
    """One version of a dataset on a node. Everything here is public to who may see the dataset."""

    def __init__(self, node: Node, metadata: dict[str, Any]) -> None:
        self._node = node
        self._metadata = metadata
        self._mock: Any = None
        self.id = str(metadata["id"])
        self.name = str(metadata["slug"])
        self.title = str(metadata["name"])
        self.description = str(metadata["description"])
        self.tags: list[str] = list(metadata["tags"])
        self.version = int(metadata["version"])
        self.kind = str(metadata["kind"])
        self.shape: tuple[int, ...] = tuple(metadata["shape"])
        self.dtype = str(metadata["dtype"])
        self.schema: list[Column] = msgspec.convert(metadata["columns"], list[Column])

    @property
    def columns(self) -> list[str]:
        """Names of the columns; empty where they have none."""
        return [column.name for column in self.schema if column.name]

    @property
    def bounds(self) -> Any:
        """Declared bounds, None where there are none.

        (lows, highs) of a tensor's columns, or one (low, high) for all; {column: (low, high)} of a table.
        """
        bounded = {c.name: (c.low, c.high) for c in self.schema if c.low is not None}
        if not bounded:
            return None
        if self.kind == "table":
            return bounded
        if self.columns:
            return [c.low for c in self.schema], [c.high for c in self.schema]
        return bounded[""]

    @property
    def location(self) -> Node:
        """The node that holds it."""
        return self._node

    @property
    def missing(self) -> str | float:
        """What was declared about missing values: "refuse", "null", or the number that stands for them."""
        found: str | float = self._metadata.get("missing", "refuse")
        return found

    @property
    def rows_public(self) -> bool:
        """Whether the number of rows is public; else `shape` counts null records that hide it."""
        return bool(self._metadata.get("rows_public", False))

    @property
    def mock(self) -> Any:
        """Public rows that look alike: a tensor, or a table with the interface of `TablePointer`. Asked from the node,
        a table once."""
        if self.kind != "table":
            return self._node.mock(self)
        if self._mock is None:
            from gridclient.tables import MockTable

            self._mock = MockTable(self, self._node.mock(self))
        return self._mock

    @property
    def rights(self) -> list[str]:
        """What I may do with it: discover, compute, aggregate, train, read."""
        return list(self._metadata.get("rights", ()))

    @property
    def metadata(self) -> dict[str, Any]:
        """The public metadata as the node gives it."""
        return dict(self._metadata)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = f"on {html.plain(self._node.id)}"
        return f"<Dataset {html.plain(self.name)} version {self.version}: {self.kind} {list(self.shape)} {where}>"

    def _repr_html_(self) -> str:
        bounded = [(c.name, c.kind, c.low, c.high, c.categories) for c in self.schema]
        facts = {
            "title": html.text(self.title),
            "version": html.text(self.version),
            "kind": html.text(f"{self.kind} {self.dtype}"),
            "shape": html.text(self.shape),
            "tags": html.text(self.tags),
            "node": html.text(self._node.id),
            "rights": html.text(self.rights),
            "description": html.paragraphs(self.description),
        }
        below = html.table(("column", "kind", "low", "high", "categories"), bounded) if bounded else ""
        return html.card("Dataset", self.name, facts, below=below)

    def pointer(self) -> Any:
        """A pointer to its values: a `Pointer`, which is a torch tensor, or a `TablePointer`."""
        return self._node.pointer(self)

    def refresh(self) -> Dataset:
        """The dataset as it is now, with its newest version."""
        return self._node.dataset(self.name)

    def describe(
        self,
        description: str | None = None,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        visibility: str | None = None,
        accounts_may_compute: bool | None = None,
    ) -> Dataset:
        """Change what is public about it, and whether seeing it suffices to compute on it. What is None stays."""
        changes = {
            "description": description,
            "name": name,
            "tags": tags,
            "visibility": visibility,
            "accounts_may_compute": accounts_may_compute,
        }
        named = {key: value for key, value in changes.items() if value is not None}
        return Dataset(self._node, self._node.http.patch(self._path(), **named))

    def replace(self, values: Any, **declared: Any) -> Any:
        """Publish a new version; returns a pointer to it. Pointers to the old version keep it.

        `values`: as for `private_tensor` or `private_table` (or what one of these made), with the same arguments.
        Columns, bounds, categories, `missing`, `max_rows_per_entity`, visibility stay as they were unless given.
        """
        from gridclient.publish import replacement

        publication: Publication = replacement(self, values, declared)
        return publication.send(self._node)

    def grant(
        self,
        to: str,
        right: str,
        *,
        columns: Sequence[str] | None = None,
        expires: date | datetime | str | None = None,
        programs: Sequence[str] | None = None,
        epsilon: float | None = None,
        reason: str = "",
    ) -> Grant:
        """Give a right (discover, compute, release, aggregate, train, read) to a username or to "team:<slug>".

        `release` gives private answers with noise, automatically, within the budget of the people in the dataset.
        `epsilon`: the allowance, of that budget; None: at most 0.5 an answer, and a quarter of the budget a day.

        `aggregate` gives, exactly and to the last digit, of each version: how many records there are; the sum, mean and
        variance of each column with bounds; the product (x.T @ y) of each two of them, which is their covariance and
        every linear regression; the histogram of each column with declared edges or categories; and all of these for
        each group of each column that was declared as a partition. Checks keep single people from standing out
        (`gridclient.aggregate` names them); they do not stop somebody who is determined to combine the answers.
        `train` gives models that were trained on it, and their losses. Nothing in it hides single people: for a
        determined analyst it is as much as `read`. `programs`: the hashes of the programs that it is for, which their
        requests show; None: any.
        """
        if isinstance(columns, str):
            raise InvalidInputError("columns is a list of names, or None for all of them.")
        if isinstance(programs, str):
            raise InvalidInputError("programs is a list of hashes, or None for any program.")
        fields: dict[str, Any] = {
            "to": to,
            "right": right,
            "expires": iso(expires),
            "reason": reason,
            "epsilon": epsilon,
        }
        fields["columns"] = None if columns is None else list(columns)
        fields["programs"] = None if programs is None else list(programs)
        return Grant(self._node.http.post(self._path("grants/"), **fields))

    def grants(self, *, revoked: bool = False, once: bool = False) -> Listing[Grant]:
        """The grants on it that I may see; `revoked`: also those taken back, `once`: also those of approvals."""
        wanted = {name: 1 for name, chosen in (("revoked", revoked), ("once", once)) if chosen}
        return Grant.listed(self._node.http.pages(self._path("grants/"), **wanted))

    def revoke(self, grant: Grant | int) -> None:
        """Take a grant back."""
        self._node.http.delete(f"grants/{grant if isinstance(grant, int) else grant.id}/")

    def _path(self, below: str = "") -> str:
        return f"datasets/{quote(self.name, safe='')}/{below}"
