"""Values at rest, mapped copy-on-write: published assets and uploaded constants. For workers only.

What is written to a mapping stays in this process, so that no operation could change a file. The files are our own
(`apps.datasets.ingest` wrote and checked them); still their headers must say what the database says.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from apps.compute.targets import DTYPES
from apps.datasets.assets import ENTITIES, PRESENCE, TABLE, TABLE_PRESENCE, VALUES, AssetSpec
from gridclient.wire.errors import InternalError
from gridclient.wire.messages import Column

_SAFETENSORS = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
MAX_HEADER = 2**20
MILLISECONDS = 86_400_000.0
MOST_DAYS = 2.0**31
"""What lies beyond is on no calendar, and stays a number."""


ALIGNED = 64
"""Torch lays its tensors at multiples of so many bytes."""


def aligned(value: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy that lies as torch's own do: elsewhere sums may differ in the last bit."""
    return value.clone() if value.data_ptr() % ALIGNED else value


def raw_tensor(path: Path, dtype: str, shape: list[int], offset: int = 0) -> torch.Tensor:
    """A file's bytes from `offset` as a tensor."""
    if 0 in shape:
        return torch.zeros(shape, dtype=DTYPES[dtype])
    count = DTYPES[dtype].itemsize
    for extent in shape:
        count *= extent
    data = np.memmap(path, dtype=np.uint8, mode="c", offset=offset, shape=(count,))
    return aligned(torch.from_numpy(data).view(DTYPES[dtype]).reshape(shape))


def _entries(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begin."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise InternalError("A published file is damaged.")
        return json.loads(file.read(size)), 8 + size


def safetensor(path: Path, key: str) -> torch.Tensor:
    """One tensor of a safetensors file."""
    entries, start = _entries(path)
    entry = entries[key]
    return raw_tensor(path, _SAFETENSORS[entry["dtype"]], entry["shape"], start + entry["data_offsets"][0])


def _arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()


def shape_of(spec: AssetSpec, part: str) -> tuple[int, ...]:
    """The public shape of a part. Mock data have as many rows as their owner gave them."""
    if part == VALUES:
        return tuple(spec.shape)
    if spec.kind == TABLE:
        return (_arrow(spec.path(part)).num_rows, len(spec.columns))
    return tuple(_entries(spec.path(part))[0][VALUES]["shape"])


def tensor(spec: AssetSpec, part: str) -> torch.Tensor:
    """The values (or mock data) of a published tensor."""
    return safetensor(spec.path(part), VALUES)


def table(spec: AssetSpec, part: str) -> pa.Table:
    """The declared columns of a published table, in order, as people know them: categories as dictionaries of their
    texts, days as dates or (with a time of day) timestamps. Null records are null in every column."""
    found = _arrow(spec.path(part))
    present = found.column(TABLE_PRESENCE) if TABLE_PRESENCE in found.column_names else None

    def values(column: Column) -> pa.Array:
        stored = found.column(column.name)
        return _shown(column, stored if present is None else pc.if_else(present, stored, None))

    return pa.table({column.name: values(column) for column in spec.columns})


def _shown(column: Column, stored: pa.ChunkedArray) -> pa.Array:
    if column.kind == "category":
        codes = stored.cast(pa.int32()).combine_chunks()
        return pa.DictionaryArray.from_arrays(codes, pa.array(column.categories or [], pa.string()))
    # Of no record at all, `all` is None.
    if column.kind != "date" or pc.all(pc.less(pc.abs(stored), MOST_DAYS)).as_py() is False:
        return stored
    if pc.all(pc.equal(pc.floor(stored), stored)).as_py() is not False:
        return stored.cast(pa.int32()).cast(pa.date32())
    return pc.round(pc.multiply(stored, MILLISECONDS)).cast(pa.int64()).cast(pa.timestamp("ms"))


def columns(spec: AssetSpec, part: str, names: str | list[str]) -> torch.Tensor:
    """One column [n], or several as float64 [n, len(names)]."""
    found = _arrow(spec.path(part))
    if isinstance(names, str):
        return _own(_column(found, names))
    if not names:
        return torch.zeros((found.num_rows, 0), dtype=torch.float64)
    made = torch.empty((found.num_rows, len(names)), dtype=torch.float64)
    for place, name in enumerate(names):
        made.numpy()[:, place] = _column(found, name)
    return made


def presence(spec: AssetSpec) -> torch.Tensor:
    """Which rows are records: bool [n]."""
    if spec.kind == TABLE:
        return _own(_column(_arrow(spec.path()), TABLE_PRESENCE))
    return safetensor(spec.path(), PRESENCE) != 0


class _Version(NamedTuple):
    """What caches tell versions apart by."""

    folder: str
    spec: AssetSpec

    def __hash__(self) -> int:
        return hash(self.folder)


def codes(spec: AssetSpec) -> NDArray[np.int64]:
    """The entity of each row, where they are declared: int64 [n], its place among the `identifiers`."""
    return _codes(_Version(spec.folder, spec))


@lru_cache(maxsize=16)
def _codes(version: _Version) -> NDArray[np.int64]:
    return np.unique(_entities(version.spec), return_inverse=True)[1].astype(np.int64)


def identifiers(spec: AssetSpec) -> NDArray[np.bytes_]:
    """The HMACs of the entities' identifiers, where they are declared: S32 [entities], in ascending order."""
    return np.unique(_entities(spec))


def _entities(spec: AssetSpec) -> NDArray[np.bytes_]:
    """That of each row: S32 [n]."""
    stored = _arrow(spec.path(ENTITIES)).column(0).combine_chunks()
    width = stored.type.byte_width
    found: NDArray[np.bytes_] = np.frombuffer(stored.buffers()[1], f"S{width}")
    return found[stored.offset : stored.offset + len(stored)]


def _own(column: np.ndarray[Any, Any]) -> torch.Tensor:
    """A copy in memory of torch's."""
    made = torch.empty(column.shape, dtype=torch.from_numpy(column[:0].copy()).dtype)
    made.numpy()[...] = column
    return made


def _column(found: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return found.column(name).to_numpy()
