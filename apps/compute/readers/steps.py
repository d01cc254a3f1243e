"""One step of a program in words, and public values summed up. Needs no torch."""

from __future__ import annotations

from typing import Any

import msgspec

from apps.compute.operations import TABLE
from apps.compute.readers.outcome import numbers
from gridclient.program.graph import ASSET, CONSTANT, Dtype, Ref
from gridclient.wire.visible import visible

MOST_POSITIONS = 8


class Summary(msgspec.Struct, frozen=True):
    """A public value, summed up. `positions` where few elements are not 0; `values` where there are few elements.

    `unlike`: where a few elements differ from all others. `beside`: the few positions where it differs from another
    public value of the program. `uneven`: by axis, how many of the lines along it leave positions out, or weigh some
    far above the others.
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
    beside: tuple[tuple[int, ...], ...] = ()
    uneven: tuple[int, ...] = ()

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

    def text(self, what: str = "constant") -> str:
        """In words."""
        return f"{what} of {numbers(self.shape)}, {self.dtype}: {self.content()}"

    def content(self) -> str:
        """In words, without shape and dtype."""
        if self.values and not self.singles_out():
            return ", ".join(f"{value:g}" for value in self.values)
        parts = [f"{self.nonzero} of {self.size} not 0"]
        if self.positions and self.nonzero == 1:
            parts = [f"one row: position {places(self.positions)}"]
        elif self.positions:
            parts = [f"only {self.nonzero} of {self.size} not 0: positions {places(self.positions)}"]
        elif self.unlike:
            parts.append(f"{len(self.unlike)} unlike all others: position {places(self.unlike)}")
        if self.low is not None and self.high is not None:
            parts.append(f"all {self.low:g}" if self.low == self.high else f"values from {self.low:g} to {self.high:g}")
        if self.not_finite:
            parts.append(f"{self.not_finite} not finite")
        return "; ".join(parts)


class Step(msgspec.Struct, frozen=True):
    """One step. `args` by the schema's names, with `Ref` to earlier steps. `look` says why a reviewer should look.

    `identity` is equal for steps that are truly the same: operation, arguments, contents of constants, all the way
    back. `public`: it takes nothing private. `part` names what it chooses of its operand: "row at position 3",
    "column weight". `rows`, `columns`: the axes of its operand on which these lie.
    """

    id: int
    op: str
    identity: str
    public: bool
    args: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    look: str = ""
    name: str = ""  # of an asset: "births (version 2)"
    part: str = ""
    rows: int | None = None
    columns: int | None = None
    constant: Summary | None = None
    comes_to: str = ""  # what its value is, where private steps take it

    def refs(self) -> list[Ref]:
        """All steps that it takes, in the order of its arguments."""
        values = (value if isinstance(value, list) else [value] for value in self.args.values())
        return [item for value in values for item in value if isinstance(item, Ref)]


def places(positions: tuple[tuple[int, ...], ...]) -> str:
    """ "17", "(17, 0), (18, 0)"; the first ones of many."""
    shown = [str(place[0]) if len(place) == 1 else f"({', '.join(map(str, place))})" for place in positions]
    more = len(shown) - MOST_POSITIONS
    return ", ".join(shown[:MOST_POSITIONS]) + (f" and {more} more" if more > 0 else "")


def step_text(step: Step, *, numbered: bool = True) -> str:
    """What a step does, without its number; without those of its operands too where not `numbered`."""
    if step.op == ASSET:
        return visible(step.name)
    if step.op == CONSTANT:
        kind = f"constant of {_kind(step)}, not looked into"
        return kind if step.constant is None else step.constant.text()
    comes_to = f": {step.comes_to}" if step.comes_to else ""
    shown = {name: _argument(value, numbered) for name, value in step.args.items()}
    if step.part:
        return f"{step.part} of {shown['self']} → {_kind(step)}{comes_to}"
    template = TABLE[step.op].words
    for name in ("dim", "dims"):
        if f"along {{{name}}}" in template:
            shown[name] = _axes(step, step.args[name])
    return f"{template.format_map(shown)} → {_kind(step)}{comes_to}"


def _axes(step: Step, dims: Any) -> str:
    known = {step.rows: "the rows", step.columns: "the columns"}
    if dims is None or dims == []:
        return "all axes"
    return " and ".join(known.get(dim, f"axis {dim}") for dim in (dims if isinstance(dims, list) else [dims]))


def _kind(step: Step) -> str:
    return f"table of {step.shape[0]} rows" if not step.dtype else f"{numbers(step.shape)}, {step.dtype}"


def _argument(value: Any, numbered: bool) -> str:
    if isinstance(value, Ref):
        number = value.node if numbered else ""
        return f"[{number}]" if value.output == 0 else f"[{number}, output {value.output}]"
    if isinstance(value, Dtype):
        return value.name
    if isinstance(value, list):
        return f"({', '.join(_argument(item, numbered) for item in value)})"
    if isinstance(value, str):
        return f"“{visible(value)}”"
    return "all" if value is None else str(value)
