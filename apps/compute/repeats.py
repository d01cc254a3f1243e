"""What was judged of a plan's calls, so that the next equal call need not be judged. For workers only.

**Why the key is complete.** What a node gives is decided by `Judge.step`, from its operation, its static arguments with
their Python types and the facts about its operands (label, shape, dtype, table); what it owes to modules, by
`Training`, from the same and from what its operands owe; what it was made from is the union over its operands. So by
induction over a plan's operations, everything that is decided about them follows from

- the plan itself: operations, static arguments (floats by value) and constants by digest. A plan is known by identity
  here, not by a digest that somebody named.
- of each input: its fact, the assets it was made from and its marks. A fact says the whole label: kind, datasets and
  their versions and columns, entity axis, row sequence, null records, closed answer. Facts compare by identity and are
  kept alive by the key, so that two that differ are never taken for one another; at worst equal ones are judged twice.

Three things besides could differ between two calls, and no call that has one of them is kept or found: a seed, which is
an argument; the lineage of an index, which names the rows that it chooses (`Known.repeats`); and an input that failed
or is not there. Assets and parameters, whose judging looks at what a session was given, cannot stand inside a plan. The
limits of a session never change. Where values lie in the program, and which inputs are one value, decides about
nothing but lineage and needs, and these are found out for every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from apps.compute.calls import Call
from apps.compute.entries import Entry, Judged

MOST = 2**16
"""Nodes of all calls that are kept together."""


class Repeats:
    """By key of a call, what was judged of its nodes. Bounded: what was used longest ago goes."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, list[Judged]] = OrderedDict()
        self._nodes = 0

    def key(self, call: Call, entries: Mapping[int, Entry]) -> Any:
        """What decides about a call's nodes; None where it must be judged by itself."""
        if not call.plan.repeats:
            return None
        key: list[Any] = [call.plan]
        for ref in call.operands:
            entry = entries.get(ref.node)
            if entry is None or not 0 <= ref.output < len(entry.facts):
                return None
            key += (entry.facts[ref.output], entry.assets, entry.marks)
        return tuple(key)

    def find(self, key: Any) -> list[Judged] | None:
        """What was judged of an equal call."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def keep(self, key: Any, entries: Sequence[Entry | None]) -> None:
        """Keep what was judged of a call's nodes, if none of them failed."""
        judged = [entry.judged for entry in entries if entry is not None]
        if key is None or len(judged) < len(entries) or len(judged) > MOST:
            return
        self._known[key] = judged
        self._nodes += len(judged)
        while self._nodes > MOST:
            self._nodes -= len(self._known.popitem(last=False)[1])
