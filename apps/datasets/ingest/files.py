"""Files of a dataset version: private (0600), hashed while written, on disk when closed. And untrusted safetensors."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.tensors import ITEM_SIZES, MAX_DIMENSIONS, MAX_EXTENT

MAX_HEADER = 64 * 1024
MAX_TENSORS = 256

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
_CODES = {name: code for code, name in DTYPES.items()}


class Stored(msgspec.Struct, frozen=True):
    """One tensor of a safetensors file: torch dtype name, shape, offset of its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    def array(self, path: Path) -> np.ndarray[Any, Any]:
        """The values, mapped read-only. bfloat16, which numpy has not, comes as the uint16 of its bits."""
        return np.memmap(path, dtype=numpy_dtype(self.dtype), mode="r", offset=self.offset, shape=self.shape)


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype that holds the bits of a torch dtype."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


def read_header(path: Path, limit: int) -> dict[str, Stored]:
    """Check the header of an untrusted safetensors file completely, before anything is mapped.

    At most 64 KiB and 256 tensors, unique names, known dtypes, bounded non-empty shapes, and bytes that cover the file
    without hole or overlap. Raises InvalidInputError; LimitExceededError beyond `limit` bytes.
    """
    size = path.stat().st_size
    if size > limit:
        raise LimitExceededError(f"This upload has {size} bytes; the limit is {limit}.", limit=limit)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise InvalidInputError(
                f"The upload is not a safetensors file with a header of at most {MAX_HEADER} bytes."
            )
        raw = file.read(length)
    try:
        entries = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidInputError("The header of the safetensors file is not JSON with unique names.") from None
    if not isinstance(entries, dict):
        raise InvalidInputError("The header of the safetensors file is not an object.")
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise InvalidInputError(f"A safetensors file has at most {MAX_TENSORS} tensors here.")
    found: dict[str, Stored] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        stored, span = _entry(entry, 8 + length)
        found[name] = stored
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise InvalidInputError("The tensors of the safetensors file overlap or leave holes.")
        end = last
    if 8 + length + end != size:
        raise InvalidInputError("The safetensors file is longer or shorter than its header says.")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _entry(entry: Any, start: int) -> tuple[Stored, tuple[int, int]]:
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(first), int(last)]} if code in DTYPES:
            pass
        case _:
            raise InvalidInputError(f"A tensor has a dtype of {', '.join(DTYPES)}, a shape and data_offsets.")
    if len(shape) > MAX_DIMENSIONS or any(type(e) is not int or not 1 <= e <= MAX_EXTENT for e in shape):
        raise InvalidInputError(f"A shape has at most {MAX_DIMENSIONS} dimensions of 1 to 2**40.")
    dtype = DTYPES[code]
    if not 0 <= first <= last or last - first != math.prod(shape) * ITEM_SIZES[dtype]:
        raise InvalidInputError("The bytes of a tensor do not fit its shape and dtype.")
    return Stored(dtype, tuple(shape), start + first), (first, last)


class Written:
    """A new file: mode 0600, sha256 and size while it is written, on disk when the block ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._digest = hashlib.sha256()
        self.nbytes = 0

    def __enter__(self) -> Written:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def write(self, data: Any) -> int:
        """Append any contiguous buffer; the signature of a Python file, so that Arrow can write here too."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self.nbytes += len(view)
        return len(view)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    # What Arrow asks of a Python file beside `write`.
    closed = False

    def flush(self) -> None:
        self._file.flush()


def safetensors_header(tensors: Sequence[tuple[str, str, Sequence[int]]]) -> bytes:
    """The bytes in front of the data, for (name, torch dtype, shape) in the order in which the data follow."""
    entries, end = {}, 0
    for name, dtype, shape in tensors:
        first, end = end, end + math.prod(shape) * ITEM_SIZES[dtype]
        entries[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [first, end]}
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % 64)  # the data begin where torch would lay them, so that they can be mapped
    return len(raw).to_bytes(8, "little") + raw


def write_arrow(path: Path, columns: Iterable[tuple[str, pa.Array]]) -> tuple[int, str]:
    """Write an Arrow IPC file of one batch. Returns its size and sha256."""
    named = list(columns)
    schema = pa.schema([pa.field(name, array.type, nullable=False) for name, array in named])
    with Written(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([array for _, array in named], schema=schema))
    return file.nbytes, file.sha256
