"""The label reader: what may be released of each value? Reads the program and metadata only; needs no torch."""

from __future__ import annotations

from typing import NamedTuple

from apps.compute.labels import AGG, NOTHING, PUBLIC, ROWS, TAINTED, Call, Label, inputs_of
from apps.compute.operations import PRESENCE, TABLE
from apps.compute.rules.affine import mapped, of_totals
from apps.compute.rules.columns import narrowed
from apps.compute.rules.composite import aggregates, columns
from apps.compute.rules.pointwise import clone, like
from apps.compute.rules.reductions import counts, presence
from gridclient.wire.errors import OperationNotAllowedError


class Judged(NamedTuple):
    """One label for each output. `presence`: the axis and the versions whose null records this operation leaves out."""

    labels: list[Label]
    presence: tuple[int, frozenset[tuple[str, int]]] | None


def judge(call: Call) -> Judged:
    """The labels of a call's outputs.

    Raises OperationNotAllowedError where the number of records is private and the operation would count null
    records: that is decided from metadata alone.
    """
    private = call.private()
    if not private:
        return Judged([NOTHING] * len(call.outputs), None)
    rule = TABLE[call.op].rule
    asked = mapped if of_totals(call) and rule not in (like, clone) else rule
    found = asked(call) if asked is not None else Label(TAINTED, inputs_of(call.operands))
    labels = found if isinstance(found, list) else [found] * len(call.outputs)
    if rule is not columns:
        labels = narrowed(call, rule, labels)
    masked = [operand for operand in private if operand.label.mask]
    leaves_out = presence(call) if masked and call.op in PRESENCE else None
    # An aggregate is made from the records themselves.
    if (
        masked
        and leaves_out is None
        and rule is not aggregates
        and any(label.kind in (AGG, TAINTED) for label in labels)
    ):
        raise OperationNotAllowedError(
            f"{call.op} would mix rows whose number is private with null records. Along the rows of such a dataset, "
            "use sum, mean or count; other operations within each row.",
            operation=call.op,
        )
    return Judged(labels, leaves_out)


def shapes_only(op: str) -> bool:
    """Whether an operation needs its operands for what is known of them only: a count does, without null records, and
    columns and aggregates do, which are read from the files by themselves."""
    return TABLE[op].rule in (like, counts, columns, aggregates)


__all__ = ["AGG", "PUBLIC", "ROWS", "TAINTED", "Judged", "Label", "judge", "shapes_only"]
