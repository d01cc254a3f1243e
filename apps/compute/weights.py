"""What private values meet: the public operands of a program's steps, computed and summed up, within limits.

Only public values are read, and nothing that the client holds is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from apps.compute.labels import PUBLIC
from apps.compute.programs import Program
from apps.compute.readers.steps import Summary
from apps.compute.readers.torch import Computed, TorchReader
from gridclient.program.graph import CONSTANT, Ref, refs
from gridclient.program.graph import Program as Graph
from gridclient.wire.errors import GridError

FEW = 8
LONE = 20
"""So few positions, of many, are worth a look."""
STEEP = 50
"""A weight so many times the usual one outdoes the others."""
MOST_FLOPS = 10**10
MOST_NUMBERS = 2**24
ALL_NUMBERS = 2**25
COMPARED = 16
COMPARED_NUMBERS = 2**20
MOST_AXES = 4

Weights = Mapping[Ref, Summary | None]
"""By reference, for all constants and all public operands; None: it was too much to look into."""


def is_public(program: Program, ref: Ref) -> bool:
    """Whether a value depends on nothing private."""
    return program.fact(ref).label.kind == PUBLIC


def weights(program: Program, reader: TorchReader, graph: Graph) -> Weights:
    """The public values that private ones meet in a program cut to one value, and its constants, summed up."""
    wanted: dict[Ref, Summary | None] = {}
    for node in graph.nodes:
        operands = list(refs(node))
        if node.op == CONSTANT:
            wanted[Ref(node.id)] = None
        if not all(is_public(program, ref) for ref in operands):
            wanted.update((ref, None) for ref in operands if _readable(program, ref))
    left = ALL_NUMBERS
    known: dict[tuple[str, int], Summary] = {}
    others = _Others()
    outputs: dict[int, list[Ref]] = {}
    for ref in wanted:
        outputs.setdefault(ref.node, []).append(ref)
    for number, values in _computed(program, reader, outputs):
        for ref in outputs.get(number, ()):
            key = (program.hashes[number], ref.output)
            value = values[ref.output]
            if key not in known:
                if value.numel() > min(MOST_NUMBERS, left):
                    continue
                left -= value.numel()
                known[key] = summarise(value, others.beside(value))
            wanted[ref] = known[key]
    return wanted


def _readable(program: Program, ref: Ref) -> bool:
    return is_public(program, ref) and program.fact(ref).table is None


def _computed(
    program: Program, reader: TorchReader, wanted: Mapping[int, list[Ref]]
) -> Iterator[tuple[int, tuple[Computed, ...]]]:
    """The wanted nodes' outputs, in order, as far as the limits reach. What needs more is left out."""
    needed: set[int] = set()
    todo = list(wanted)
    while todo:
        number = todo.pop()
        entry = program.entries[number]
        if number not in needed and entry.public():
            needed.add(number)
            todo += entry.operands
    order = sorted(needed)
    uses = program.last_uses(order)
    used = {operand for number in order for operand in program.entries[number].operands}
    running: dict[int, tuple[Computed, ...]] = {}
    flops, room = min(MOST_FLOPS, program.limits.flops), program.limits.memory // 4
    for number in order:
        entry = program.entries[number]
        if entry.flops <= flops and entry.nbytes <= room and all(operand in running for operand in entry.operands):
            flops -= entry.flops
            try:
                running[number] = reader.once(entry, {operand: running[operand] for operand in entry.operands})
            except GridError:
                pass
            else:
                room -= entry.nbytes
                if number in wanted:
                    yield number, running[number]
        for done in (*uses.get(number, ()), *(() if number in used else (number,))):
            if running.pop(done, None) is not None:
                room += program.entries[done].nbytes


class _Others:
    """The values that were looked into before, a few of each shape."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], list[torch.Tensor]] = {}
        self._room = COMPARED_NUMBERS

    def beside(self, value: torch.Tensor) -> tuple[tuple[int, ...], ...]:
        """The few positions where the value differs from one of them."""
        if value.numel() < 3:
            return ()
        known = self._known.setdefault(tuple(value.shape), [])
        found: tuple[tuple[int, ...], ...] = ()
        for other in known:
            differs = value != other
            count = int(differs.sum())
            if 0 < count <= LONE and 2 * count < value.numel():
                found = _places(differs)
        if len(known) < COMPARED and value.numel() <= self._room:
            known.append(value)
            self._room -= value.numel()
        return found


def summarise(value: torch.Tensor, beside: tuple[tuple[int, ...], ...] = ()) -> Summary:
    """Shape, number of non-zeros, spread, and where the few non-zeros lie."""
    dtype = str(value.dtype).removeprefix("torch.")
    wide = value.to(torch.int64 if not value.dtype.is_floating_point else torch.float64)
    finite = wide[torch.isfinite(wide)] if wide.is_floating_point() else wide.reshape(-1)
    nonzero = int((value != 0).sum())
    few = 0 < nonzero <= LONE and 2 * nonzero <= value.numel()
    real = torch.nan_to_num(wide.to(torch.float64))
    return Summary(
        dtype,
        tuple(value.shape),
        nonzero,
        float(finite.min()) if finite.numel() else None,
        float(finite.max()) if finite.numel() else None,
        value.numel() - finite.numel(),
        _places(value != 0) if few else (),
        tuple(float(number) for number in wide.reshape(-1).tolist()) if value.numel() <= FEW else (),
        _unlike_the_others(real),
        beside,
        tuple(_uneven(real, axis) for axis in range(real.dim())) if real.dim() <= MOST_AXES else (),
    )


def _places(chosen: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(position) for position in chosen.nonzero().tolist())


def _unlike_the_others(value: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Positions of a few elements that differ from all others, whatever these are: 1 among 1e-12, 0 among ones."""
    if value.numel() < 3:
        return ()
    distance = (value - value.median()).abs()
    apart = distance > distance.max() / 1000
    count = int(apart.sum())
    return _places(apart) if 0 < count <= LONE and 2 * count < value.numel() else ()


def _uneven(value: torch.Tensor, axis: int) -> int:
    """How many lines along the axis have zeros among others, or a few elements far from, or far above, the others."""
    extent = value.shape[axis]
    if extent < 3 or not value.numel():
        return 0
    size = value.abs()
    left_out = (value == 0).any(axis) & (value != 0).any(axis)
    steep = size.amax(axis) > STEEP * size.median(axis).values
    distance = (value - value.median(axis, keepdim=True).values).abs()
    apart = (distance > distance.amax(axis, keepdim=True) / 1000).sum(axis)
    lone = (apart > 0) & (apart <= LONE) & (2 * apart < extent)
    return int((left_out | steep | lone).sum())
