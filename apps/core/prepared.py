"""Querysets whose SQL is compiled once: on the path of every release, Django's compiler costs five times the query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from django.db import connection
from django.db.models import Model, QuerySet, UUIDField

M = TypeVar("M", bound=Model)
Value = UUID | datetime | str | int
_uuid: Any = UUIDField()


@dataclass(frozen=True, slots=True)
class _Compiled:
    """SQL with its parameters, of which those with a slot are replaced, and how a row becomes an object."""

    model: type[Model]
    sql: str
    slots: list[int | None]
    constants: list[Any]
    converters: list[tuple[int, list[Callable[..., Any]], Any]]
    columns: list[tuple[int, str]]
    annotations: list[tuple[int, str]]


class Prepared(Generic[M]):
    """Decorates a function that builds a queryset of whole rows from values; a call gives the rows as a list.

    Values are UUIDs, datetimes, texts, numbers, or tuples of these for `__in`; the function may only hand them
    on to filters, so that the SQL depends on nothing but the lengths of the tuples.
    """

    def __init__(self, build: Callable[..., QuerySet[M]]) -> None:
        self._build = build
        self._compiled: dict[tuple[Any, ...], _Compiled] = {}

    def __call__(self, *values: Value | tuple[Value, ...]) -> list[M]:
        given = [_adapted(value) for value in _flat(values)]
        key = (connection.vendor, *(len(value) if isinstance(value, tuple) else None for value in values))
        known = self._compiled.get(key)
        if known is None:
            known = self._compiled[key] = self._compile(values)
        slots = zip(known.slots, known.constants, strict=True)
        with connection.cursor() as cursor:
            cursor.execute(known.sql, [constant if slot is None else given[slot] for slot, constant in slots])
            rows = cursor.fetchall()
        return [_object(known, list(row)) for row in rows]

    def _compile(self, values: tuple[Value | tuple[Value, ...], ...]) -> _Compiled:
        markers = [tuple(map(_marker, value)) if isinstance(value, tuple) else _marker(value) for value in values]
        marked = [_adapted(marker) for marker in _flat(tuple(markers))]
        rows = self._build(*markers)
        compiler: Any = rows.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        selected = [column for column, _, _ in compiler.select]
        fields = compiler.klass_info["select_fields"]
        return _Compiled(
            rows.model,
            sql,
            [marked.index(parameter) if parameter in marked else None for parameter in parameters],
            list(parameters),
            [(place, functions, column) for place, (functions, column) in compiler.get_converters(selected).items()],
            [(place, selected[place].target.attname) for place in fields],
            [(place, name) for name, place in compiler.annotation_col_map.items()],
        )


def _object(known: _Compiled, row: list[Any]) -> Any:
    for place, functions, column in known.converters:
        for function in functions:
            row[place] = function(row[place], column, connection)
    names = [name for _, name in known.columns]
    made = known.model.from_db(connection.alias, names, [row[place] for place, _ in known.columns])
    for place, name in known.annotations:
        setattr(made, name, row[place])
    return made


def _flat(values: tuple[Value | tuple[Value, ...], ...]) -> list[Value]:
    return [each for value in values for each in (value if isinstance(value, tuple) else (value,))]


def _marker(value: Value) -> Value:
    """A value of the same kind that occurs nowhere else."""
    number = uuid4().int
    match value:
        case UUID():
            return UUID(int=number)
        case datetime():
            return datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=number % 10**17)
        case str():
            return f"{number:x}"
        case _:
            return number % 2**31


def _adapted(value: Value) -> Any:
    """As the database's driver takes it."""
    if isinstance(value, UUID):
        return _uuid.get_db_prep_value(value, connection)
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value
