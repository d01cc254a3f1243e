"""Querysets whose SQL is compiled once: on the path of every release, Django's compiler costs five times the query."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import JSONField, Model, QuerySet, UUIDField
from django.db.models.base import ModelState

M = TypeVar("M", bound=Model)
Value = UUID | datetime | str | int
_uuid: Any = UUIDField()


def execute(sql: str, parameters: Sequence[Any], *, using: str = DEFAULT_DB_ALIAS) -> Any:
    """Run one statement, with `%s` for parameters, on the driver itself; returns the driver's cursor.

    Without Django's cursor, which parses the statement again each time and costs more than it.
    """
    database = connections[using]
    database.ensure_connection()
    with database.wrap_database_errors:
        cursor = database.connection.cursor()
        cursor.execute(_question_marks(sql) if database.vendor == "sqlite" else sql, parameters)
        return cursor


def execute_together(statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Run statements one after the other whose results nobody reads: in one call, where the driver can do that.

    While a row is locked that everybody waits for, each way to the server and back is everybody's.
    """
    if connections[DEFAULT_DB_ALIAS].vendor == "sqlite":
        for sql, parameters in statements:
            execute(sql, parameters)
    else:
        execute("; ".join(sql for sql, _ in statements), [value for _, given in statements for value in given])


def of_many(sql: str, rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """A statement that inserts one row, and the parameters of several: the one that inserts them all."""
    head, given = sql.split(" VALUES ", 1)
    row = given[: given.index(")") + 1]
    sql = f"{head} VALUES {', '.join([row] * len(rows))}{given[len(row) :]}"
    return sql, [value for values in rows for value in values]


def adapted(value: Value) -> Any:
    """A parameter of `execute`, as the database's driver takes it."""
    return _adapted(value, connections[DEFAULT_DB_ALIAS])


def places(values: Sized) -> str:
    """As many `%s` in brackets, for `IN`."""
    return f"({', '.join(['%s'] * len(values))})"


def insert_if_new(row: Model) -> bool:
    """Insert the row. False where one with the same unique values was there, which stays as it is."""
    sql, values = insertion(row)
    return bool(execute(f"{sql} ON CONFLICT DO NOTHING", values).rowcount)


def insertion(row: Model) -> tuple[str, list[Any]]:
    """The statement that inserts the row, and its parameters."""
    database, table = connections[DEFAULT_DB_ALIAS], row._meta
    fields = [field for field in table.concrete_fields if field is not table.auto_field]
    sql = _insertion(table.db_table, tuple(field.column for field in fields))
    return sql, [field.get_db_prep_save(field.pre_save(row, True), database) for field in fields]


@cache
def _insertion(table: str, columns: tuple[str, ...]) -> str:
    named, given = ", ".join(f'"{column}"' for column in columns), ", ".join(["%s"] * len(columns))
    # Names of tables and columns come from models.
    return f'INSERT INTO "{table}" ({named}) VALUES ({given})'  # noqa: S608


@cache
def _question_marks(sql: str) -> str:
    return sql.replace("%s", "?").replace("%%", "%")


@dataclass(frozen=True, slots=True)
class _Compiled:
    """SQL with its parameters, of which those with a slot are replaced, and how a row becomes an object.

    `named`: place in the row and name of each field and annotation.
    """

    model: type[Model]
    sql: str
    slots: list[int | None]
    constants: list[Any]
    converters: list[tuple[int, list[Callable[..., Any]], Any]]
    named: list[tuple[int, str]]


class Prepared(Generic[M]):
    """Decorates a function that builds a queryset of whole rows from values; a call gives the rows as a list.

    The rows are for reading: what they hold as JSON is shared.

    Values are UUIDs, datetimes, texts, numbers, or tuples of these for `__in`; the function may only hand them
    on to filters, so that the SQL depends on nothing but the lengths of the tuples.
    """

    def __init__(self, build: Callable[..., QuerySet[M]]) -> None:
        self._build = build
        self._compiled: dict[tuple[Any, ...], _Compiled] = {}

    def __call__(self, *values: Value | tuple[Value, ...]) -> list[M]:
        database = connections[DEFAULT_DB_ALIAS]
        given = [_adapted(value, database) for value in _flat(values)]
        key = (database.vendor, *(len(value) if isinstance(value, tuple) else None for value in values))
        known = self._compiled.get(key)
        if known is None:
            known = self._compiled[key] = self._compile(values, database)
        slots = zip(known.slots, known.constants, strict=True)
        rows = execute(known.sql, [constant if slot is None else given[slot] for slot, constant in slots]).fetchall()
        return [_object(known, list(row), database) for row in rows]

    def _compile(self, values: tuple[Value | tuple[Value, ...], ...], database: Any) -> _Compiled:
        markers = [tuple(map(_marker, value)) if isinstance(value, tuple) else _marker(value) for value in values]
        marked = [_adapted(marker, database) for marker in _flat(tuple(markers))]
        rows = self._build(*markers)
        compiler: Any = rows.query.get_compiler(connection=database)
        sql, parameters = compiler.as_sql()
        selected = [column for column, _, _ in compiler.select]
        fields = compiler.klass_info["select_fields"]
        return _Compiled(
            rows.model,
            sql,
            [marked.index(parameter) if parameter in marked else None for parameter in parameters],
            list(parameters),
            [
                (place, [_parsed] if isinstance(getattr(column, "target", None), JSONField) else functions, column)
                for place, (functions, column) in compiler.get_converters(selected).items()
            ],
            [(place, selected[place].target.attname) for place in fields]
            + [(place, name) for name, place in compiler.annotation_col_map.items()],
        )


def _object(known: _Compiled, row: list[Any], database: Any) -> Any:
    for place, functions, column in known.converters:
        for function in functions:
            row[place] = function(row[place], column, database)
    # Without the model's own constructor, which costs more than the query. A field that was left out with `only` is
    # loaded when it is asked for, as ever.
    made: Any = known.model.__new__(known.model)
    made._state = ModelState()
    made._state.adding, made._state.db = False, database.alias
    made.__dict__.update([(name, row[place]) for place, name in known.named])
    return made


@lru_cache(256)
def _json(text: str) -> Any:
    return json.loads(text)


def _parsed(text: Any, column: Any, database: Any) -> Any:
    # The columns of a wide dataset take longer to parse than to find.
    return _json(text) if isinstance(text, str) else text


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


def _adapted(value: Value, database: Any) -> Any:
    """As the database's driver takes it."""
    if isinstance(value, UUID):
        return _uuid.get_db_prep_value(value, database)
    if isinstance(value, datetime):
        return database.ops.adapt_datetimefield_value(value)
    return value
