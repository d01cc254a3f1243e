"""The words reader: a program as a text that a reviewer understands. Needs no torch: the worker sums values up.

The text begins with one sentence on what comes out and the columns that it depends on, then lists under "Look at
this" the steps that can single out people, then all steps, repeated ones folded: first those that take private
values, all of them, then those on public values alone, of which many are counted only. Nothing in it depends on
private values.
"""

from __future__ import annotations

from collections import Counter

from apps.compute.readers.folding import FEWEST_REPEATS, Block, folded
from apps.compute.readers.outcome import Outcome, reads_text, sentence, state_lines
from apps.compute.readers.steps import Step, step_text
from gridclient.program.graph import CONSTANT
from gridclient.wire.errors import LimitExceededError

MOST_PRIVATE_LINES = 2000
MOST_PRIVATE_LETTERS = 400_000
MOST_PUBLIC_LINES = 200
MOST_PUBLIC_STEPS = 20_000
FIRST = ["one row", "rows", "a weight", "a public weight", "much comes out", "a huge number", "a condition"]
"""What is looked at first: one person before some, data before conditions."""


def describe(steps: list[Step], outcome: Outcome) -> str:
    """The program in words. Raises LimitExceededError where what it does with private values is too long to read."""
    identities = {step.id: step.identity for step in steps}
    unclear = _unclear(steps)
    private = _private_lines([step for step in steps if not step.public], identities)
    public = _public_lines([step for step in steps if step.public], identities, unclear)
    lines = [sentence(outcome), *map(reads_text, outcome.reads)]
    look = _look_lines(steps)
    if look:
        lines += ["", "Look at this:", *look]
    if outcome.state:
        lines += ["", "What is in the state:", *state_lines(outcome), "", f"All {len(steps)} steps:", *private]
    else:
        lines += ["", f"All {len(steps)} steps, the answer is step {outcome.step}:", *private]
    if private and public:
        lines += ["", "On public values alone:"]
    return "\n".join(lines + public) + "\n"


def _look_lines(steps: list[Step]) -> list[str]:
    """The reasons to look, alike ones once. There are no more of them than lines on private values."""
    alike: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        if step.look:
            alike.setdefault((step.look, step_text(step, numbered=False)), []).append(step)
    found = sorted(alike.values(), key=lambda group: (_rank(group[0]), group[0].id))
    return [
        f"  step {first.id}{f' and {len(more)} more' if more else ''}: {first.look}: {step_text(first)}"
        for first, *more in found
    ]


def _rank(step: Step) -> int:
    return next((place for place, start in enumerate(FIRST) if step.look.startswith(start)), len(FIRST))


def _private_lines(steps: list[Step], identities: dict[int, str]) -> list[str]:
    lines: list[str] = []
    letters = 0
    for block in folded(steps, identities):
        added = _block_lines(block, frozenset())
        lines += added
        letters += sum(map(len, added))
        if len(lines) > MOST_PRIVATE_LINES or letters > MOST_PRIVATE_LETTERS:
            raise LimitExceededError(
                f"This program is too long for a person to read: {len(steps)} steps take private values, and with "
                f"repeated ones said once they are more than {MOST_PRIVATE_LINES} lines or {MOST_PRIVATE_LETTERS} "
                "letters. Ask for less at a time.",
                limit=MOST_PRIVATE_LINES,
                steps=len(steps),
            )
    return lines


def _public_lines(steps: list[Step], identities: dict[int, str], unclear: frozenset[str]) -> list[str]:
    blocks = list(folded(steps[:MOST_PUBLIC_STEPS], identities))
    lines = [line for block in blocks for line in _block_lines(block, unclear)]
    if len(lines) <= MOST_PUBLIC_LINES and len(steps) <= MOST_PUBLIC_STEPS:
        return lines
    shown = [step for step in steps if step.comes_to][:MOST_PUBLIC_LINES]
    left = Counter(step.op for step in steps)
    left.subtract(step.op for step in shown)
    counts = ", ".join(f"{count} times {op}" for op, count in left.most_common() if count)
    return [
        *(f"  [{step.id}] {_text(step, unclear)}" for step in shown),
        f"  ... and {len(steps) - len(shown)} more steps: {counts}",
    ]


def _block_lines(block: Block, unclear: frozenset[str]) -> list[str]:
    if block.repeats < FEWEST_REPEATS:
        return [f"  [{step.id}] {_text(step, unclear)}" for step in block.steps]
    return [
        f"  steps {block.steps[0].id} to {block.last}: {block.repeats} times",
        *(f"    [{step.id}] {_text(step, unclear)}" for step in block.steps),
    ]


def _text(step: Step, unclear: frozenset[str]) -> str:
    contents = f"; contents {step.identity[:8]}" if step.identity in unclear else ""
    return step_text(step) + contents


def _unclear(steps: list[Step]) -> frozenset[str]:
    """The constants that read like another one with other contents."""
    alike: dict[str, set[str]] = {}
    for step in steps:
        if step.op == CONSTANT and not (step.constant is not None and step.constant.values):
            alike.setdefault(step_text(step), set()).add(step.identity)
    return frozenset(identity for found in alike.values() if len(found) > 1 for identity in found)
