"""The one decision: may this user do this with this dataset?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apps.permissions.models import Grant


@dataclass(frozen=True, slots=True)
class Input:
    """One dataset version that a value depends on. `columns`: the names it depends on; None means all."""

    dataset: str
    version: int
    columns: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """A member of the closed set: `kind` "count", "sum" or "mean" of `columns` over all rows of one version."""

    kind: str
    dataset: str
    version: int
    columns: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ask:
    """What the label reader found out about a value: `label` is "public", "rows", "agg" or "tainted"."""

    label: str
    inputs: list[Input]
    closed: Closed | None = None
    program_hash: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The value may leave. `route`: "public", "read", "aggregate" or "approved"; `grant`: what allows it."""

    route: str
    grant: Grant | None = None
