"""Repeated steps, said once. Only what is truly the same folds: contents of constants and every number included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from apps.compute.readers.steps import Step
from gridclient.program.graph import Ref

LONGEST_PERIOD = 64
FEWEST_REPEATS = 3


class Block(NamedTuple):
    """Steps that follow each other `repeats` times; `last` is the last step of the last time."""

    steps: list[Step]
    repeats: int
    last: int


def folded(steps: list[Step], identities: Mapping[int, str]) -> Iterator[Block]:
    """The steps in order, repeated ones as one block. `identities`: of all steps of the program, by number."""
    run = _Run(steps, identities)
    at = 0
    while at < len(steps):
        period, repeats = run.repetition(at)
        yield Block(steps[at : at + period], repeats, steps[at + period * repeats - 1].id)
        at += period * repeats


class _Run:
    """The steps, with what is compared most often found out once."""

    def __init__(self, steps: list[Step], identities: Mapping[int, str]) -> None:
        known: dict[Any, int] = {}
        self._kinds = [known.setdefault(_fixed(step), len(known)) for step in steps]
        self._refs = [step.refs() for step in steps]
        self._places = {step.id: place for place, step in enumerate(steps)}
        self._identities = identities

    def repetition(self, at: int) -> tuple[int, int]:
        """The shortest period from `at` on that repeats often enough, and how often."""
        for period in range(1, LONGEST_PERIOD + 1):
            if at + period * FEWEST_REPEATS > len(self._kinds):
                break
            moves: list[list[bool]] = []
            end = at + period
            while end < len(self._kinds) and (found := self._moves(end, period)) is not None:
                # What moves along once moves along each time.
                if len(moves) >= period and found != moves[len(moves) - period]:
                    break
                moves.append(found)
                end += 1
            repeats = (end - at) // period
            if repeats >= FEWEST_REPEATS:
                return period, repeats
        return 1, 1

    def _moves(self, at: int, period: int) -> list[bool] | None:
        """Which references of a step moved along since `period` steps before; None where it is another step."""
        before = at - period
        if self._kinds[before] != self._kinds[at]:
            return None
        moves = []
        for old, new in zip(self._refs[before], self._refs[at], strict=True):
            if self._identities[old.node] == self._identities[new.node]:
                moves.append(False)
            elif self._places.get(new.node, -1) - self._places.get(old.node, -1) == period and old.node in self._places:
                moves.append(True)
            else:
                return None
        return moves


def _fixed(step: Step) -> tuple[object, ...]:
    """Everything about a step but its number and those of its operands."""
    args = tuple((name, _static(value)) for name, value in step.args.items())
    own = step.identity if step.constant is not None or not step.args else ""
    return (
        step.op, args, own, step.shape, step.dtype, step.look, step.name, step.part, step.rows, step.columns,
        step.comes_to,
    )  # fmt: skip


def _static(value: Any) -> object:
    if isinstance(value, Ref):
        return Ref, value.output
    if isinstance(value, list):
        return tuple(map(_static, value))
    return type(value), repr(value)
