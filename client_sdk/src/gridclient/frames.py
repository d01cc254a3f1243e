"""Tables from wherever people keep them: CSV, Parquet, pandas, polars, Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column


def arrow_table(source: Any, argument: str = "table") -> pa.Table:
    """The source as a plain Arrow table: texts as `string`, no dictionaries, no metadata. Raises InvalidInputError."""
    try:
        table = _read(source, argument)
    except OSError as error:
        raise InvalidInputError(f"{argument}: {source} cannot be read: {error.strerror or error}.") from error
    except pa.ArrowException as error:
        raise InvalidInputError(f"{argument} is no table that Arrow can read: {error}") from error
    # Metadata of pandas can hold values of its index, which nobody meant to publish.
    return _plain(table).replace_schema_metadata(None)


def stream(table: pa.Table, texts: Sequence[str] = ()) -> list[memoryview]:
    """The table as an Arrow IPC stream; columns named in `texts` (declared categories) as strings."""
    for name in texts:
        if name in table.column_names:
            position = table.column_names.index(name)
            table = table.set_column(position, name, table.column(name).cast(pa.string()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return [memoryview(sink.getvalue())]


def numbers(values: pa.ChunkedArray, column: Column) -> np.ndarray[Any, Any]:
    """A column of a whole table as the numbers that a node computes with, [n]: see `gridclient.tables`."""
    if column.kind == "category":
        known = pa.array(column.categories or [], pa.string())
        values = pc.index_in(values.cast(pa.string()), known)
    elif pa.types.is_date(values.type):
        values = values.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_timestamp(values.type):
        milliseconds = values.cast(pa.timestamp("ms")).cast(pa.int64())
        values = pc.divide(milliseconds.cast(pa.float64()), 86_400_000.0)
    # A null record is 0 in every column, as on the node.
    return np.array(pc.fill_null(values, False if column.kind == "boolean" else 0).to_numpy())


def _read(source: Any, argument: str) -> pa.Table:
    if isinstance(source, (str, Path)):
        match Path(source).suffix.lower():
            case ".csv":
                return pa.csv.read_csv(source)
            case ".parquet" | ".pq":
                return pa.parquet.read_table(source)
            case suffix:
                raise InvalidInputError(
                    f"{argument}: {suffix or 'no suffix'} is not known; give a .csv or .parquet file."
                )
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if hasattr(source, "iloc"):
        return pa.Table.from_pandas(source, preserve_index=False)
    if hasattr(source, "collect_schema") and hasattr(source, "collect") and not hasattr(source, "to_arrow"):
        source = source.collect()
    if hasattr(source, "to_arrow"):
        return source.to_arrow()
    raise InvalidInputError(
        f"{argument} is a CSV or Parquet path, or a pandas, polars or Arrow table, not {type(source).__name__}."
    )


def _plain(table: pa.Table) -> pa.Table:
    fields = []
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        fields.append(pa.field(field.name, pa.string() if text else pa.float64() if pa.types.is_null(kind) else kind))
    return table.cast(pa.schema(fields))
