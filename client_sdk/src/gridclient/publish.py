"""Data owners: make values private, say what they are, send them to a node.

Bounds, categories and entities are declared from domain knowledge and never computed from the data: computed ones
would tell something about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from gridclient.datasets import Dataset
from gridclient.declare import Problems, check, table_columns, tensor_columns, with_aggregates
from gridclient.node import Node
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column, PublishSpec

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from gridclient.transfers import Buffer


@dataclass(frozen=True)
class Declared:
    """What is declared about tensors and tables alike. See `private_tensor`."""

    allowed_users: Sequence[str] = ()
    name: str | None = None
    visibility: str | None = None
    accounts_may_compute: bool | None = None
    entities_of: Any = None
    missing: str | float = "refuse"
    rows: str | None = None
    max_rows: int | None = None
    max_rows_per_entity: int = 1
    domain: Any = None

    def problems(self, length: int) -> Problems:
        """What is wrong with it for data of `length` rows."""
        found: Problems = []
        if isinstance(self.allowed_users, str) or not all(isinstance(name, str) for name in self.allowed_users):
            found.append("allowed_users: a list of usernames.")
        if self.visibility not in (None, "listed", "accounts", "granted"):
            found.append("visibility: 'listed', 'accounts' or 'granted'.")
        if isinstance(self.missing, str) and self.missing not in ("refuse", "null"):
            found.append("missing: 'refuse', 'null' or the number that stands for a missing value.")
        if self.rows not in (None, "public", "private"):
            found.append("rows: 'public', or max_rows=N for a private number of rows.")
        if self.rows == "public" and self.max_rows is not None:
            found.append("rows: either 'public' or max_rows=N, not both.")
        if self.rows == "private" and self.max_rows is None:
            found.append("rows: a private number of rows needs max_rows=N, the number up to which it is padded.")
        if self.max_rows is not None and self.max_rows < length:
            found.append("max_rows: there are more rows than that.")
        if not isinstance(self.domain, str | None):
            found.append("domain: the name of a privacy domain, or None for the node's default one.")
        if length == 0:
            found.append("values: there is no row.")
        return found


class Publication:
    """Private values that are ready to be sent. `tag`, `describe` and `send` can be chained."""

    kind = ""

    def __init__(self, declared: Declared, columns: list[Column], entities: str | None) -> None:
        self.declared = declared
        self.columns = columns
        self.entities = entities
        self.tags: list[str] = []
        self.description = ""
        self.replaces: Dataset | None = None

    def tag(self, *tags: str) -> Self:
        """Add tags, like "#births"."""
        if not all(isinstance(tag, str) and tag.strip() for tag in tags):
            raise InvalidInputError('A tag is a text, like "#births".')
        self.tags += [tag for tag in tags if tag not in self.tags]
        return self

    def describe(self, description: str) -> Self:
        """Say what the values are: whose, of when, in which units."""
        if not isinstance(description, str):
            raise InvalidInputError("A description is a text.")
        self.description = description
        return self

    def send(self, node: Node) -> Any:
        """Publish on a node; returns a pointer. Raises PublishNotPermittedError, InvalidInputError."""
        if not isinstance(node, Node):
            raise InvalidInputError("send(node) takes a node, from grid.connect(...).")
        return node.publish(self.spec(), self.values(), self.mock()).pointer()

    def spec(self) -> PublishSpec:
        """The declaration as it travels."""
        declared, old = self.declared, self.replaces
        return PublishSpec(
            kind=self.kind,
            name=declared.name or (old.title if old else ""),
            description=self.description or (old.description if old else ""),
            tags=self.tags or (old.tags if old else []),
            columns=self.columns,
            entities=self.entities,
            entities_of=_slug(declared.entities_of),
            max_rows_per_entity=declared.max_rows_per_entity,
            max_rows=declared.max_rows,
            missing=declared.missing,
            visibility=declared.visibility,
            accounts_may_compute=declared.accounts_may_compute,
            allowed_users=list(declared.allowed_users),
            replace=old.name if old else None,
            domain=declared.domain,
        )

    def values(self) -> list[Buffer]:
        """The bytes to upload."""
        raise NotImplementedError

    def mock(self) -> list[Buffer] | None:
        """The bytes of the owner's mock data; None: the node makes it from public metadata."""
        raise NotImplementedError


class PrivateTensor(Publication):
    """A tensor that is ready to be sent."""

    kind = "tensor"

    def __init__(
        self,
        values: torch.Tensor,
        mock: torch.Tensor | None,
        identifiers: torch.Tensor | None,
        declared: Declared,
        columns: list[Column],
    ) -> None:
        super().__init__(declared, columns, None if identifiers is None else "")
        self._values, self._mock, self._identifiers = values, mock, identifiers

    def __repr__(self) -> str:
        return f"<{' '.join(['PrivateTensor', str(list(self._values.shape)), str(self._values.dtype), *self.tags])}>"

    def values(self) -> list[Buffer]:
        tensors = {"values": self._values}
        if self._identifiers is not None:
            tensors["entities"] = self._identifiers
        return safetensors(tensors)

    def mock(self) -> list[Buffer] | None:
        return None if self._mock is None else safetensors({"values": self._mock})


