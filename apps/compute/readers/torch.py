"""The torch reader: the values of a program. Runs the part that a question needs, and keeps what the client holds.

Every operation leaves its inputs as they are, so results may share memory with them. Null records of padded rows are
left out at the reduction, after every map: exp(0) = 1 counts nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import torch

from apps.compute import closed, mapped
from apps.compute.branchless import choose
from apps.compute.entries import Entry
from apps.compute.programs import MAX_LINE, Plan, Program
from apps.compute.targets import DTYPES, TARGETS, called
from gridclient.program.graph import AGGREGATE, ASSET, CONSTANT, Ref
from gridclient.wire.errors import GridError, InternalError

Computed: TypeAlias = torch.Tensor | Any  # a pyarrow.Table, which has no types
Presence = tuple[int, frozenset[tuple[str, int]]]


def prepare() -> None:
    """Settings of a process that computes: one thread, no gradients, no denormals (they would show in the time)."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)


class TorchReader:
    """Values by node, for the outputs that the client still holds."""

    def __init__(self, program: Program, keep: int) -> None:
        self._program = program
        self._keep = keep
        self._values: dict[int, tuple[Computed, ...]] = {}
        self._presence: dict[frozenset[tuple[str, int]], torch.Tensor] = {}
        self.nbytes = 0
        """Bytes of the values that are kept, counted in full."""

    def has(self, number: int) -> bool:
        """Whether the node's outputs need not be computed again."""
        return number in self._values

    def forget(self, ref: Ref) -> None:
        """The client holds this output no longer."""
        entry = self._program.entries.get(ref.node)
        if entry is None or not 0 <= ref.output < len(entry.facts):
            return
        entry.held &= ~(1 << ref.output)
        if not entry.held and not entry.waiting:
            self._free([ref.node, *self._program.settle(ref.node)])

    def value(self, ref: Ref, plan: Plan) -> torch.Tensor | pa.Table:
        """Compute one value by its plan (`Program.plan`) and return it. Raises InternalError with a fixed text."""
        return self.values([ref], plan)[0]

    def values(self, results: Sequence[Ref], plan: Plan) -> list[torch.Tensor | pa.Table]:
        """Compute these values by their plan and return them. Raises InternalError with a fixed text."""
        # What is there already must not be dropped while it is needed.
        wanted = [operand for number in plan.order for operand in self._program.entries[number].operands]
        running = {
            number: self._values[number]
            for number in (*wanted, *(ref.node for ref in results))
            if number in self._values
        }
        for number in plan.order:
            entry = self._program.entries[number]
            try:
                running[number] = self._step(entry, running)
            except GridError:
                raise
            except Exception:  # whatever it was, its text may depend on values
                raise InternalError(
                    f"{entry.op} could not be computed.",
                    operation=entry.op,
                    line=entry.node.line[:MAX_LINE],
                ) from None
            if not _as_judged(entry, running[number]):
                raise InternalError(f"{entry.op} gave another shape than was judged.", operation=entry.op)
            if entry.held or entry.waiting:
                self._store(number, entry, running[number])
            self._free(self._program.settle(number))
            for done in plan.ends.get(number, ()):
                running.pop(done, None)
        return [running[ref.node][ref.output] for ref in results]

    def constant(self, entry: Entry) -> torch.Tensor:
        """The tensor of a constant's node."""
        return self._program.constants.tensor(entry.node.args[0])

    def once(self, entry: Entry, operands: Mapping[int, tuple[Computed, ...]]) -> tuple[Computed, ...]:
        """One node's outputs from those of its operands, kept nowhere. Raises InternalError with a fixed text."""
        try:
            return self._step(entry, dict(operands))
        except GridError:
            raise
        except Exception:  # as in `value`
            raise InternalError(f"{entry.op} could not be computed.", operation=entry.op) from None

    def _free(self, numbers: list[int]) -> None:
        for number in numbers:
            if self._values.pop(number, None) is not None:
                self.nbytes -= self._program.entries[number].nbytes

    def _store(self, number: int, entry: Entry, computed: tuple[Computed, ...]) -> None:
        if number not in self._values:
            self.nbytes += entry.nbytes
        self._values[number] = computed
        # What is dropped here is computed again when it is needed.
        while self.nbytes > self._keep and len(self._values) > 1:
            oldest = next(iter(self._values))
            del self._values[oldest]
            self.nbytes -= self._program.entries[oldest].nbytes

    def _step(self, entry: Entry, running: dict[int, tuple[Computed, ...]]) -> tuple[Computed, ...]:
        if entry.op == ASSET:
            spec, part = self._program.judge.asset(entry.node)
            read: Callable[..., Any] = mapped.table if spec.kind == "table" else mapped.tensor
            return (read(spec, part),)
        if entry.op == CONSTANT:
            return (self.constant(entry),)
        target = TARGETS[entry.op]
        bound = entry.bound()
        if entry.op in ("grid::column", "grid::columns"):
            spec, part = self._program.judge.asset(self._program.entries[bound["self"].node].node)
            return (mapped.columns(spec, part, bound["names"]),)
        if entry.op == "grid::count":
            return (self._count(entry, bound["self"]),)
        if entry.op == AGGREGATE:
            return (self._aggregate(entry),)

        def value(given: Any) -> Any:
            if not isinstance(given, Ref):
                return given
            return self._blank(given) if entry.shapes_only else running[given.node][given.output]

        if entry.presence is None:
            return tuple(called(target, bound, value))
        left = self._left(entry.presence, value(bound["self"]))
        (reduced,) = called(target, bound, lambda given: left if isinstance(given, Ref) else given)
        if entry.op in ("aten::mean", "aten::mean.dim"):
            records = self._records(entry.presence[1])
            # The total form of a mean over no record at all is NaN.
            reduced = reduced * (records.numel() / records.sum().to(torch.float64)).to(reduced.dtype)
        return (reduced,)

    def _blank(self, ref: Ref) -> torch.Tensor:
        """One number that stands for a value of which only shape and dtype are wanted."""
        fact = self._program.fact(ref)
        return torch.zeros((), dtype=DTYPES[fact.dtype]).expand(fact.shape)

    def _count(self, entry: Entry, ref: Ref) -> torch.Tensor:
        if entry.presence is not None:
            return self._records(entry.presence[1]).sum()
        operand = self._program.fact(ref)
        return torch.tensor(operand.shape[operand.label.axis])

    def _aggregate(self, entry: Entry) -> torch.Tensor:
        (fact,) = entry.facts
        if fact.label.closed is None:
            raise InternalError("Only an answer of the closed set is computed from its description.")
        answer = fact.label.closed.message()
        return closed.numbers(self._program.judge.spec(answer.dataset, answer.version), answer).reshape(fact.shape)

    def _records(self, versions: frozenset[tuple[str, int]]) -> torch.Tensor:
        """Which rows are records in all these versions: bool [n]."""
        if versions not in self._presence:
            flags = [mapped.presence(self._program.judge.spec(*version)) for version in sorted(versions)]
            self._presence[versions] = torch.stack(flags).all(0)
        return self._presence[versions]

    def _left(self, presence: Presence, given: torch.Tensor) -> torch.Tensor:
        """A value with 0 in place of null records, so that they are left out of its sum."""
        axis, versions = presence
        records = self._records(versions)
        shape = [1] * given.dim()
        shape[axis] = records.numel()
        # Chosen, not multiplied: 0 × infinity is not 0.
        return choose(records.reshape(shape), given, torch.zeros((), dtype=given.dtype))


def _as_judged(entry: Entry, computed: tuple[Computed, ...]) -> bool:
    """Whether values are what the label and the limits were decided for. Shapes never depend on values."""
    for fact, value in zip(entry.facts, computed, strict=True):
        if fact.table is None and (value.shape != fact.shape or value.dtype != DTYPES[fact.dtype]):
            return False
    return True
