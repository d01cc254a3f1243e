"""Mock data: made from public metadata only, or the owner's, which must not give private rows away."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from apps.datasets.ingest.declared import BOOLEAN, CATEGORY, DATE, subject
from apps.datasets.ingest.limits import IngestLimits
from apps.datasets.ingest.rules import Array, allowed, bounds_in, comparable, is_float, stored
from gridclient.wire.messages import Column

MOST_MADE = 100
EQUAL_ROW = "mock data: a row equals a private row; mock data must be made up."


def permuted_text(name: str) -> str:
    return f"mock data: {subject(name)}: the private column in another order; mock data must be made up."


def made_rows(public_rows: int, row_bytes: int, limits: IngestLimits) -> int:
    """How many rows are made: at most 100, at most the public number, at most what the cap of mock data holds."""
    return max(1, min(public_rows, MOST_MADE, limits.mock_bytes // max(1, row_bytes)))


def made(columns: Sequence[Column], dtype: str, shape: Sequence[int]) -> Array:
    """Uniform within the declared bounds, zeros where there are none; array of `shape` in the storage of `dtype`.

    The seed is a digest of the arguments, all of them public: the same declaration gives the same mock data.
    """
    seed = hashlib.sha256(msgspec.json.encode([columns, dtype, list(shape)])).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:16], "little")))
    width = math.prod(shape[1:])
    declared = list(columns) or [Column("")]
    if len(declared) == 1 and width != 1:
        return _column(declared[0], dtype, shape[0] * width, random).reshape(shape)
    drawn = [_column(column, dtype, shape[0], random) for column in declared]
    return np.stack(drawn, axis=1).reshape(shape)


def _column(column: Column, dtype: str, n: int, random: np.random.Generator) -> Array:
    pair = allowed(column)
    if pair is None:
        return stored(np.zeros(n), dtype)
    (low,), (high,) = bounds_in([column], dtype)
    if not is_float(dtype):
        return stored(random.integers(low, max(low, high), size=n, endpoint=True), dtype)
    share = random.random(n)
    # Not low + share * (high - low), whose difference can overflow.
    numbers = (1 - share) * pair[0] + share * pair[1]
    if column.kind in (BOOLEAN, CATEGORY, DATE):
        numbers = np.round(numbers)
    return stored(np.clip(numbers, float(low), float(high)), dtype)


def digests(rows: Array, dtype: str) -> set[bytes]:
    """Digests of the rows [n, width], equal for equal rows; -0.0 counts as 0.0."""
    return {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in _plain(rows, dtype)}


def permuted(given: Array, private: Array, dtype: str) -> bool:
    """Whether two columns [n] hold the same values in any order."""
    first, second = np.sort(_plain(given, dtype)), np.sort(_plain(private, dtype))
    return bool(np.array_equal(first, second, equal_nan=is_float(dtype)))


def _plain(block: Array, dtype: str) -> Array:
    numbers = comparable(block, dtype)
    return np.ascontiguousarray(numbers + 0.0 if is_float(dtype) else numbers)
