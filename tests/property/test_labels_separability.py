"""Every label rule against the operation itself: change one row, and see who else notices.

Without this a scientist could be given sums that hide one person's values among the others'.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from apps.compute.labels import AGG, NOTHING, ROWS, TAINTED, Dependence, Label
from apps.compute.operations import TABLE
from apps.compute.readers.labels import judge
from apps.compute.readers.torch import prepare
from apps.compute.targets import TARGETS
from gridclient.program.graph import Ref
from gridclient.wire.errors import GridError, OperationNotAllowedError
from tests.factories.forms import forms
from tests.factories.operations import EXTENTS, Sample, T, draw, samples
from tests.factories.programs import Recorded, tensor_asset

WHOLE = "max min median nanmedian prod all any norm.Scalar".split()
"""These reduce all axes, so people too."""
SEQUENCE = ("asset", "people", 0)
MOST_CASES = 30
"""Of one operation and one pair of extents; more are drawn from at random."""
CASES = sorted({sample.op for sample in samples(3, 3)})


@pytest.fixture(autouse=True)
def _prepared() -> Iterator[None]:
    enabled = torch.is_grad_enabled()
    prepare()
    yield
    torch.set_grad_enabled(enabled)
    torch.set_flush_denormal(False)


def private(axis: int) -> Label:
    return Label(ROWS, frozenset([Dependence("people", 1, None)]), axis, SEQUENCE)


def labellings(sample: Sample) -> Iterator[list[Label]]:
    """Every choice of private operands and of the axis on which their rows lie, with one number of rows."""
    choices = [[None, *range(len(given.shape))] for given in sample.operands]
    for axes in itertools.product(*choices):
        extents = {given.shape[axis] for given, axis in zip(sample.operands, axes, strict=True) if axis is not None}
        if len(extents) == 1:
            yield [NOTHING if axis is None else private(axis) for axis in axes]


def with_row(
    values: list[torch.Tensor], others: list[torch.Tensor], labels: list[Label], row: int
) -> list[torch.Tensor]:
    """`values`, with one row of every private operand taken from `others`."""
    found = []
    for value, other, label in zip(values, others, labels, strict=True):
        if label.kind == ROWS:
            value = value.clone()
            value.select(label.axis, row).copy_(other.select(label.axis, row))
        found.append(value)
    return found


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Bit for bit."""
    return first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()


def slices(value: torch.Tensor, axis: int) -> list[torch.Tensor]:
    return [value.select(axis, place) for place in range(value.shape[axis])]


def check(sample: Sample, labels: list[Label], source: random.Random) -> None:
    judged = judge(sample.call(labels)).labels
    assert len(judged) == TARGETS[sample.op].outputs
    if all(label.kind == TAINTED for label in judged):
        return
    values = [draw(given, source) for given in sample.operands]
    others = [draw(given, source, hostile=source.random() < 0.5) for given in sample.operands]
    rows = next(
        given.shape[label.axis] for given, label in zip(sample.operands, labels, strict=True) if label.kind == ROWS
    )
    before = sample.run(values)
    changed = [sample.run(with_row(values, others, labels, row)) for row in range(rows)]
    for number, label in enumerate(judged):
        if label.kind == ROWS:
            assert before[number].dim() > label.axis
            owners = [
                [row for row in range(rows) if not same(old, slices(changed[row][number], label.axis)[place])]
                for place, old in enumerate(slices(before[number], label.axis))
            ]
            assert all(len(found) <= 1 for found in owners), f"{sample} {labels} -> {label}: {owners}"
            if label.rows == SEQUENCE:
                assert before[number].shape[label.axis] == rows
                assert all(found in ([], [place]) for place, found in enumerate(owners)), (
                    f"{sample} {labels} -> {label}"
                )
        elif label.kind == AGG and sample.op != "grid::count":
            nothing = [
                torch.zeros_like(value) if label.kind == ROWS else value
                for value, label in zip(values, labels, strict=True)
            ]
            # Of a loss, a row of zeros adds something too.
            least = sample.run(nothing)[number].double()
            parts = [sample.run(with_row(nothing, values, labels, row))[number].double() for row in range(rows)]
            total = least + (torch.stack(parts) - least).sum(0)
            torch.testing.assert_close(total, before[number].double(), rtol=1e-3, atol=1e-3, equal_nan=True)
        elif label.kind == "public":
            assert all(same(before[number], after[number]) for after in changed), f"{sample} {labels} is not public"


@pytest.mark.parametrize("op", CASES)
def test_no_row_notices_another_ones_change(op: str) -> None:
    source = random.Random(op)
    for n, d in EXTENTS:
        cases = [(sample, labels) for sample in samples(n, d) if sample.op == op for labels in labellings(sample)]
        for sample, labels in source.sample(cases, min(len(cases), MOST_CASES)):
            check(sample, labels, source)


def test_every_rule_can_give_rows_or_a_total_somewhere() -> None:
    """A rule that always answers TAINTED would pass the test above, and take plain torch away from its users."""
    given: dict[str, set[str]] = {}
    for sample in itertools.chain(samples(3, 4), samples(1, 3)):
        for labels in labellings(sample):
            given.setdefault(sample.op, set()).update(label.kind for label in judge(sample.call(labels)).labels)
    never = {op for op, kinds in given.items() if not kinds & {ROWS, AGG, "public"}}
    never -= {op for op in never if TABLE[op].rule is None}
    assert never == {f"aten::{name}" for name in WHOLE}
    assert {"aten::sum", "aten::mean", "aten::mm", "aten::mv", "aten::dot", "aten::bmm", "aten::sum.dim_IntList"} <= {
        op for op, kinds in given.items() if AGG in kinds
    }


