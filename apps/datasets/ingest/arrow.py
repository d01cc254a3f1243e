"""An untrusted Arrow IPC stream: flat, uncompressed, and checked completely before a value is looked at."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from gridclient.wire.errors import InvalidInputError, LimitExceededError

UNREADABLE = "The upload is not a readable Arrow IPC stream of flat, uncompressed columns."


def read_table(path: Path, limit: int) -> pa.Table:
    """Map an untrusted Arrow IPC stream and check it completely. Raises InvalidInputError or LimitExceededError."""
    size = path.stat().st_size
    if size > limit:
        raise LimitExceededError(f"This upload has {size} bytes; the limit is {limit}.", limit=limit)
    try:
        with pa.memory_map(str(path)) as source:
            if any(_is_compressed(message.metadata.to_pybytes()) for message in _messages(source)):
                raise InvalidInputError(UNREADABLE)
            source.seek(0)
            with pa.ipc.open_stream(source) as reader:
                if not all(_is_flat(field.type) for field in reader.schema):
                    raise InvalidInputError(UNREADABLE)
                batches = list(reader)
                table = pa.Table.from_batches(batches, reader.schema)
        # Offsets and indices of a hostile file may point anywhere: nothing is read before they are checked.
        table.validate(full=True)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, struct.error, IndexError, RecursionError):
        # Arrow's text may quote the file.
        raise InvalidInputError(UNREADABLE) from None
    return table


def _messages(source: pa.NativeFile) -> Iterable[pa.Message]:
    reader = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message's buffers are compressed (a bomb would unfold while it is read). See Arrow's `Message.fbs`."""

    def field(table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        slot = 4 + 2 * number
        if slot >= struct.unpack_from("<H", metadata, vtable)[0]:
            return 0
        offset: int = struct.unpack_from("<H", metadata, vtable + slot)[0]
        return table + offset if offset else 0

    def follow(position: int) -> int:
        return position + int(struct.unpack_from("<I", metadata, position)[0])

    message = follow(0)
    kind_at, header_at = field(message, 1), field(message, 2)
    if not kind_at or not header_at:
        return False
    kind, header = metadata[kind_at], follow(header_at)
    if kind == 2:  # a dictionary: its record batch is field 1
        inner = field(header, 1)
        if not inner:
            return False
        header = follow(inner)
    return kind in (2, 3) and field(header, 3) != 0


def _is_flat(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or is_text(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