class PrivateTable(Publication):
    """A table that is ready to be sent."""

    kind = "table"

    def __init__(
        self, table: pa.Table, mock: pa.Table | None, entities: str | None, declared: Declared, columns: list[Column]
    ) -> None:
        super().__init__(declared, columns, entities)
        self._table, self._mock = table, mock

    def __repr__(self) -> str:
        return f"<{' '.join([f'PrivateTable [{self._table.num_rows}, {len(self.columns)}]', *self.tags])}>"

    def values(self) -> list[Buffer]:
        return self._stream(self._table)

    def mock(self) -> list[Buffer] | None:
        return None if self._mock is None else self._stream(self._mock)

    def _stream(self, table: pa.Table) -> list[Buffer]:
        from gridclient.frames import stream

        return list(stream(table, [column.name for column in self.columns if column.kind == "category"]))


def private_tensor(
    values: Any,
    *,
    allowed_users: Sequence[str] = (),
    bounds: Any = None,
    entities: Any = None,
    entities_of: Any = None,
    columns: Sequence[str] | None = None,
    name: str | None = None,
    visibility: str | None = None,
    accounts_may_compute: bool | None = None,
    missing: str | float = "refuse",
    rows: str | None = None,
    max_rows: int | None = None,
    max_rows_per_entity: int = 1,
    mock: Any = None,
    edges: Mapping[str, Sequence[Any]] | None = None,
    domain: str | None = None,
) -> PrivateTensor:
    """Make a tensor private: a torch tensor or numpy array whose first axis is rows.

    allowed_users  usernames that may read every value
    bounds         (low, high) for all, or ([lows], [highs]) per column, or {column: (low, high)}
    entities       None: each row is one person; or a sequence of identifiers, one per row
    entities_of    a dataset whose rows are the same people in the same order, instead of `entities`
    columns        names of the second axis
    visibility     "listed" (the default: everybody finds it), "accounts" (of this node), "granted" (who got a grant)
    missing        "refuse", a number that stands for NaN, or "null" (the row counts as nothing)
    rows, max_rows "public"; or max_rows=N: the number of rows is private, padded to N
    mock           public look-alike values; None: made by the node from public metadata
    edges          {column: [edge, ...]}: the cells of its histogram, for who may take exact aggregates
    domain         the privacy domain whose people these are (`node.open_domain`); None: the node's default one

    Raises InvalidInputError with every problem that can be seen here.
    """
    from gridclient.values import dtype_name, local_tensor

    tensor = local_tensor(values, "values")
    dtype_name(tensor.dtype)
    if tensor.ndim == 0:
        raise InvalidInputError("values has no rows: its first axis is rows.")
    declared = Declared(
        allowed_users,
        name,
        visibility,
        accounts_may_compute,
        entities_of,
        missing,
        rows,
        max_rows,
        max_rows_per_entity,
        domain,
    )
    problems = declared.problems(tensor.shape[0])
    found = with_aggregates(tensor_columns(tensor.shape, columns, bounds, problems), edges, (), problems)
    identifiers = None if entities is None else _identifiers(entities, tensor.shape[0], problems)
    public = None if mock is None else local_tensor(mock, "mock")
    if public is not None and (
        public.shape[1:] != tensor.shape[1:] or public.dtype != tensor.dtype or public.ndim == 0
    ):
        problems.append("mock: rows of the same shape and dtype as the values.")
    _check_people(entities, entities_of, problems)
    check(problems)
    return PrivateTensor(tensor, public, identifiers, declared, found)


def private_table(
    table: Any,
    *,
    allowed_users: Sequence[str] = (),
    bounds: Mapping[str, Any] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None,
    entities: str | None = None,
    entities_of: Any = None,
    columns: Sequence[str] | None = None,
    name: str | None = None,
    visibility: str | None = None,
    accounts_may_compute: bool | None = None,
    missing: str | float = "refuse",
    rows: str | None = None,
    max_rows: int | None = None,
    max_rows_per_entity: int = 1,
    mock: Any = None,
    edges: Mapping[str, Sequence[Any]] | None = None,
    partitions: Sequence[str] = (),
    domain: str | None = None,
) -> PrivateTable:
    """Make a table private: a CSV or Parquet path, or a pandas, polars or Arrow table.

    bounds      {column: (low, high)}; dates as dates or ISO texts
    categories  {column: [every value that may occur]}, for columns of text
    entities    the column that identifies people; it is hashed on the node and no column of the dataset
    columns     the columns to publish, in order; None: all
    mock        a table with the same columns; None: made by the node from public metadata
    edges       {column: [edge, ...]}: the cells of its histogram, for who may take exact aggregates
    partitions  columns of categories or of true and false by which exact aggregates may be asked for, group by group

    The others are as for `private_tensor`. Raises InvalidInputError with every problem that can be seen here.
    """
    from gridclient.frames import arrow_table

    source = arrow_table(table)
    problems: Problems = []
    if columns is not None:
        missing_names = [column for column in columns if column not in source.column_names]
        problems += [f"columns: the table has no column {column!r}." for column in missing_names]
        kept = [column for column in columns if column not in missing_names]
        source = source.select(
            [*kept, *([entities] if entities in source.column_names and entities not in kept else [])]
        )
    declared = Declared(
        allowed_users,
        name,
        visibility,
        accounts_may_compute,
        entities_of,
        missing,
        rows,
        max_rows,
        max_rows_per_entity,
        domain,
    )
    problems += declared.problems(source.num_rows)
    found = table_columns(source.schema, bounds, categories, entities, problems)
    found = with_aggregates(found, edges, partitions, problems)
    public = None
    if mock is not None:
        public = arrow_table(mock, "mock")
        absent = [column.name for column in found if column.name not in public.column_names]
        problems += [f"mock: it has no column {column!r}." for column in absent]
        if not absent:
            public = public.select([column.name for column in found])
    _check_people(entities, entities_of, problems)
    check(problems)
    return PrivateTable(source, public, entities, declared, found)


