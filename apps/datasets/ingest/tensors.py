"""A tensor, from a safetensors upload to the files of a version. Read and written in blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.datasets.assets import ENTITIES, MOCK, PRESENCE, SUFFIXES, TENSOR, VALUES, Ingested
from apps.datasets.ingest import mocks
from apps.datasets.ingest.declared import has_presence
from apps.datasets.ingest.entities import Entities
from apps.datasets.ingest.files import Stored, Written, read_header, safetensors_header
from apps.datasets.ingest.limits import IngestLimits, Problems
from apps.datasets.ingest.rules import Array, Rules
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column, PublishSpec
from gridclient.wire.tensors import ITEM_SIZES

BLOCK = 8 * 2**20
WIDEST_IDENTIFIER = 1024


class Upload:
    """The values of an upload: dtype, shape, and rows [n, elements of a row] mapped from the file."""

    def __init__(self, path: Path, stored: Stored) -> None:
        if not stored.shape:
            raise InvalidInputError("values: a tensor has at least one axis, the rows.")
        self.dtype, self.shape = stored.dtype, stored.shape
        self.width = math.prod(stored.shape[1:])
        self._path, self._offset = path, stored.offset
        self.rows: Array = stored.array(path).reshape(len(self), self.width)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.width * ITEM_SIZES[self.dtype]

    def blocks(self) -> Iterator[Array]:
        """The rows in order, about 8 MiB at a time. Read, not mapped: pages that were looked at would stay."""
        step = max(1, BLOCK // self.row_bytes)
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for first in range(0, len(self), step):
                rows = min(step, len(self) - first)
                yield np.fromfile(file, self.rows.dtype, rows * self.width).reshape(rows, self.width)


def ingest_tensor(
    spec: PublishSpec,
    values: Path,
    mock: Path | None,
    key: bytes,
    out: Path,
    limits: IngestLimits,
    problems: Problems,
) -> Ingested:
    """Check and write a tensor; problems are added, not raised. Raises InvalidInputError for a file it cannot read."""
    stored = read_header(values, limits.bytes)
    upload = Upload(values, _only(stored, {VALUES} | ({ENTITIES} & stored.keys())))
    columns = _fitting(spec.columns, upload.shape, problems)
    rows = len(upload) if spec.max_rows is None else max(spec.max_rows, len(upload))
    if spec.max_rows is not None and len(upload) > spec.max_rows:
        problems.add("max_rows: the upload has more rows.")
    if rows > limits.rows or rows * upload.row_bytes > limits.bytes:
        raise InvalidInputError("max_rows: a tensor of so many rows passes the limit of this node.")
    rules = Rules(columns, upload.width, upload.dtype, spec.missing)
    written, present = _write(upload, rules, out / f"{VALUES}{SUFFIXES[TENSOR]}", rows, has_presence(spec))
    rules.report(problems)
    entities = _entities(spec, values, stored, key, limits, len(upload), problems)
    if entities is not None:
        entities.write(out, rows)
    _mock(spec, columns, upload, mock, out, limits, problems)
    return Ingested(
        kind=TENSOR,
        dtype=upload.dtype,
        shape=[rows, *upload.shape[1:]],
        columns=list(columns),
        rows_public=spec.max_rows is None,
        row_count=len(upload),
        entities="rows" if entities is None else "declared",
        entity_count=int(present.sum()) if entities is None else entities.count(present),
        max_rows_per_entity=1 if entities is None else spec.max_rows_per_entity,
        missing=spec.missing,
        presence=has_presence(spec),
        nbytes=written.nbytes,
        sha256=written.sha256,
    )


def _only(stored: dict[str, Stored], names: set[str]) -> Stored:
    if VALUES not in stored or stored.keys() != names:
        raise InvalidInputError("The upload of a tensor has the key 'values', perhaps 'entities', and no other.")
    return stored[VALUES]


def _fitting(columns: Sequence[Column], shape: Sequence[int], problems: Problems) -> Sequence[Column]:
    """The declared columns, if they fit the shape; else none, and a problem."""
    single = len(columns) == 1 and (len(shape) != 2 or columns[0].name == "")
    if not columns or single or (len(shape) == 2 and len(columns) == shape[1]):
        return columns
    wanted = f"{shape[1]} columns, or one without a name" if len(shape) == 2 else "at most one column"
    problems.add(f"columns: a tensor of this shape takes {wanted}; {len(columns)} are declared.")
    return []


def _write(upload: Upload, rules: Rules, path: Path, rows: int, presence: bool) -> tuple[Written, Array]:
    """Write the checked rows, padded to `rows`. Returns the file and which uploaded rows are records, bool [n]."""
    present: Array = np.ones(len(upload), dtype=bool)
    tensors: list[tuple[str, str, Sequence[int]]] = [(VALUES, upload.dtype, [rows, *upload.shape[1:]])]
    if presence:
        tensors.append((PRESENCE, "uint8", [rows]))
    with Written(path) as file:
        file.write(safetensors_header(tensors))
        done = 0
        for block in upload.blocks():
            stored, nulls = rules.checked(block)
            file.write(np.ascontiguousarray(stored))
            present[done : done + len(block)] = ~nulls
            done += len(block)
        padding = (rows - len(upload)) * upload.row_bytes
        for first in range(0, padding, BLOCK):
            file.write(bytes(min(BLOCK, padding - first)))
        if presence:
            file.write(np.ascontiguousarray(present.astype(np.uint8)))
            file.write(bytes(rows - len(upload)))
    return file, present


def _entities(
    spec: PublishSpec,
    path: Path,
    stored: dict[str, Stored],
    key: bytes,
    limits: IngestLimits,
    rows: int,
    problems: Problems,
) -> Entities | None:
    uploaded = stored.get(ENTITIES)
    if (spec.entities is None) != (uploaded is None):
        problems.add("entities: identifiers were declared and not uploaded, or uploaded and not declared.")
    if spec.entities is None or uploaded is None:
        return None
    entities = Entities(key, limits)
    if uploaded.shape[:1] != (rows,):
        problems.add("entities: there must be one identifier for each row.")
        return None
    if uploaded.dtype == "int64" and len(uploaded.shape) == 1:
        entities.extend(int(number) for number in uploaded.array(path))
    elif uploaded.dtype == "uint8" and len(uploaded.shape) == 2 and uploaded.shape[1] <= WIDEST_IDENTIFIER:
        try:
            entities.extend(bytes(row).rstrip(b"\0").decode() for row in uploaded.array(path))
        except UnicodeDecodeError:
            problems.add("entities: an identifier is not UTF-8.")
            return None
    else:
        problems.add("entities: identifiers are whole numbers (int64) or texts (UTF-8 in uint8, one row each).")
        return None
    entities.check(spec.max_rows_per_entity, problems)
    return entities


def _mock(
    spec: PublishSpec,
    columns: Sequence[Column],
    upload: Upload,
    mock: Path | None,
    out: Path,
    limits: IngestLimits,
    problems: Problems,
) -> None:
    path = out / f"{MOCK}{SUFFIXES[TENSOR]}"
    if mock is None:
        n = mocks.made_rows(len(upload) if spec.max_rows is None else spec.max_rows, upload.row_bytes, limits)
        made: Any = mocks.made(columns, upload.dtype, (n, *upload.shape[1:]))
        tensors: list[tuple[str, str, Sequence[int]]] = [(VALUES, upload.dtype, list(made.shape))]
        if has_presence(spec):
            tensors.append((PRESENCE, "uint8", [n]))
        with Written(path) as file:
            file.write(safetensors_header(tensors))
            file.write(np.ascontiguousarray(made))
            if has_presence(spec):
                file.write(b"\1" * n)
        return
    stored = read_header(mock, limits.mock_bytes)
    given = Upload(mock, _only(stored, {VALUES}))
    if (given.dtype, given.shape[1:]) != (upload.dtype, upload.shape[1:]) or len(given) > limits.mock_rows:
        problems.add(f"mock data: dtype and shape as the values, and at most {limits.mock_rows} rows.")
        return
    rules = Rules(columns, given.width, given.dtype, spec.missing, of="mock data: ")
    _write(given, rules, path, len(given), has_presence(spec))
    rules.report(problems)
    known = mocks.digests(given.rows, given.dtype)
    if any(known & mocks.digests(block, upload.dtype) for block in upload.blocks()):
        problems.add(mocks.EQUAL_ROW)
    if len(given) == len(upload):
        for i in range(given.width):
            if mocks.permuted(given.rows[:, i], upload.rows[:, i], upload.dtype):
                name = columns[i].name if len(columns) == given.width else ""
                problems.add(mocks.permuted_text(name))
