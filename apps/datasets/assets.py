"""What a worker must know about one version of a dataset. No Django: workers import this."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gridclient.wire.messages import Column

TENSOR, TABLE = "tensor", "table"
VALUES, MOCK, ENTITIES, PRESENCE = "values", "mock", "entities", "presence"
TABLE_PRESENCE = "__presence__"
"""Column of a table's files that tells records from null records. No declared column may have this name."""
MAX_NAME, MAX_DESCRIPTION, MAX_TAGS = 200, 10_000, 32
SUFFIXES = {TENSOR: ".safetensors", TABLE: ".arrow"}


class AssetSpec(msgspec.Struct, frozen=True):
    """One version of a dataset: where its files are and what is public about it.

    `shape` is the public one: [n, ...] of a tensor, [n, columns] of a table, where n counts null records too.
    `dtype` is the torch name without its prefix; "" for tables, whose columns have their own.
    `columns` are the second axis of a 2-D tensor, the columns of a table in order, or for other tensors at most one,
    which bounds every element. `presence`: the file says which rows are records (null records are zeros).
    `sequence` names the row sequence: assets with the same one pair by position.
    """

    dataset: str
    version: int
    kind: str
    folder: str
    shape: list[int]
    dtype: str
    columns: list[Column]
    presence: bool
    rows_public: bool
    entities: str  # "rows": each row is one person; "declared": entities.arrow holds their HMACs
    max_rows_per_entity: int
    sequence: str

    def path(self, part: str = VALUES) -> Path:
        """The file of `values` (private), `mock` (public) or `entities` (32-byte HMACs; only when declared)."""
        suffix = SUFFIXES[TABLE] if part == ENTITIES else SUFFIXES[self.kind]
        return Path(self.folder) / f"{part}{suffix}"


class Ingested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `ingest` found out about an upload. `row_count`, `entity_count` and `sha256` are private, the rest public.

    `row_count`: records uploaded, null records among them, padding not. `entity_count`: entities with a record.
    `sha256` and `nbytes`: of the values file.
    """

    kind: str
    dtype: str
    shape: list[int]
    columns: list[Column]
    rows_public: bool
    row_count: int
    entities: str
    entity_count: int
    max_rows_per_entity: int
    missing: str | float
    presence: bool
    nbytes: int
    sha256: str
