"""The words reader: a program as a text that a reviewer understands. Needs no torch: the worker sums constants up.

The text begins with one sentence on what comes out and the columns that it depends on, then lists under "Look at
this" the steps that can single out people, then all steps, repeated ones folded. Nothing in it depends on private
values.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from apps.compute.operations import TABLE
from apps.compute.readers.outcome import Outcome, numbers, reads_text, sentence
from apps.compute.readers.visible import visible
from gridclient.program.graph import ASSET, CONSTANT, Dtype, Ref

LONGEST_PERIOD = 64
FEWEST_REPEATS = 3
MOST_LINES = 500
MOST_STEPS = 20_000


class Summary(msgspec.Struct, frozen=True):
    """A constant, summed up. `positions` where few elements are not 0; `values` where there are few elements.

    `unlike`: where a few elements differ from all others.
    """

    dtype: str
    shape: tuple[int, ...]
    nonzero: int
    low: float | None
    high: float | None
    not_finite: int = 0
    positions: tuple[tuple[int, ...], ...] = ()
    values: tuple[float, ...] = ()
    unlike: tuple[tuple[int, ...], ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    def singles_out(self) -> bool:
        """Whether a few of many elements are not 0, or unlike the others: as a weight or an index it picks rows."""
        return self.size > 1 and bool(self.positions or self.unlike)

    def text(self) -> str:
        """In words, without the digest."""
        kind = f"of {numbers(self.shape)}, {self.dtype}"
        if self.values and not self.singles_out():
            return f"constant {kind}: {', '.join(f'{value:g}' for value in self.values)}"
        parts = [f"{self.nonzero} of {self.size} not 0"]
        if self.positions:
            where = ", ".join(_position(position) for position in self.positions)
            parts = [
                f"one row: position {where}"
                if self.nonzero == 1
                else f"only {self.nonzero} of {self.size} not 0: positions {where}"
            ]
        elif self.unlike:
            where = ", ".join(_position(position) for position in self.unlike)
            parts.append(f"{len(self.unlike)} unlike all others: position {where}")
        if self.low is not None and self.high is not None:
            parts.append(f"all {self.low:g}" if self.low == self.high else f"values from {self.low:g} to {self.high:g}")
        if self.not_finite:
            parts.append(f"{self.not_finite} not finite")
        return f"constant {kind}: {'; '.join(parts)}"


class Step(msgspec.Struct, frozen=True):
    """One step. `args` by the schema's names, with `Ref` to earlier steps. `look` says why a reviewer should look.

    `part` names what it chooses of its operand: "row at position 3", "column weight". `rows`, `columns`: the axes of
    its operand on which these lie.
    """

    id: int
    op: str
    args: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    label: str
    look: str = ""
    name: str = ""  # of an asset: "births (version 2)"
    part: str = ""
    rows: int | None = None
    columns: int | None = None
    constant: Summary | None = None


def describe(steps: list[Step], outcome: Outcome) -> str:
    """The program in words."""
    lines = [sentence(outcome), *map(reads_text, outcome.reads)]
    look = [f"  step {step.id}: {step.look}" for step in sorted(steps, key=_rank) if step.look]
    if look:
        lines += ["", "Look at this:", *_shortened(_grouped(look))]
    lines += ["", f"All {len(steps)} steps, the answer is step {outcome.step}:"]
    lines += _shortened(_folded(steps[:MOST_STEPS]))
    counts = Counter(step.op for step in steps[MOST_STEPS:])
    lines += [f"  ... and {count} more times {op}" for op, count in counts.most_common()]
    return "\n".join(lines) + "\n"


def step_text(step: Step) -> str:
    """What a step does, without its number."""
    if step.op == ASSET:
        return visible(step.name)
    if step.op == CONSTANT and step.constant is not None:
        return step.constant.text()
    if step.part:
        return f"{step.part} of {_argument(step.args['self'])} → {_kind(step)}"
    template = TABLE[step.op].words
    shown = {name: _argument(value) for name, value in step.args.items()}
    for name in ("dim", "dims"):
        if f"along {{{name}}}" in template:
            shown[name] = _axes(step, step.args[name])
    return f"{template.format_map(shown)} → {_kind(step)}"


def _axes(step: Step, dims: Any) -> str:
    known = {step.rows: "the rows", step.columns: "the columns"}
    if dims is None or dims == []:
        return "all axes"
    return " and ".join(known.get(dim, f"axis {dim}") for dim in (dims if isinstance(dims, list) else [dims]))


def _rank(step: Step) -> tuple[int, int]:
    # One person before some, data before conditions; then in order.
    order = ["one row", "rows", "constant", "much comes out", "a huge number", "a condition"]
    return next((place for place, start in enumerate(order) if step.look.startswith(start)), len(order)), step.id


def _kind(step: Step) -> str:
    return f"table of {step.shape[0]} rows" if not step.dtype else f"{numbers(step.shape)}, {step.dtype}"


def _position(position: tuple[int, ...]) -> str:
    return str(position[0]) if len(position) == 1 else f"({', '.join(map(str, position))})"


def _argument(value: Any) -> str:
    if isinstance(value, Ref):
        return f"[{value.node}]" if value.output == 0 else f"[{value.node}, output {value.output}]"
    if isinstance(value, Dtype):
        return value.name
    if isinstance(value, list):
        return f"({', '.join(map(_argument, value))})"
    if isinstance(value, str):
        return f"“{visible(value)}”"
    return "all" if value is None else str(value)


def _fixed(step: Step) -> tuple[object, ...]:
    return step.op, step.shape, step.dtype, step.look, step.name, step.constant, step.part, step.rows, step.columns


def _same(first: Step, second: Step, period: int) -> bool:
    """Whether `second` is `first` again, `period` steps later: references move along, or stay where they are."""

    def like(a: Any, b: Any) -> bool:
        if isinstance(a, Ref) and isinstance(b, Ref):
            return a.output == b.output and b.node - a.node in (0, period)
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(like, a, b))
        return type(a) is type(b) and bool(a == b)

    return (
        _fixed(first) == _fixed(second)
        and first.args.keys() == second.args.keys()
        and all(like(first.args[name], second.args[name]) for name in first.args)
    )


def _folded(steps: list[Step]) -> list[str]:
    lines = []
    at = 0
    while at < len(steps):
        period, repeats = _repetition(steps, at)
        block = steps[at : at + period]
        if repeats >= FEWEST_REPEATS:
            lines.append(f"  steps {block[0].id} to {steps[at + period * repeats - 1].id}: {repeats} times")
            lines += [f"    [{step.id}] {step_text(step)}" for step in block]
            at += period * repeats
        else:
            lines.append(f"  [{steps[at].id}] {step_text(steps[at])}")
            at += 1
    return lines


def _repetition(steps: list[Step], at: int) -> tuple[int, int]:
    """The shortest period from `at` on that repeats often enough, and how often."""
    for period in range(1, LONGEST_PERIOD + 1):
        if at + period * FEWEST_REPEATS > len(steps):
            break
        end = at + period
        while end < len(steps) and _same(steps[end - period], steps[end], period):
            end += 1
        repeats = (end - at) // period
        if repeats >= FEWEST_REPEATS:
            return period, repeats
    return 1, 1


def _grouped(lines: list[str]) -> list[str]:
    """Alike reasons once, with all their steps' numbers counted."""
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        number, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(number.strip())
    return [
        f"  {numbers[0]}{f' and {len(numbers) - 1} more' if len(numbers) > 1 else ''}: {reason}"
        for reason, numbers in by_reason.items()
    ]


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[: MOST_LINES - 1], f"  ... and {len(lines) - MOST_LINES + 1} more lines"]
