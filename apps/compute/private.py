"""Private answers inside a worker: what decides about the price of one, and the answer itself.

The sums over people that a value is made of (its bases) are drawn by the kernel, each clipped at its own bound and with
noise in proportion to it; the rest of the program, a public affine map, runs on the noisy sums (`design/privacy.md`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from apps.budgets.accountant import ARGMAX, GAUSSIAN
from apps.compute import kernel, vector
from apps.compute.labels import AGG
from apps.compute.mechanism import Mechanism, mechanism
from apps.compute.messages import Draw, Weigh, Weighed
from apps.compute.programs import Program
from apps.compute.readers import bases
from apps.compute.readers.bases import Base
from apps.compute.readers.gains import gains
from apps.compute.readers.torch import TorchReader
from apps.compute.targets import DTYPES
from gridclient.program.graph import Ref, result_hash
from gridclient.wire.errors import InternalError, InvalidInputError, LimitExceededError

MOST_NUMBERS = 2**20
"""Of one answer: the ledger keeps it for ever, whatever little it cost."""
MOST_SPREADS = 2**16
"""Of one answer whose numbers have noise of different sizes: the web process takes, and its receipt says, each."""


def weigh(program: Program, reader: TorchReader, question: Weigh) -> Weighed:
    """What a private answer would be, from public metadata alone. Nothing private is computed for it.

    Raises InvalidInputError for what is no aggregate, UnboundedError where no bound is known.
    """
    fact = program.fact(question.value)
    _check_size(math.prod(fact.shape), MOST_NUMBERS, "numbers")
    counts = _counts(program, question.value)
    found = bases.form(program, reader, bases.bases(program, counts or question.value))
    plan = program.plan([question.value], reader.has)
    if counts is not None:
        spread, of_reach = _doubt(_alike(found, counts))
    else:
        noise, reach = _spread(program, reader, question, found)
        # Where nothing can be between, no noise is needed either; there is none then.
        beside = torch.where(noise > 0, noise / reach, 0.0)
        spread, of_reach = _shortest(noise), float(beside.max()) if beside.numel() else 0.0
    return Weighed(
        question.ask,
        result_hash([question.value], program.hashes),
        fact.label.messages(),
        GAUSSIAN if counts is None else ARGMAX,
        list(fact.shape),
        sizes=[base.size for base in found],
        clips=[base.norm * base.most for base in found],
        entities=[base.entities for base in found],
        spread=spread,
        of_reach=of_reach,
        flops=plan.flops,
        numbers=sum(base.rows * base.size for base in found),
        assets=sorted(program.assets(question.value)),
    )


def draw(program: Program, reader: TorchReader, question: Draw) -> torch.Tensor:
    """The answer: one draw from the operating system's randomness. `clips` must be what was charged for."""
    fact = program.fact(question.value)
    counts = _counts(program, question.value)
    found = bases.form(program, reader, bases.bases(program, counts or question.value))
    check_charged(found, question.clips)
    if counts is not None:
        base = _alike(found, counts)
        rows, codes, keep = bases.rows(program, reader, base)
        how = mechanism(clip=question.clips[0], sigma=question.clips[0], size=base.size, entities=base.entities)
        scores = kernel.integer_sum(kernel.quantised(rows, codes, keep, how))
        return torch.tensor(kernel.noisy_argmax(scores, how.bound, question.epsilon)).reshape(fact.shape)
    record = vector.opened(Path(question.record)) if question.record else None
    noisy = {base.ref: _noisy(program, reader, base, question.unit, record) for base in found}
    answer = bases.evaluate(program, reader, question.value, noisy)
    dtype = DTYPES[fact.dtype]
    # A noisy count is no integer: cut to one, it would be biased.
    return answer.to(dtype if dtype.is_floating_point else torch.float64)


def check_charged(found: Sequence[Base], clips: Sequence[float]) -> None:
    """Raise InternalError unless these sums are those of a price."""
    if [base.norm * base.most for base in found] != clips:
        raise InternalError("This is not the question that was charged.")


def mechanism_of(base: Base, unit: float) -> Mechanism:
    """What is done to the rows of a sum; `unit`: its noise, as a multiple of its clip."""
    clip = base.norm * base.most
    return mechanism(clip=clip, sigma=clip * unit, size=base.size, entities=base.entities)


def _counts(program: Program, ref: Ref) -> Ref | None:
    """The sums over people of which a value is the place of the largest; None for any other value."""
    entry = program.entries.get(ref.node)
    if entry is None or entry.op != "aten::argmax":
        return None
    operand: Ref = entry.bound()["self"]
    fact = program.fact(operand)
    return operand if fact.label.kind == AGG and len(fact.shape) == 1 and fact.shape[0] else None


def _alike(found: Sequence[Base], counts: Ref) -> Base:
    """The one base, whose numbers are compared as they are. Raises InvalidInputError for another."""
    if len(found) != 1 or found[0].ref != counts or len({*zip(found[0].scale, found[0].centre, strict=True)}) != 1:
        raise InvalidInputError(
            "The place of a largest is told of one sum over people with equal bounds, such as "
            "torch.nn.functional.one_hot(codes, k).sum(0).argmax()."
        )
    return found[0]


def _doubt(base: Base) -> tuple[list[float], float]:
    """By how much the chosen one is below the largest, in 95 of 100, at epsilon 1; and that beside the half-range.

    McSherry, Talwar 2007, theorem 6: by more than (2 C / epsilon) (log k + t) with a probability of exp(-t).
    """
    below = 2 * base.norm * base.most * (math.log(base.size) + math.log(20)) * base.scale[0]
    reach = max(base.reach) * base.rows
    return [below], below / reach if reach else math.inf


def _noisy(
    program: Program, reader: TorchReader, base: Base, unit: float, record: vector.Record | None
) -> torch.Tensor:
    """A base with noise, in the value's own units and shape, float64. `record`: who takes part."""
    rows, codes, keep = bases.rows(program, reader, base)
    active = None
    if record is not None:
        spec = bases.declared(program, reader, base)
        active = record.active(spec.dataset, spec.version, base.entities)
    total = kernel.release(rows, codes, keep, mechanism_of(base, unit), active) * np.asarray(base.scale)
    if base.centred:
        total += base.rows * np.asarray(base.centre)
    return torch.from_numpy(total).reshape(program.fact(base.ref).shape)


def _spread(
    program: Program, reader: TorchReader, question: Weigh, found: Sequence[Base]
) -> tuple[torch.Tensor, torch.Tensor]:
    """By number of the answer: the noise's standard deviation for each unit of it, and the declared half-range."""
    moved = gains(program, reader, question.value, found).abs()
    noise = torch.cat([torch.tensor(base.scale, dtype=torch.float64) * base.norm * base.most for base in found])
    reach = torch.cat([torch.tensor(base.reach, dtype=torch.float64) * base.rows for base in found])
    if moved.dim() == 1:  # each number by itself
        return moved * noise, moved * reach
    return (moved * noise).square().sum(1).sqrt(), moved @ reach


def _shortest(spread: torch.Tensor) -> list[float]:
    """One number where all are equal."""
    if spread.numel() and bool((spread == spread[0]).all()):
        spread = spread[:1]
    _check_size(spread.numel(), MOST_SPREADS, "numbers with noise of different sizes")
    listed: list[float] = spread.tolist()
    return listed


def _check_size(size: int, most: int, what: str) -> None:
    if size > most:
        raise LimitExceededError(
            f"A private answer has at most {most} {what}, and this one {size}: ask for the sums, and compute the rest "
            "from the answer.",
            limit=most,
        )
