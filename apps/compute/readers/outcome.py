"""The first sentence of a program's words: what comes out, of whom. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from gridclient.wire.visible import visible

MOST_NAMES = 12
UNBOUNDED = "in a way that no rule bounds: treat it as if it showed single rows"


class Read(msgspec.Struct, frozen=True):
    """What the answer depends on in one dataset version.

    `columns` None: it has none that are declared; `rows` None: all of them. `count`: how many rows there are,
    null records included where `padded`.
    """

    name: str
    columns: tuple[str, ...] | None
    rows: Sequence[int] | None
    count: int
    padded: bool = False


class Part(msgspec.Struct, frozen=True):
    """One tensor of a module's state, and which step gives it."""

    name: str
    step: int
    output: int
    shape: tuple[int, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What comes out: of step `step`, with its label, and "count", "sum" or "mean" where it is in the closed set.

    `state`: the tensors, where it is a module's state; `untrained`: why training did not make it, "" where it did.
    """

    step: int
    shape: tuple[int, ...]
    table: bool
    label: str
    closed: str
    reads: tuple[Read, ...]
    exact: bool
    state: tuple[Part, ...] = ()
    untrained: str = ""


def sentence(outcome: Outcome) -> str:
    """In plain words."""
    if outcome.state:
        return _state(outcome)
    amount = f"a table of {outcome.shape[0]} rows" if outcome.table else numbers(outcome.shape)
    amount = amount[0].upper() + amount[1:]
    reads = outcome.reads
    if outcome.label == "public" or not reads:
        return f"{amount} computed from nothing private."
    if outcome.closed:
        return f"{amount}: {_closed(outcome.closed, reads[0])}."
    names = " and ".join(_with_columns(read) for read in reads)
    if any(read.rows is not None for read in reads):
        rows = " and ".join(_with_columns(read, _rows(read)) for read in reads)
        return f"{amount}: {rows}." if outcome.exact else f"{amount} computed from nothing but {rows}."
    if outcome.exact:
        return f"{amount}: {' and '.join(_with_columns(read, 'every row of ') for read in reads)}."
    if outcome.label == "rows":
        return f"{amount}: each row by itself, of {names}, computed without hiding whose row it is."
    if outcome.label == "agg":
        return f"{amount} summed over rows of {names}, {UNBOUNDED}."
    return f"{amount} computed from {names}, {UNBOUNDED}."


def state_lines(outcome: Outcome) -> list[str]:
    """The tensors of a state, and which steps give them."""
    return [
        f"  “{visible(part.name)}”: {numbers(part.shape)}, step {part.step}"
        + (f", output {part.output}" if part.output else "")
        for part in outcome.state
    ]


def reads_text(read: Read) -> str:
    """Which columns are read."""
    if read.columns is None:
        return f"Reads {visible(read.name)}."
    return f"Reads {visible(read.name)}: {', '.join(map(named, read.columns)) or 'no column'}."


def numbers(shape: Sequence[int]) -> str:
    """ "84 x 2 numbers"; "one number" for no axes, or axes of one element."""
    if math.prod(shape) == 1:
        return "one number"
    return f"{' x '.join(map(str, shape))} numbers"


def named(name: str) -> str:
    """A column's name; in quotes where it could be taken for words around it."""
    shown = visible(name)
    return shown if shown.replace("_", "").replace("\\u{", "").replace("}", "").isalnum() else f"“{shown}”"


def columns_text(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """ "column a", "columns a and b", with the number of those that are left out."""
    shown = [named(name) for name in names[:most]]
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return f"{'column' if len(names) == 1 else 'columns'} {_listed(shown + more)}" if names else "no column"


def rows_text(rows: Sequence[int]) -> str:
    """ "row 3 (position 2)", "rows at positions 0 to 9", "rows at positions 1, 4 and 5"."""
    if len(rows) == 1:
        return f"row {rows[0] + 1} (position {rows[0]})"
    if not rows:
        return "no row"
    if isinstance(rows, range):
        every = abs(rows.step)
        step = f", one of every {every}," if every > 1 else ""
        return f"rows at positions {min(rows)} to {max(rows)}{step}"
    return f"rows at positions {_listed([str(row) for row in rows])}"


def _state(outcome: Outcome) -> str:
    count = len(outcome.state)
    what = f"The state of a module: {count} tensor{'s' if count > 1 else ''} with {numbers(outcome.shape)} in all"
    if not outcome.reads:
        return f"{what}, computed from nothing private."
    where = f"{what}, computed from {' and '.join(map(_with_columns, outcome.reads))}, {UNBOUNDED}."
    if outcome.exact:
        where += " A tensor of it is nothing but private values, unmodified."
    if outcome.untrained:
        return f"{where} It is not what training made of the module: {visible(outcome.untrained)}."
    return (
        f"{where} Training made it: each private tensor depends on the value that was sent, each trainable one also on "
        "a gradient of a loss of the module. That does not bound what it tells."
    )


def _closed(kind: str, read: Read) -> str:
    if kind == "count":
        return f"how many records {visible(read.name)} has"
    columns = read.columns or ()
    over = f"all records of {visible(read.name)} (at most {read.count})" if read.padded else _all_rows(read)
    return f"the {kind}{'s' if len(columns) > 1 else ''} of {columns_text(columns)} over {over}"


def _all_rows(read: Read) -> str:
    return f"all {read.count} rows of {visible(read.name)}"


def _rows(read: Read) -> str:
    return f"{_all_rows(read) if read.rows is None else rows_text(read.rows) + ' of '}"


def _with_columns(read: Read, rows: str = "") -> str:
    name = "" if rows.endswith(visible(read.name)) else visible(read.name)
    return f"{rows}{name}" + ("" if read.columns is None else f", {columns_text(read.columns)}")


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
