"""Whose rows they are: from the row sequence of a label back to the entities of the version that it was read from.

Rows may have been chosen, repeated and reordered by public positions since; each still leads to the one it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from apps.compute import mapped
from apps.compute.labels import PUBLIC, Label
from apps.compute.programs import Program
from apps.compute.readers.torch import TorchReader
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Ref, refs
from gridclient.wire.errors import InvalidInputError

NOBODY = -1
"""In place of a position: a row that is none of the asset's, whose index pointed beyond them."""
DEEPEST = 64


class People(NamedTuple):
    """Public facts of a sequence of rows. `places`: int64 [n], where each row lay in its asset; None: all, in order.

    `entities`: the most there can be. `most`: the most rows one of them can have. `even`: how many rows there are is
    public, and each is a record.
    """

    specs: tuple[AssetSpec, ...]
    mask: frozenset[tuple[str, int]]
    places: NDArray[np.int64] | None
    rows: int
    entities: int
    most: int
    even: bool

    @property
    def declared(self) -> AssetSpec | None:
        """The version whose identifiers say which rows are of one entity; None: each row is one."""
        return next((spec for spec in self.specs if spec.entities == "declared"), None)

    def codes(self) -> NDArray[np.int64] | None:
        """The entity of each row, int64 [n]; None: row i is entity i."""
        if self.declared is None:
            return None if self.places is None else np.maximum(self.places, 0)
        found = mapped.codes(self.declared)
        return found if self.places is None else found[np.maximum(self.places, 0)]

    def keep(self) -> NDArray[np.bool_] | None:
        """Which rows are records, bool [n]; None: all of them."""
        if not self.mask and (self.places is None or (self.places >= 0).all()):
            return None
        records = np.ones(self.specs[0].shape[0], dtype=np.bool_)
        for spec in self.specs:
            if (spec.dataset, spec.version) in self.mask:
                records &= mapped.presence(spec).numpy()
        return records if self.places is None else records[np.maximum(self.places, 0)] & (self.places >= 0)


def people(program: Program, reader: TorchReader, above: Ref, label: Label) -> People:
    """Whose rows those of `label` are. `above`: the node that sums them, below which public positions are looked for.

    Raises InvalidInputError where the rows are not those of one sequence of people.
    """
    specs = tuple(program.judge.spec(found.dataset, found.version) for found in _in_order(label))
    sequence, length = _asset(label.rows)
    if any(spec.sequence != sequence for spec in specs):
        raise _mixed()
    places = None
    if label.rows != ("asset", sequence, length):
        places = _places(label.rows, _Positions(program, reader, above))
    most = max(spec.max_rows_per_entity for spec in specs)
    if places is not None:
        chosen = np.bincount(places[places >= 0], minlength=1)
        most = int(min(most * chosen.max(), max(chosen.sum(), 1)))
    rows = length if places is None else len(places)
    whole = places is None or bool((places >= 0).all())
    even = whole and not label.mask and all(spec.rows_public for spec in specs)
    return People(specs, label.mask, places, rows, max(length, 1), most, even)


def _in_order(label: Label) -> list[Any]:
    return sorted(label.inputs, key=lambda found: (found.dataset, found.version))


def _mixed() -> InvalidInputError:
    return InvalidInputError(
        "Rows of different datasets, joined into one sequence, have no entities in common: sum each dataset's rows "
        "by themselves and add the sums."
    )


def _leaves(rows: tuple[Any, ...] | None, depth: int = 0) -> Iterator[tuple[str, int]]:
    if not rows or depth > DEEPEST:
        raise InvalidInputError("Rows that were chosen so often are not traced back to their people.")
    if rows[0] == "asset":
        yield rows[1], rows[2]
    else:
        for below in rows[1:] if rows[0] == "cat" else rows[-1:]:
            yield from _leaves(below, depth + 1)


def _asset(rows: tuple[Any, ...] | None) -> tuple[str, int]:
    """The one asset sequence that rows come from, and its length."""
    found = set(_leaves(rows))
    if len(found) != 1:
        raise _mixed()
    return found.pop()


class _Positions:
    """Public index tensors by their lineage, among what a node was computed from."""

    def __init__(self, program: Program, reader: TorchReader, above: Ref) -> None:
        self._program, self._reader = program, reader
        self._known: dict[str, Ref] = {}
        todo, seen = [above.node], set[int]()
        while todo:
            number = todo.pop()
            if number in seen:
                continue
            seen.add(number)
            entry = program.entries[number]
            todo += [ref.node for ref in refs(entry.node)]
            for output, fact in enumerate(entry.facts):
                if fact.label.kind == PUBLIC:
                    self._known[f"{program.hashes[number]}.{output}"] = Ref(number, output)

    def __getitem__(self, lineage: str) -> NDArray[np.int64]:
        ref = self._known[lineage]
        index = self._reader.value(ref, self._program.plan([ref], self._reader.has))
        assert isinstance(index, torch.Tensor)
        found: NDArray[np.int64] = index.reshape(-1).to(torch.int64).numpy()
        return found


def _places(rows: tuple[Any, ...] | None, positions: _Positions) -> NDArray[np.int64]:
    """Where each row lay in its asset; NOBODY for a position that does not exist."""
    assert rows is not None
    match rows:
        case ("asset", _, length):
            return np.arange(length, dtype=np.int64)
        case ("slice", start, stop, step, before):
            return _places(before, positions)[start:stop:step]
        case ("flip", before):
            return _places(before, positions)[::-1]
        case ("roll", shift, before):
            return np.roll(_places(before, positions), shift)
        case ("index" | "taken" as how, lineage, before):
            return _at(_places(before, positions), positions[lineage], wrap=how == "taken")
        case ("cat", *parts):
            return np.concatenate([_places(part, positions) for part in parts])
    raise InvalidInputError("These rows are not traced back to their people; sum before they are rearranged.")


def _at(places: NDArray[np.int64], index: NDArray[np.int64], *, wrap: bool) -> NDArray[np.int64]:
    """As the operations choose: what lies outside gives a row of nobody."""
    extent = len(places)
    if wrap:
        index = np.where(index < 0, index + extent, index)
    inside = (index >= 0) & (index < extent)
    if not extent:
        return np.full(len(index), NOBODY, dtype=np.int64)
    return np.where(inside, places[np.where(inside, index, 0)], NOBODY)
