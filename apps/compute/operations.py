"""The table of operations: one row of rules for every name in `gridclient.program.operations`, held equal by a test.

A row says which label the result gets, what it costs and how it reads; the rows are in `rows/`, by theme. The ATen
overload behind a name and its total form are in `targets.py`, for workers: this module needs no torch.
"""

from __future__ import annotations

from apps.compute.rows import arithmetic, backward, indexing, layout, networks, products, random, reductions
from apps.compute.rows.base import Cost, Operation

_THEMES = (arithmetic, reductions, products, layout, indexing, random, networks, backward)
TABLE: dict[str, Operation] = {row.name: row for theme in _THEMES for row in theme.ROWS}
"""The rows by name."""

PRESENCE = frozenset(["aten::sum", "aten::sum.dim_IntList", "aten::mean", "aten::mean.dim", "grid::count"])
"""What may be done along the entity axis of padded rows: these count records only."""

__all__ = ["PRESENCE", "TABLE", "Cost", "Operation"]
