"""One row of the table of operations, and what an operation costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log2, prod
from typing import Any

from apps.compute.labels import Shape
from apps.compute.rules import Rule

Cost = Callable[[list[Shape], list[Shape]], int]


def per_output(operands: list[Shape], outputs: list[Shape]) -> int:
    """One operation for each element of the result."""
    return sum(map(prod, outputs))


def per_input(operands: list[Shape], outputs: list[Shape]) -> int:
    """One operation for each element of the operands."""
    return sum(map(prod, operands)) + sum(map(prod, outputs))


def several(operands: list[Shape], outputs: list[Shape]) -> int:
    """A transcendental function, or a few passes, for each element."""
    return 10 * per_input(operands, outputs)


def comparing(operands: list[Shape], outputs: list[Shape]) -> int:
    """n log n comparisons."""
    return sum(int(prod(shape) * (1 + log2(max(prod(shape), 1)))) for shape in operands)


def multiplying(operands: list[Shape], outputs: list[Shape]) -> int:
    """Two for each pair that is multiplied and added; the second to last operand has the contracted axis last."""
    contracted = operands[-2][-1] if len(operands) > 1 and operands[-2] else 1
    return 2 * contracted * sum(map(prod, outputs)) + per_input(operands, outputs)


def distancing(operands: list[Shape], outputs: list[Shape]) -> int:
    """A few for each pair of rows and each of their elements."""
    width = operands[-1][-1] if operands and operands[-1] else 1
    return 10 * (per_input(operands, outputs) + width * sum(map(prod, outputs)))


def factoring(operands: list[Shape], outputs: list[Shape]) -> int:
    """About 20 n³ for each matrix of n rows: the dearest of the usual factorisations."""
    matrices = operands[0]
    return 20 * prod(matrices) * max(matrices[-2:], default=1) + per_input(operands, outputs)


def drawing(operands: list[Shape], outputs: list[Shape]) -> int:
    """A few random bits and a function of them, for each element."""
    return 20 * sum(map(prod, outputs))


def nothing(operands: list[Shape], outputs: list[Shape]) -> int:
    """Another view of the same bytes."""
    return 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. `words` is filled with the arguments by the schema's names.

    `rule` None: TAINTED where an operand is private. `chooses`: it can pick out rows, which a reviewer looks at first.
    `probe`: what kernels refuse by dtype is found out on tiny values before anything runs, because meta tensors do
    not tell. `window`: the argument whose extents multiply the cost, and how many axes it has.
    """

    name: str
    rule: Rule | None
    cost: Cost
    words: str
    chooses: bool = False
    probe: bool = False
    window: tuple[str, int] | None = None

    def price(self, args: Mapping[str, Any], operands: list[Shape], outputs: list[Shape]) -> int:
        """The cost of one call."""
        each = self.cost(operands, outputs)
        if self.window is None:
            return each
        name, axes = self.window
        extents = args[name]
        # One extent stands for all axes.
        return each * prod(extents) ** (axes // len(extents))


def aten(
    rule: Rule | None,
    cost: Cost,
    names: dict[str, str],
    *,
    chooses: bool = False,
    probe: bool = False,
    window: tuple[str, int] | None = None,
) -> list[Operation]:
    """Rows that differ in name and words only."""
    return [Operation(f"aten::{name}", rule, cost, words, chooses, probe, window) for name, words in names.items()]
