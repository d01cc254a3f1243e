"""A table, from an Arrow IPC stream to the files of a version.

Numbers and dates (days since 1970-01-01) become float64, categories int64 codes in declared order, booleans stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apps.datasets.assets import MOCK, SUFFIXES, TABLE, TABLE_PRESENCE, VALUES, Ingested
from apps.datasets.ingest import mocks
from apps.datasets.ingest.arrow import is_text, read_table
from apps.datasets.ingest.declared import BOOLEAN, CATEGORY, DATE, NUMBER, has_presence, published_columns, subject
from apps.datasets.ingest.entities import Entities
from apps.datasets.ingest.files import write_arrow
from apps.datasets.ingest.limits import IngestLimits, Problems
from apps.datasets.ingest.rules import Array, Rules
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column, PublishSpec

DTYPES = {CATEGORY: "int64", BOOLEAN: "bool"}
EXACT = 2.0**53
BLOCK = 8 * 2**20
MOCK_DATA = "mock data: "
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def ingest_table(
    spec: PublishSpec,
    values: Path,
    mock: Path | None,
    key: bytes,
    out: Path,
    limits: IngestLimits,
    problems: Problems,
) -> Ingested:
    """Check and write a table; problems are added, not raised. Raises InvalidInputError for a file it cannot read."""
    columns: Sequence[Column] = published_columns(spec)
    table = read_table(values, limits.bytes)
    n = table.num_rows
    rows = n if spec.max_rows is None else max(spec.max_rows, n)
    if n == 0:
        raise InvalidInputError("The table has no rows.")
    if spec.max_rows is not None and n > spec.max_rows:
        problems.add("max_rows: the upload has more rows.")
    if rows > limits.rows or rows * 8 * len(columns) > limits.bytes:
        raise InvalidInputError("max_rows: a table of so many rows and columns passes the limit of this node.")
    columns = _found(table, columns, spec.entities, problems)
    if not columns:
        raise InvalidInputError("columns: the table has none of those that are declared.")
    arrays, present = _checked(table, columns, spec.missing, problems)
    nbytes, sha256 = _write(out / f"{VALUES}{SUFFIXES[TABLE]}", columns, arrays, present, rows, has_presence(spec))
    entities = _entities(table, spec, key, limits, problems)
    if entities is not None:
        entities.write(out, rows)
    _mock(spec, columns, [array[present] for array in arrays], rows, mock, out, limits, problems)
    return Ingested(
        kind=TABLE,
        dtype="",
        shape=[rows, len(columns)],
        columns=list(columns),
        rows_public=spec.max_rows is None,
        row_count=n,
        entities="rows" if entities is None else "declared",
        entity_count=int(present.sum()) if entities is None else entities.count(present),
        max_rows_per_entity=1 if entities is None else spec.max_rows_per_entity,
        missing=spec.missing,
        presence=has_presence(spec),
        nbytes=nbytes,
        sha256=sha256,
    )


def _found(
    table: pa.Table, columns: Sequence[Column], identifiers: str | None, problems: Problems, *, of: str = ""
) -> list[Column]:
    """The declared columns that the table has once; what is absent, twice or undeclared becomes a problem."""
    # The upload's own names stay out of the texts: in a table that was turned round they are values.
    present, names = table.column_names, [column.name for column in columns]
    if identifiers is not None:
        names.append(identifiers)
    for name in names:
        if name not in present:
            problems.add(f"{of}{subject(name)}: it is declared and not in the table.")
    if set(present) - set(names):
        problems.add(f"{of}columns: the table has columns that are not declared.")
    if len(set(present)) != len(present):
        problems.add(f"{of}columns: the table has two columns of one name.")
    return [column for column in columns if present.count(column.name) == 1]


def _checked(
    table: pa.Table, columns: Sequence[Column], missing: str | float, problems: Problems, *, of: str = ""
) -> tuple[list[Array], Array]:
    """The columns as arrays [n], checked and with missing values treated; and which rows are records, bool [n]."""
    read = [_read(table[column.name], column, problems, of) for column in columns]
    lost = np.stack([gone for _, gone in read], axis=1)
    nulls: Array = np.asarray(lost.any(axis=1)) if missing == "null" else np.zeros(table.num_rows, dtype=bool)
    arrays = []
    for (numbers, gone), column in zip(read, columns, strict=True):
        rules = Rules([column], 1, DTYPES.get(column.kind, "float64"), missing, of=of)
        arrays.append(rules.apply(numbers[:, None], gone[:, None], nulls)[:, 0])
        rules.report(problems)
    return arrays, ~nulls


def _read(values: pa.ChunkedArray, column: Column, problems: Problems, of: str) -> tuple[Array, Array]:
    """A column as its stored numbers [n], and which are missing, bool [n] (their number is 0)."""
    where = f"{of}{subject(column.name)}"
    kind = values.type
    dtype = DTYPES.get(column.kind, "float64")
    nothing: Array = np.zeros(len(values), dtype=dtype)
    if column.kind == CATEGORY and (pa.types.is_dictionary(kind) or is_text(kind) or pa.types.is_integer(kind)):
        codes, gone = _codes(values, column.categories or [])
        if (codes < 0).any():
            problems.add(f"{where}: values that are none of the declared categories.")
        return np.maximum(codes, 0), gone
    if column.kind == BOOLEAN and pa.types.is_boolean(kind):
        return _numpy(values, False), _numpy(pc.is_null(values), False)
    if column.kind == DATE and (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        unit = "ms" if pa.types.is_date64(kind) else getattr(kind, "unit", None)
        whole = values.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
        days = _numpy(whole, 0).astype(np.float64) / (1 if unit is None else PER_DAY[unit])
        return days, _numpy(pc.is_null(values), False)
    if column.kind == NUMBER and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        numbers = _numpy(values.cast(pa.float64(), safe=False), np.nan)
        if pa.types.is_integer(kind) and (np.abs(numbers) >= EXACT).any():
            problems.add(
                f"{where}: whole numbers of 2**53 and beyond cannot be kept exactly; declare a category, or scale them."
            )
        gone = np.isnan(numbers)
        return np.where(gone, 0.0, numbers), gone
    problems.add(f"{where}: its values are not of the declared kind, {column.kind!r}.")
    return nothing, np.zeros(len(values), dtype=bool)


def _numpy(values: pa.ChunkedArray, missing: Any) -> Array:
    return np.asarray(pc.fill_null(values, missing).to_numpy())


def _codes(values: pa.ChunkedArray, categories: Sequence[str]) -> tuple[Array, Array]:
    """Codes in declared order, -1 for what is not declared; and which are missing."""
    known = pa.array(categories, pa.string())
    codes: list[Array] = [np.empty(0, np.int64)]
    gone: list[Array] = [np.empty(0, bool)]
    for chunk in values.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            # The dictionary is looked up, never unfolded: a long text repeated often would fill the memory.
            words, places = chunk.dictionary.cast(pa.large_string()), chunk.indices
        else:
            words, places = chunk.cast(pa.large_string()), None
        found = pc.fill_null(pc.index_in(words, known.cast(pa.large_string())).cast(pa.int64()), -1)
        absent = pc.is_null(words)
        if places is not None:
            found = pc.fill_null(found.take(places), 0)
            absent = pc.or_(pc.is_null(places), pc.fill_null(absent.take(places), True))
        lost = absent.to_numpy(zero_copy_only=False)
        codes.append(np.where(lost, 0, found.to_numpy(zero_copy_only=False)))
        gone.append(lost)
    return np.concatenate(codes), np.concatenate(gone)


def _write(
    path: Path, columns: Sequence[Column], arrays: Sequence[Array], present: Array, rows: int, presence: bool
) -> tuple[int, str]:
    """Write the columns [n] padded to `rows`; returns the file's size and sha256."""
    named = [(column.name, _padded(array, rows)) for column, array in zip(columns, arrays, strict=True)]
    if presence:
        named.append((TABLE_PRESENCE, _padded(present, rows)))
    return write_arrow(path, named)


