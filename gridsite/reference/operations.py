"""The page of operations, from their table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from apps.compute.operations import TABLE, Operation
from gridclient.program.operations import OPERATIONS, OPERATIONS_VERSION

_INTRODUCTION = f"""\
# Operations

Version {OPERATIONS_VERSION} of the set: {len(OPERATIONS)} operations. A program holds these and nothing else: recording
refuses any other name, and so does the node.

A label says what of a value may be released. An operation on public values only gives a public value; the rules below
are asked when an operand is private, and what a rule does not name is *tainted*: it can leave through the queue only.
Costs are floating point operations.

| operation | reads as | label rule | cost |
|---|---|---|---|
"""


def _first_paragraph(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")


def _row(operation: Operation) -> str:
    words = re.sub(r"\{(\w+)\}", r"*\1*", operation.words)
    rule = f"[{operation.rule.__name__}](#{operation.rule.__name__})" if operation.rule else ""
    cells = (f"`{operation.name}`", words, rule, _first_paragraph(operation.cost).rstrip("."))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def page() -> str:
    """`docs/reference/operations.md`."""
    rules = {operation.rule.__name__: operation.rule for operation in TABLE.values() if operation.rule}
    sections = [f"### {name}\n\n{_first_paragraph(rule)}\n" for name, rule in sorted(rules.items())]
    table = "\n".join(_row(operation) for operation in TABLE.values())
    return f"{_INTRODUCTION}{table}\n\n## Label rules\n\n" + "\n".join(sections)
