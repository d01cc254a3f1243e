"""How much each number of an answer moves with each number of its bases: the noise of the answer, before it is drawn.

The map is affine, so that it is known from what it makes of zeros and of unit vectors. For workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from apps.compute.programs import Program
from apps.compute.readers.bases import Affine, Base
from apps.compute.readers.torch import TorchReader
from gridclient.program.graph import Ref
from gridclient.wire.errors import InvalidInputError

MOST = 1024
"""So many numbers of bases are tried one by one."""
MOST_GAINS = 2**24
ALONE = frozenset(
    """aten::neg aten::add.Tensor aten::sub.Tensor aten::rsub.Scalar aten::rsub.Tensor aten::mul.Tensor
    aten::div.Tensor aten::_to_copy aten::clone aten::view aten::_unsafe_view aten::squeeze.dim aten::squeeze.dims
    aten::unsqueeze""".split()
)
"""Operations that keep every number in its place, where they keep the size."""


def gains(program: Program, reader: TorchReader, ref: Ref, bases: Sequence[Base]) -> torch.Tensor:
    """How much each output moves per unit of each number of the bases, in order: float64 [outputs, inputs].

    [outputs] where output i moves with number i of the one base alone: the only form for more than 1,024 numbers. In
    the value's own units: a base's number moves by its scale times what it moves in rows. Raises InvalidInputError
    where a large sum is mixed, or where a public number is not finite.
    """
    affine = Affine(program, reader, ref)
    inputs, outputs = sum(base.size for base in bases), prod(program.fact(ref).shape)
    zeros = {base.ref: torch.zeros(base.size, dtype=torch.float64) for base in bases}
    offset = _finite(affine(zeros).reshape(-1).to(torch.float64))
    # Far enough that the offset's last bits don't count, and a power of 2.
    step = 2.0 ** max(0, int(torch.log2(offset.abs().max().clamp(min=1)).ceil())) if offset.numel() else 1.0
    if inputs > MOST or inputs * outputs > MOST_GAINS:
        if len(bases) != 1 or inputs != outputs or not _in_place(program, ref, bases[0]):
            raise InvalidInputError(
                f"Of more than {MOST} numbers, noise is only added to sums as they are, or each scaled by a public "
                "number: ask for them like that, and compute with the answer."
            )
        ones = {bases[0].ref: torch.full((inputs,), step, dtype=torch.float64)}
        return _finite((affine(ones).reshape(-1).to(torch.float64) - offset) / step)
    found = torch.empty((outputs, inputs), dtype=torch.float64)
    place = 0
    for base in bases:
        for number in range(base.size):
            unit = torch.zeros(base.size, dtype=torch.float64)
            unit[number] = step
            moved = affine(zeros | {base.ref: unit}).reshape(-1).to(torch.float64)
            found[:, place] = (moved - offset) / step
            place += 1
    return _finite(found)


def _finite(found: torch.Tensor) -> torch.Tensor:
    if not found.isfinite().all():
        raise InvalidInputError("A public number that a sum is multiplied by, or that is added to it, is not finite.")
    return found


def _in_place(program: Program, ref: Ref, base: Base) -> bool:
    """Whether every step from the base to the value leaves every number in its place."""
    number = ref.node
    while number != base.ref.node:
        entry = program.entries[number]
        private = {
            given
            for given in entry.bound().values()
            if isinstance(given, Ref) and not program.entries[given.node].public()
        }
        if entry.op not in ALONE or len(private) != 1:
            return False
        (below,) = private
        if prod(program.fact(below).shape) != base.size:
            return False
        number = below.node
    return True
