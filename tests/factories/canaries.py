"""Private values that are like no other bytes: wherever one turns up, something let it out."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gridclient.wire import messages as m

_random = np.random.default_rng(20_240_229)
# Three digits in front of the point: no time of day and no version number has them.
FLOATS = _random.uniform(200.0, 900.0, (14, 2))
WHOLE = _random.integers(10**14, 10**15, (14, 2))
AMOUNTS = _random.uniform(200.0, 900.0, 14)
DAYS = -np.sort(_random.choice(np.arange(30_000, 36_000), 14, replace=False))
PEOPLE = [f"canary-person-{number:04d}" for number in _random.choice(10_000, 14, replace=False)]
UNDECLARED = [f"canary-category-{number:04d}" for number in _random.choice(10_000, 14, replace=False)]
SUMS = [float(value) for value in FLOATS.sum(axis=0)]
OUTSIDE = _random.uniform(2000.0, 9000.0, (14, 2))

FLOAT_COLUMNS = [m.Column("weight", low=0.0, high=1000.0), m.Column("height", low=0.0, high=1000.0)]
WHOLE_COLUMNS = [m.Column("account", low=0.0, high=1e15), m.Column("balance", low=0.0, high=1e15)]
TABLE_COLUMNS = [
    m.Column("amount", low=0.0, high=1000.0),
    m.Column("day", kind="date", low=-40_000.0, high=0.0),
    m.Column("group", kind="category", categories=["a", "b"]),
    m.Column("smokes", kind="boolean"),
]


def table(**changes: Any) -> pa.Table:
    """A table of all kinds of columns with its column of identifiers."""
    columns = {
        "person": pa.array(PEOPLE),
        "amount": pa.array(AMOUNTS),
        "day": pa.array(DAYS.astype("datetime64[D]")),
        "group": pa.array(["a", "b"] * 7),
        "smokes": pa.array([True, False] * 7),
    }
    return pa.table({**columns, **changes})


def _texts(values: Iterable[float]) -> set[bytes]:
    """In full and with six digits; what is shorter is like too many other numbers."""
    texts = {text for value in values for text in (repr(value), f"{value:.6g}")}
    return {text.encode() for text in texts if len(text) > 6}


def _bytes(values: Iterable[float], *formats: str) -> set[bytes]:
    return {struct.pack(format, value) for value in values for format in formats}


def _patterns() -> dict[str, set[bytes]]:
    floats = [float(value) for array in (FLOATS, AMOUNTS, OUTSIDE) for value in array.ravel()]
    whole = [int(value) for value in WHOLE.ravel()]
    days = [float(day) for day in DAYS]
    dates = [str(np.datetime64(int(day), "D")) for day in DAYS]
    return {
        "float": _texts(floats) | _bytes(floats, "<d", ">d"),
        "whole number": _texts(whole) | _bytes(whole, "<q", ">q", "<d"),
        "date": _texts(days) | {date.encode() for date in dates} | _bytes(days, "<d", ">d"),
        "sum": _texts(SUMS) | _bytes(SUMS, "<d", ">d"),
        "identifier": {text.encode() for text in (*PEOPLE, *UNDECLARED)},
    }


@dataclass(frozen=True)
class Canaries:
    """Finds canaries in bytes, as they are stored and in decimal, in full and with six digits."""

    texts: list[bytes]

    def found(self, data: bytes) -> list[str]:
        """The first few that were found, with what stands in front of them; empty when nothing was."""
        places = [(data.index(text), text) for text in self.texts if text in data]
        return [repr(data[max(0, at - 60) : at + len(text)]) for at, text in places[:3]]


PRIVATE = ("float", "whole number", "date", "identifier")


def canaries(kinds: Iterable[str] = PRIVATE) -> Canaries:
    """A search for the canaries of these kinds; "sum" is what an aggregate of `FLOATS` may tell some people."""
    known = _patterns()
    return Canaries(sorted({text for kind in kinds for text in known[kind]}))
