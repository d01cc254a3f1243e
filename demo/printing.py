"""How the walk speaks: numbered steps, indented results, lines of at most 100 columns."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import torch

WIDTH = 100
INDENT = "    "
CLOSE = 1e-12
"""Relative difference between sums of the same numbers in another order."""


class StepFailed(Exception):
    """A step of the walk did not hold."""


@dataclass
class Printer:
    """Numbers the steps and prints what happened."""

    steps: int = 0

    def step(self, text: str) -> None:
        self.steps += 1
        print("\n" + _wrapped(text, f"{self.steps:2}. ", INDENT), flush=True)

    def show(self, text: str) -> None:
        for line in text.strip().splitlines():
            # What a line is indented by, its continuation is too.
            inner = INDENT + line[: len(line) - len(line.lstrip())]
            print(_wrapped(line.strip(), inner, inner) if line.strip() else "", flush=True)

    def code(self, *lines: str) -> None:
        """What one types, in one or more lines."""
        for prompt, line in zip([">>> ", *["... "] * len(lines)], lines, strict=False):
            print(f"{INDENT}{prompt}{line}", flush=True)

    def equal(self, name: str, got: torch.Tensor, clear: torch.Tensor, *, exact: bool = True) -> None:
        """Print a result, and stop unless it is the one in the clear.

        To the last bit; or, where the numbers were added in another order, to twelve digits.
        """
        same = got.shape == clear.shape and (
            torch.equal(got, clear) if exact else torch.allclose(got, clear, rtol=CLOSE, atol=0)
        )
        if not same:
            raise StepFailed(f"{name}: the grid says {got}, in the clear it is {clear}")
        self.show(f"{name}: {short(got)}   (the same in the clear{'' if exact else ', to twelve digits'})")


def short(value: torch.Tensor) -> str:
    """Numbers with at most four digits after the point."""
    numbers = [f"{number:.4f}".rstrip("0").rstrip(".") for number in value.double().reshape(-1).tolist()]
    return numbers[0] if value.dim() == 0 else "[" + ", ".join(numbers) + "]"


def _wrapped(text: str, first: str, later: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