def replacement(dataset: Dataset, values: Any, declared: Mapping[str, Any]) -> Publication:
    """The publication of a new version of a dataset, with what was declared about it unless declared anew."""
    if isinstance(values, Publication):
        if declared:
            raise InvalidInputError("What private_tensor(...) or private_table(...) made is declared already.")
        publication = values
    else:
        known = dataset.metadata
        if known["entities"] == "declared" and declared.get("entities") is None and declared.get("entities_of") is None:
            raise InvalidInputError("entities: this dataset says who each row is; say it for the new rows too.")
        kept: dict[str, Any] = {
            "missing": known["missing"],
            "max_rows_per_entity": known["max_rows_per_entity"],
            "max_rows": None if known["rows_public"] else dataset.shape[0],
            "edges": {c.name: c.edges for c in dataset.schema if c.edges is not None},
        }
        if dataset.kind == "table":
            kept["bounds"] = dataset.bounds
            kept["categories"] = {c.name: c.categories for c in dataset.schema if c.categories is not None}
            kept["columns"] = dataset.columns
            kept["partitions"] = [c.name for c in dataset.schema if c.partition]
            publication = private_table(values, **{**kept, **declared})
        else:
            kept["columns"] = dataset.columns or None
            named = {c.name: (c.low, c.high) for c in dataset.schema if c.low is not None}
            kept["bounds"] = (named if dataset.columns else named[""]) if named else None
            publication = private_tensor(values, **{**kept, **declared})
    if publication.kind != dataset.kind:
        raise InvalidInputError(f"{dataset.name} is a {dataset.kind}; its new version must be one too.")
    publication.replaces = dataset
    return publication


def safetensors(tensors: Mapping[str, torch.Tensor]) -> list[Buffer]:
    """The tensors in safetensors format, without a copy: a header, then the bytes of each."""
    from gridclient.values import SAFETENSORS, bytes_of, header_of

    entries, end = {}, 0
    for name, tensor in tensors.items():
        header = header_of(tensor)
        first, end = end, end + header.nbytes
        entries[name] = {"dtype": SAFETENSORS[header.dtype], "shape": header.shape, "data_offsets": [first, end]}
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the bytes begin aligned, so that they can be mapped
    return [len(head).to_bytes(8, "little") + head, *(bytes_of(tensor) for tensor in tensors.values())]


def _identifiers(entities: Any, length: int, problems: Problems) -> torch.Tensor | None:
    """Identifiers as int64 [n], or as UTF-8 in uint8 [n, width]."""
    import numpy as np
    import torch

    listed = entities.tolist() if hasattr(entities, "tolist") else None if isinstance(entities, str) else list(entities)
    if listed is None or len(listed) != length:
        problems.append("entities: a sequence of identifiers, one for each row.")
        return None
    if all(type(entity) is int and -(2**63) <= entity < 2**63 for entity in listed):
        return torch.tensor(listed, dtype=torch.int64)
    if not all(isinstance(entity, (str, int)) and str(entity) for entity in listed):
        problems.append("entities: every identifier is a text or a whole number.")
        return None
    texts = [str(entity).encode() for entity in listed]
    width = max(map(len, texts), default=1)
    padded = bytearray(b"".join(text.ljust(width, b"\0") for text in texts))
    return torch.from_numpy(np.frombuffer(padded, dtype=np.uint8).reshape(length, width))


def _check_people(entities: Any, entities_of: Any, problems: Problems) -> None:
    if entities is not None and entities_of is not None:
        problems.append("entities: with entities_of the other dataset says who each row is; leave one of the two out.")


def _slug(dataset: Any) -> str | None:
    """The name of a dataset, or of the one that a pointer shows."""
    if dataset is None or isinstance(dataset, str):
        return dataset
    name = dataset.name if isinstance(dataset, Dataset) else getattr(dataset, "dataset", None)
    if not isinstance(name, str) or not name or "," in name:
        raise InvalidInputError("entities_of is a dataset, its name, or a pointer to it.")
    return name