def test_null_records_are_never_counted_by_an_operation_that_does_not_know_them() -> None:
    """With a private number of rows, everything along the rows but sum, mean and count is refused, by name."""
    for sample in samples(3, 4):
        for labels in labellings(sample):
            padded = [
                Label(ROWS, label.inputs, label.axis, label.rows, None, frozenset([("people", 1)]))
                if label.kind == ROWS
                else label
                for label in labels
            ]
            plain = judge(sample.call(labels)).labels
            call = sample.call(padded)
            try:
                judged = judge(call)
            except OperationNotAllowedError:
                assert any(label.kind in (AGG, TAINTED) or label.rows != SEQUENCE for label in plain)
                continue
            if judged.presence is None:
                assert all(label.kind == "public" or (label.kind == ROWS and label.mask) for label in judged.labels)
                assert all(label.kind in (ROWS, "public") for label in plain)
            else:
                assert sample.op in ("aten::sum", "aten::sum.dim_IntList", "aten::mean", "aten::mean.dim")


@pytest.mark.parametrize(
    ("sample", "axes"),
    [
        # A square table and one of its columns: the column's rows would lie along the table's columns.
        (Sample("aten::add.Tensor", [T((5, 5)), T((5,))]), [0, 0]),
        (Sample("aten::_softmax", [T((5,)), 0, False]), [0]),
        (Sample("aten::mm", [T((5, 5)), T((5, 5))]), [0, 1]),  # x @ x.T
        (Sample("aten::mm", [T((5, 5)), T((5, 5))]), [0, 0]),  # private weights
        (Sample("aten::addmm", [T((5,)), T((5, 5)), T((5, 5))]), [0, 0, None]),  # private bias
        (Sample("aten::view", [T((5, 5)), [25]]), [0]),
        (Sample("aten::expand", [T((1,)), [5]]), [0]),
        (Sample("aten::squeeze.dim", [T((1, 3)), 0]), [0]),
        (Sample("aten::select.int", [T((5, 3)), 0, 2]), [0]),
        (Sample("aten::sort", [T((5, 3)), 0]), [0]),
        (Sample("aten::var.correction", [T((5, 3)), [0]]), [0]),
        (Sample("aten::index_select", [T((5, 3)), 1, T((5,), "int64")]), [0, 0]),  # private positions
        (Sample("aten::select_scatter", [T((5, 3)), T((3,)), 0, 1]), [0, None]),
    ],
)
def test_mixing_people_is_tainted(sample: Sample, axes: list[int | None]) -> None:
    labels = [NOTHING if axis is None else private(axis) for axis in axes]
    assert {label.kind for label in judge(sample.call(labels)).labels} == {"tainted"}


def test_two_populations_do_not_pair_by_position() -> None:
    other = Label(ROWS, frozenset([Dependence("others", 1, None)]), 0, ("asset", "others", 0))
    sample = Sample("aten::add.Tensor", [T((5,)), T((5,))])
    assert judge(sample.call([private(0), other])).labels[0].kind == "tainted"


PEOPLE, WIDTH = 4, 2


def grown(recorded: Recorded, x: Ref, source: random.Random) -> list[Ref]:
    """A random program over `x`: rows chosen by public indexes, among them both outputs of one sort, and joined."""
    order = list(range(PEOPLE))
    source.shuffle(order)
    ranks = recorded("aten::sort", recorded.constant(torch.tensor(order)), -1, False, outputs=2)
    indexes = [ranks, Ref(ranks.node, 1), *(recorded.constant(torch.tensor(o)) for o in (order, order[::-1]))]
    values = [x]
    for _ in range(source.randint(3, 9)):
        value, other = source.choice(values), source.choice(values)
        op, args = source.choice(
            [
                ("aten::index_select", [value, 0, source.choice(indexes)]),
                ("aten::index_select", [value, 0, source.choice(indexes)]),
                ("aten::add.Tensor", [value, other]),
                ("aten::mul.Tensor", [value, other]),
                ("aten::flip", [value, [0]]),
                ("aten::sort", [value, source.choice([0, 1])]),
                ("aten::slice.Tensor", [value, 0, 0, PEOPLE - 1]),
                ("aten::cat", [[value, other], source.choice([0, 1])]),
                ("aten::select_scatter", [value, recorded("aten::select.int", other, 1, 0), 1, 1]),
            ]
        )
        args, kwargs = source.choice(list(forms(op, args, {})))
        made = recorded(op, *args, outputs=TARGETS[op].outputs, **kwargs)
        values.append(Ref(made.node, source.randrange(TARGETS[op].outputs)))
    return values[1:]


def test_no_row_of_a_program_notices_two_people_however_it_is_written(tmp_path: Path) -> None:
    """What is known of one way to write a call, or of one output, must not be taken for another's."""
    values, others = torch.rand(PEOPLE, WIDTH), torch.rand(PEOPLE, WIDTH) + 1
    specs = [tensor_asset(tmp_path / "before", values)]
    for row in range(PEOPLE):
        changed = values.clone()
        changed[row] = others[row]
        specs.append(tensor_asset(tmp_path / f"{row}", changed))
    rows = 0
    for seed in range(120):
        runs = []
        for spec in specs:
            recorded = Recorded()
            runs.append((recorded, grown(recorded, recorded.bind(spec), random.Random(seed))))
        for place, ref in enumerate(runs[0][1]):
            try:
                if runs[0][0].propose(ref).label != ROWS:
                    continue
            except GridError:
                continue
            label = runs[0][0].session.program.fact(ref).label
            before, *after = [slices(session.value(refs[place]), label.axis) for session, refs in runs]
            for number, old in enumerate(before):
                owners = [row for row in range(PEOPLE) if not same(old, after[row][number])]
                assert len(owners) <= 1, (seed, place, owners)
            rows += 1
    assert rows > 200