def _padded(array: Array, rows: int) -> pa.Array:
    return pa.array(np.concatenate([array, np.zeros(rows - len(array), dtype=array.dtype)]))


def _entities(
    table: pa.Table, spec: PublishSpec, key: bytes, limits: IngestLimits, problems: Problems
) -> Entities | None:
    if spec.entities is None or table.column_names.count(spec.entities) != 1:
        return None
    entities = Entities(key, limits)
    for chunk in table[spec.entities].chunks:
        places = None
        if isinstance(chunk, pa.DictionaryArray):
            places, chunk = chunk.indices, chunk.dictionary
        if not is_text(chunk.type) and not pa.types.is_integer(chunk.type):
            problems.add("entities: identifiers are texts or whole numbers.")
            return None
        words = chunk.to_pylist()
        entities.extend(words if places is None else (None if at is None else words[at] for at in places.to_pylist()))
    entities.check(spec.max_rows_per_entity, problems)
    return entities


def _mock(
    spec: PublishSpec,
    columns: Sequence[Column],
    private: Sequence[Array],
    public_rows: int,
    mock: Path | None,
    out: Path,
    limits: IngestLimits,
    problems: Problems,
) -> None:
    path = out / f"{MOCK}{SUFFIXES[TABLE]}"
    dtypes = [DTYPES.get(column.kind, "float64") for column in columns]
    if mock is None:
        n = mocks.made_rows(public_rows, 8 * len(columns), limits)
        arrays = [mocks.made([column], dtype, [n]) for column, dtype in zip(columns, dtypes, strict=True)]
        _write(path, columns, arrays, np.ones(n, dtype=bool), n, has_presence(spec))
        return
    table = read_table(mock, limits.mock_bytes)
    if not 1 <= table.num_rows <= limits.mock_rows:
        problems.add(f"mock data: 1 to {limits.mock_rows} rows.")
        return
    # An owner's mock file may well have the column of identifiers; it stays out like that of the values.
    if spec.entities in table.column_names:
        table = table.drop_columns([spec.entities])
    if len(_found(table, columns, None, problems, of=MOCK_DATA)) < len(columns):
        return
    arrays, present = _checked(table, columns, spec.missing, problems, of=MOCK_DATA)
    _write(path, columns, arrays, present, table.num_rows, has_presence(spec))
    arrays = [array[present] for array in arrays]
    known = mocks.digests(_rows(arrays), "float64")
    step = max(1, BLOCK // (8 * len(columns)))
    for first in range(0, len(private[0]), step):
        if known & mocks.digests(_rows([array[first : first + step] for array in private]), "float64"):
            problems.add(mocks.EQUAL_ROW)
            break
    if len(arrays[0]) == len(private[0]):
        for column, dtype, given, kept in zip(columns, dtypes, arrays, private, strict=True):
            if mocks.permuted(given, kept, dtype):
                problems.add(mocks.permuted_text(column.name))


def _rows(arrays: Sequence[Array]) -> Array:
    return np.stack([array.astype(np.float64) for array in arrays], axis=1)
