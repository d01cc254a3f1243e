"""What commands have in common, and what an owner says of values that are about to be published.

Part of the schema of `gridclient.wire.messages`.
"""

from __future__ import annotations

import msgspec


class Command(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Base of all commands. On the wire: an array that begins with the kind."""


class TensorHeader(Command, frozen=True):
    """What the bytes are: torch dtype name, shape, number of bytes (little-endian, contiguous)."""

    dtype: str
    shape: list[int]
    nbytes: int


# --- client to node ---------------------------------------------------------------------------------------------


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A declared column. `kind`: "number", "category", "boolean", "date".

    Bounds are [low, high]; those of dates in days since 1970. `edges`: of the cells of its histogram, the first and
    the last at the bounds or beyond. `partition`: exact aggregates may be asked for by its categories.
    """

    name: str
    kind: str = "number"
    low: float | None = None
    high: float | None = None
    categories: list[str] | None = None
    edges: list[float] | None = None
    partition: bool = False


class PublishSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner declares about a dataset, from domain knowledge; never computed from the data.

    `kind`: "tensor" | "table". `entities`: None (each row is one person), "" (tensor: the upload's `entities`) or a
    table's column name. `missing`: "refuse", "null" or a number. `max_rows`: None (n is public) or the padded n.
    `visibility` and `accounts_may_compute`: None is "listed" and true for a new dataset, and no change for a new
    version. `replace`: slug of a dataset that gets a new version. `domain`: slug of the privacy domain whose people
    these are, None for the node's default.
    """

    kind: str
    name: str = ""
    description: str = ""
    tags: list[str] = []
    columns: list[Column] = []
    entities: str | None = None
    entities_of: str | None = None
    max_rows_per_entity: int = 1
    max_rows: int | None = None
    missing: str | float = "refuse"
    visibility: str | None = None
    accounts_may_compute: bool | None = None
    allowed_users: list[str] = []
    replace: str | None = None
    domain: str | None = None
