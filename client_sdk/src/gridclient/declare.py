"""What an owner declares about columns, checked against what the data look like. Collects every problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from numbers import Real
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from gridclient.calendar import days
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column

Problems = list[str]


def check(problems: Problems) -> None:
    """Raise InvalidInputError with all problems, if there are any."""
    if problems:
        lines = "".join(f"\n- {problem}" for problem in problems)
        raise InvalidInputError(f"Nothing was published:{lines}", problems=problems)


def tensor_columns(
    shape: Sequence[int], columns: Sequence[str] | None, bounds: Any, problems: Problems
) -> list[Column]:
    """Columns of a tensor: its second axis when it is 2-D, else at most one that stands for every element.

    `bounds`: (low, high) for all, (lows, highs) per column, or {column: (low, high)}.
    """
    width = shape[1] if len(shape) == 2 else 1
    names = _names(columns, width, problems)
    pairs: list[tuple[float, float] | None]
    match bounds:
        case None:
            return [Column(name) for name in names]
        case dict():
            _unknown(bounds, names, "bounds", problems)
            pairs = [_pair(bounds.get(name), f"bounds of column {name!r}", problems) for name in names]
        case (low, high) if isinstance(low, Real) and isinstance(high, Real):
            pairs = [_pair((low, high), "bounds", problems)] * max(len(names), 1)
            names = names or [""]
        case (lows, highs) if _is_list(lows) and _is_list(highs):
            if len(lows) != width or len(highs) != width:
                problems.append(f"bounds: the lows and the highs are lists of {width}, one for each column.")
                return [Column(name) for name in names]
            names = names or ([str(number) for number in range(width)] if width > 1 else [""])
            pairs = [
                _pair(pair, f"bounds of column {n!r}", problems)
                for n, pair in zip(names, zip(lows, highs, strict=True), strict=True)
            ]
        case _:
            problems.append("bounds: write (low, high), or ([lows], [highs]), or {column: (low, high)}.")
            return [Column(name) for name in names]
    return [
        Column(name) if pair is None else Column(name, low=pair[0], high=pair[1])
        for name, pair in zip(names, pairs, strict=True)
    ]


def table_columns(
    schema: pa.Schema,
    bounds: Mapping[str, Any] | None,
    categories: Mapping[str, Sequence[Any]] | None,
    entities: str | None,
    problems: Problems,
) -> list[Column]:
    """Columns of a table in order, without the one that identifies people. Kinds come from Arrow's types."""
    bounds, categories = bounds or {}, categories or {}
    declarations: list[tuple[str, Any]] = [("bounds", bounds), ("categories", categories)]
    for argument, declared in declarations:
        if not isinstance(declared, Mapping):
            problems.append(f"{argument}: write {{column: ...}}.")
            return []
        _unknown(declared, schema.names, argument, problems)
    if entities is not None and entities not in schema.names:
        problems.append(f"entities: the table has no column {entities!r}; it has {_some(schema.names)}.")
    if len(set(schema.names)) != len(schema.names):
        problems.append("columns: two columns have the same name.")
    found = []
    for field in schema:
        if field.name == entities:
            continue
        kind = "category" if field.name in categories else _kind(field.type)
        pair = None
        if kind is None:
            text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            hint = (
                "declare its categories=, or leave the column out"
                if text
                else f"{field.type} is not supported; leave it out"
            )
            problems.append(f"column {field.name!r}: {hint}.")
            continue
        if field.name in bounds:
            if kind not in ("number", "date"):
                problems.append(f"column {field.name!r}: only numbers and dates have bounds.")
            else:
                pair = _pair(bounds[field.name], f"bounds of column {field.name!r}", problems)
        values = [str(value) for value in categories[field.name]] if kind == "category" else None
        low, high = pair or (None, None)
        found.append(Column(field.name, kind, low, high, values))
    return found


def with_aggregates(columns: list[Column], edges: Any, partitions: Any, problems: Problems) -> list[Column]:
    """The columns with the edges of their histograms, and those by which exact aggregates may be asked for."""
    edges = edges or {}
    if not isinstance(edges, Mapping):
        problems.append("edges: write {column: [edge, ...]}.")
        return columns
    if not _is_list(partitions):
        problems.append("partitions: a list of names.")
        return columns
    names = [column.name for column in columns]
    _unknown(edges, names, "edges", problems)
    _unknown(dict.fromkeys(partitions), names, "partitions", problems)
    return [
        replace(column, edges=_edges(edges.get(column.name), column, problems), partition=column.name in partitions)
        for column in columns
    ]


def _edges(edges: Any, column: Column, problems: Problems) -> list[float] | None:
    if edges is None:
        return None
    try:
        found = [_number(edge) for edge in edges]
    except (TypeError, ValueError):
        problems.append(f"edges of column {column.name!r}: a list of numbers or dates.")
        return None
    if column.low is None or column.high is None:
        problems.append(f"edges of column {column.name!r}: declare its bounds too.")
        return None
    rising = all(low < high for low, high in pairwise(found))
    if len(found) < 2 or not rising or found[0] > column.low or found[-1] < column.high:
        problems.append(f"edges of column {column.name!r}: rising, from the lower bound to the upper one or beyond.")
        return None
    return found


def _names(columns: Sequence[str] | None, width: int, problems: Problems) -> list[str]:
    if columns is None:
        return []
    if not _is_list(columns) or not all(isinstance(name, str) for name in columns):
        problems.append("columns: a list of names.")
        return []
    if len(columns) != width:
        problems.append(f"columns: {len(columns)} names for {width} columns.")
        return []
    return list(columns)


def _kind(type: pa.DataType) -> str | None:
    if pa.types.is_boolean(type):
        return "boolean"
    if pa.types.is_date(type) or pa.types.is_timestamp(type):
        return "date"
    if pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type) or pa.types.is_null(type):
        return "number"
    return None


def _pair(pair: Any, where: str, problems: Problems) -> tuple[float, float] | None:
    """Finite (low, high) with low < high; dates become days since 1970."""
    if pair is None:
        return None
    try:
        low, high = (_number(value) for value in pair)
    except (TypeError, ValueError):
        problems.append(f"{where}: a pair (low, high) of numbers or dates.")
        return None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        problems.append(f"{where}: finite, and low less than high.")
        return None
    return low, high


def _number(value: Any) -> float:
    return days(value) if isinstance(value, (str, date)) else float(value)


def _unknown(declared: Mapping[str, Any], names: Sequence[str], argument: str, problems: Problems) -> None:
    for name in declared:
        if name not in names:
            problems.append(f"{argument}: there is no column {name!r}; there are {_some(names)}.")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown or "none"


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, Mapping))
