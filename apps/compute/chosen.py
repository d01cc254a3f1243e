"""Which rows of a dataset a value shows, as far as public positions tell. For the words reader.

`None` for rows means all of them, or which is not known: a value may depend on fewer rows than this says, never more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from apps.compute.entries import Entry
from apps.compute.labels import PUBLIC, ROWS
from apps.compute.programs import Program
from apps.compute.targets import TARGETS, bind
from gridclient.program.graph import ASSET, Node, refs

DEEPEST = 64
FEW = 8
CHOICES = frozenset({"aten::select.int", "aten::slice.Tensor", "aten::index_select"})
COPIES = CHOICES | {
    "aten::t", "aten::transpose.int", "aten::permute", "aten::unsqueeze", "aten::squeeze.dim", "aten::squeeze.dims",
    "aten::view", "aten::_unsafe_view", "aten::flip", "aten::clone", "grid::column", "grid::columns",
}  # fmt: skip
"""Operations that give entries of their operand as they are."""

Rows = tuple[int, ...] | range | None


class Chosen(NamedTuple):
    """By dataset version, the rows that a value depends on. `exact`: it is their entries, unmodified."""

    rows: dict[tuple[str, int], Rows]
    exact: bool


def positions(sequence: tuple[Any, ...] | None) -> range | None:
    """The positions in their dataset of the rows of a label; None where the program doesn't say."""
    steps: list[tuple[Any, ...]] = []
    while sequence and sequence[0] in ("slice", "flip") and len(steps) < DEEPEST:
        steps.append(sequence)
        sequence = sequence[-1]
    if not sequence or sequence[0] != "asset":
        return None
    found = range(sequence[2])
    for step in reversed(steps):
        found = found[::-1] if step[0] == "flip" else found[step[1] : step[2] : step[3]]
    return found


def chosen(program: Program, entry: Entry, known: dict[int, Chosen], index: tuple[int, ...]) -> Chosen:
    """What a node's value shows. `known`: the same of the nodes before; `index`: a constant index, where there is one.

    Nodes that depend on nothing private show nothing.
    """
    node, label = entry.node, entry.facts[0].label
    if all(fact.label.kind == PUBLIC for fact in entry.facts):
        return Chosen({}, False)
    if node.op == ASSET:
        return Chosen({(found.dataset, found.version): None for found in label.inputs}, True)
    private = list({ref.node: ref for ref in refs(node) if program.fact(ref).label.kind != PUBLIC}.values())
    merged: dict[tuple[str, int], Rows] = {}
    for ref in private:
        for key, rows in known[ref.node].rows.items():
            merged[key] = _union(merged[key], rows) if key in merged else rows
    exact = node.op in COPIES and len(private) == 1 and known[private[0].node].exact
    if node.op not in CHOICES:
        return Chosen(merged, exact)
    bound = bind(TARGETS[node.op], node)
    if bound["self"] != private[0]:  # a public table, looked up by private codes
        return Chosen(merged, False)
    value = program.fact(private[0])
    if node.op == "aten::slice.Tensor" and value.shape == entry.facts[0].shape:
        return Chosen(merged, exact)
    found = _choice(program, node, bound, index)
    if found is not None:
        merged = dict.fromkeys(merged, found)
    # What a choice leaves of other axes has a name only where these are declared columns.
    columns = value.label.columns is not None and value.label.columns.axis == axis_of(value.shape, bound["dim"])
    return Chosen(merged, exact and (columns or found is not None or _single(merged)))


def _choice(program: Program, node: Node, bound: dict[str, Any], index: tuple[int, ...]) -> Rows:
    """The positions of the rows that a choice along the entity axis leaves; None where it leaves all."""
    value = program.fact(bound["self"])
    if value.label.kind != ROWS or axis_of(value.shape, bound["dim"]) != value.label.axis:
        return None
    before = positions(value.label.rows)
    if before is None:
        return None
    if node.op == "aten::select.int":
        return (before[bound["index"]],)
    if node.op == "aten::slice.Tensor":
        return before[slice(bound["start"], bound["end"], bound["step"])]
    return tuple(sorted({before[place] for place in index if 0 <= place < len(before)})) if index else None


def axis_of(shape: Sequence[int], dim: int) -> int:
    """The axis that a possibly negative `dim` names."""
    return dim % max(len(shape), 1)


def _single(rows: dict[tuple[str, int], Rows]) -> bool:
    return all(found is not None and len(found) == 1 for found in rows.values())


def _union(first: Rows, second: Rows) -> Rows:
    if first is None or second is None:
        return None
    if first == second:
        return first
    both = set(first) | set(second) if len(first) + len(second) <= 2 * FEW else set()
    return tuple(sorted(both)) if 0 < len(both) <= FEW else None
