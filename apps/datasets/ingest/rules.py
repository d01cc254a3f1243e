"""What declared columns allow, applied block by block; remembers which rule was broken where, never by what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.datasets.ingest.declared import BOOLEAN, CATEGORY, DATE, NUMBER, subject
from apps.datasets.ingest.limits import Problems
from gridclient.wire.messages import Column

Array = np.ndarray[Any, Any]
INTEGERS = np.iinfo(np.int64)


def allowed(column: Column) -> tuple[float, float] | None:
    """The least and greatest value of a column, inclusive; None where nothing is declared."""
    if column.kind == BOOLEAN:
        return 0.0, 1.0
    if column.kind == CATEGORY:
        return 0.0, len(column.categories or [""]) - 1.0
    low, high = column.low, column.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return low, high


def is_float(dtype: str) -> bool:
    return "float" in dtype


def comparable(block: Array, dtype: str) -> Array:
    """The block as numbers that compare: bfloat16 bits become float32, integers and booleans int64."""
    if dtype == "bfloat16":
        return (block.astype(np.uint32) << 16).view(np.float32)
    return block if is_float(dtype) else block.astype(np.int64)


def stored(numbers: Array, dtype: str) -> Array:
    """Numbers in the storage of a torch dtype, rounded to nearest; bfloat16 as the uint16 of its bits."""
    with np.errstate(over="ignore"):
        if dtype != "bfloat16":
            return numbers.astype(dtype)
        bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bounds_in(columns: Sequence[Column], dtype: str) -> tuple[Array, Array]:
    """Least and greatest values [columns] as numbers that the dtype can hold: 0.1 in float32 is 0.1 declared."""
    pairs = [allowed(column) for column in columns]
    lows = np.array([-math.inf if pair is None else pair[0] for pair in pairs])
    highs = np.array([math.inf if pair is None else pair[1] for pair in pairs])
    if is_float(dtype):
        return comparable(stored(lows, dtype), dtype), comparable(stored(highs, dtype), dtype)
    return _whole(np.ceil(lows)), _whole(np.floor(highs))


def _whole(numbers: Array) -> Array:
    # float(2**63 - 1) rounds up, out of int64: clipped as Python integers.
    limits = (INTEGERS.min, INTEGERS.max)
    exact = [limits[int(number > 0)] if math.isinf(number) else int(number) for number in numbers]
    return np.array([min(max(number, INTEGERS.min), INTEGERS.max) for number in exact], dtype=np.int64)


class Rules:
    """The rules of blocks [rows, width] in the storage of one dtype.

    `columns`: as many as the width, or one for every element, or none. `missing` as in `PublishSpec`.
    """

    def __init__(
        self, columns: Sequence[Column], width: int, dtype: str, missing: str | float, *, of: str = ""
    ) -> None:
        self.columns = columns or [Column("")]
        self.dtype, self.missing, self.of = dtype, missing, of
        self._lows, self._highs = bounds_in(self.columns, dtype)
        self._whole = np.array([column.kind in (BOOLEAN, CATEGORY) for column in self.columns])
        self._fill = None
        if not isinstance(missing, str) and is_float(dtype):
            self._fill = comparable(stored(np.array([missing]), dtype), dtype)[0]
        none = np.zeros(width, dtype=bool)
        self._outside, self._broken, self._infinite, self._lost = none.copy(), none.copy(), none.copy(), none.copy()

    def checked(self, block: Array) -> tuple[Array, Array]:
        """A block as it is stored, and which of its rows become null records, bool [rows]. See `apply`."""
        if self._keeps(block):
            return block, np.zeros(len(block), dtype=bool)
        lost = self.lost(block)
        nulls = self.nulls(lost)
        return self.apply(block, lost, nulls), nulls

    def _keeps(self, block: Array) -> bool:
        """Whether the least and the greatest of each column say already that no rule is broken and nothing missing."""
        if self._whole.any():
            return False
        numbers = comparable(block, self.dtype)
        with np.errstate(invalid="ignore"):
            least, greatest = numbers.min(axis=0), numbers.max(axis=0)  # a NaN is both
            within = (self._lows <= least) & (greatest <= self._highs)
        return bool((within & np.isfinite(least) & np.isfinite(greatest)).all())

    def nulls(self, lost: Array) -> Array:
        """Which rows become null records, bool [rows], where `lost` [rows, width] says what is missing."""
        if self.missing == "null":
            return np.asarray(lost.any(axis=1))
        return np.zeros(len(lost), dtype=bool)

    def lost(self, block: Array) -> Array:
        """Which elements are missing: NaN."""
        if not is_float(self.dtype):
            return np.zeros(block.shape, dtype=bool)
        return np.asarray(np.isnan(comparable(block, self.dtype)))

    def apply(self, block: Array, lost: Array, nulls: Array) -> Array:
        """Remember what a block breaks. Returns it with null records as zeros and missing elements replaced."""
        numbers = comparable(block, self.dtype)
        looked_at = ~lost & ~nulls[:, None]
        with np.errstate(invalid="ignore"):
            self._outside |= (((numbers < self._lows) | (numbers > self._highs)) & looked_at).any(axis=0)
            if is_float(self.dtype):
                self._infinite |= (np.isinf(numbers) & looked_at).any(axis=0)
                if self._whole.any():
                    self._broken |= ((numbers != np.floor(numbers)) & looked_at & self._whole).any(axis=0)
        self._lost |= (lost & ~nulls[:, None]).any(axis=0)
        cleaned = np.array(block)
        if self._fill is not None and lost.any():
            cleaned[lost] = stored(np.array([self._fill]), self.dtype)[0]
        cleaned[nulls] = 0
        return cleaned

    def report(self, problems: Problems) -> None:
        """Add one text for each column and rule that some element broke."""
        for i, column in enumerate(self.columns):
            here = slice(None) if len(self.columns) == 1 else slice(i, i + 1)
            where = f"{self.of}{subject(column.name)}"
            if self._infinite[here].any():
                problems.add(f"{where}: values that are not finite.")
            if self._broken[here].any():
                problems.add(f"{where}: values that are not whole numbers.")
            if self._outside[here].any():
                problems.add(f"{where}: values outside the {_bounds_of(column)}.")
            if self._lost[here].any():
                self._report_lost(i, column, where, problems)

    def _report_lost(self, i: int, column: Column, where: str, problems: Problems) -> None:
        if isinstance(self.missing, str):
            problems.add(f"{where}: missing values; leave such rows out, or publish with missing='null' or a number.")
        elif column.kind not in (NUMBER, DATE):
            problems.add(f"{where}: missing values, which a number cannot replace; use missing='null'.")
        elif self._fill is not None and not self._lows[i] <= self._fill <= self._highs[i]:
            problems.add(f"{where}: the number for missing values lies outside the declared bounds.")


def _bounds_of(column: Column) -> str:
    return {CATEGORY: "declared categories", BOOLEAN: "values 0 and 1"}.get(column.kind, "declared bounds")
