"""Every rule that gives a total against the operation itself: what one row adds, and what a public map makes of it.

Without this the noise would be put on sums that are none, and would not hide anybody.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch

from apps.compute.labels import AGG, NOTHING, PUBLIC, ROWS, Call, Dependence, Label, Operand
from apps.compute.operations import TABLE
from apps.compute.readers.contributions import COUNT, KINDS, PRODUCTS, SUMS, dims, of_loss, of_product, of_sum
from apps.compute.readers.labels import judge
from apps.compute.readers.losses import LOSSES
from apps.compute.rules.affine import AFFINE
from apps.compute.rules.networks import broadcast
from apps.compute.targets import TARGETS, bind
from gridclient.program.graph import Ref
from tests.factories.operations import Sample, T, draw, samples, samples_of
from tests.property.test_labels_separability import labellings, same, with_row

TOTAL = Label(AGG, frozenset([Dependence("people", 1, None)]))
MOST_CASES = 24


def totals_in(call: Call) -> frozenset[str]:
    """The arguments that hold totals."""
    held = {name: given if isinstance(given, list) else [given] for name, given in call.args.items()}
    return frozenset(
        name
        for name, given in held.items()
        if any(isinstance(each, Operand) and each.label.kind == AGG for each in given)
    )


def ways(sample: Sample) -> Iterator[list[Label]]:
    """Every choice of operands that are totals, the others public."""
    for chosen in itertools.product([NOTHING, TOTAL], repeat=len(sample.operands)):
        if TOTAL in chosen:
            yield list(chosen)


def mixed(values: list[torch.Tensor], others: list[torch.Tensor], labels: list[Label]) -> list[torch.Tensor]:
    return [other if label is TOTAL else value for value, other, label in zip(values, others, labels, strict=True)]


@pytest.mark.parametrize("op", sorted(AFFINE))
def test_what_stays_a_total_is_affine_in_the_totals(op: str) -> None:
    source = random.Random(op)
    cases = [(sample, labels) for sample in samples_of(op) for labels in ways(sample)]
    met: set[frozenset[str]] = set()
    for sample, labels in source.sample(cases, min(len(cases), MOST_CASES)):
        call = sample.call(labels)
        (judged,) = judge(call).labels
        if judged.kind != AGG:
            assert totals_in(call) not in {frozenset(way) for way in AFFINE[op]} or "dtype" in sample.kwargs
            continue
        met.add(totals_in(call))
        public = [draw(given, source) for given in sample.operands]
        first, second = (mixed(public, [draw(g, source) for g in sample.operands], labels) for _ in range(2))
        nothing = mixed(public, [torch.zeros_like(value) for value in public], labels)
        both = mixed(public, [a + b for a, b in zip(first, second, strict=True)], labels)
        left, right, offset, together = (sample.run(values)[0].double() for values in (first, second, nothing, both))
        torch.testing.assert_close(left + right, together + offset, rtol=1e-2, atol=1e-2)
        assert judged.closed is None
    assert {frozenset(way) for way in AFFINE[op]} <= met, "a way to hold totals that no sample tries"


def test_everything_else_that_is_done_to_a_total_is_tainted() -> None:
    kept = {"aten::clone", "grid::parameter"}
    for sample in samples(2, 4):
        if sample.op in AFFINE or sample.op in kept:
            continue
        number = len(sample.operands)
        alone = [[TOTAL if place == only else NOTHING for place in range(number)] for only in range(number)]
        for labels in [*alone, *([[TOTAL] * number] if number > 1 else [])]:
            found = judge(sample.call(labels)).labels
            assert all(label.kind in ("tainted", PUBLIC) for label in found), sample
            assert all(label.kind == "tainted" for label in found) or sample.op.endswith("_like")


def test_products_and_quotients_of_totals_and_rows_with_totals_are_tainted() -> None:
    rows = Label(ROWS, TOTAL.inputs, 0, ("asset", "people", 5))
    for op, labels in itertools.product(
        ("mul.Tensor", "div.Tensor", "add.Tensor", "sub.Tensor"), ([TOTAL, rows], [rows, TOTAL])
    ):
        assert judge(Sample(f"aten::{op}", [T((5,)), T((5,))]).call(labels)).labels[0].kind == "tainted"
    for op in ("mul.Tensor", "div.Tensor"):
        assert judge(Sample(f"aten::{op}", [T((5,)), T((5,))]).call([TOTAL, TOTAL])).labels[0].kind == "tainted"
    assert judge(Sample("aten::div.Tensor", [T((5,)), T((5,))]).call([NOTHING, TOTAL])).labels[0].kind == "tainted"
    assert judge(Sample("aten::mm", [T((5, 5)), T((5, 5))]).call([TOTAL, TOTAL])).labels[0].kind == "tainted"


# --- what one row adds ---


def added(sample: Sample, labels: list[Label], values: list[torch.Tensor]) -> torch.Tensor:
    """What each row adds to the value: [n, size]."""
    bound = sample.call(labels).args
    held = {name: values[given.node] for name, given in _bound(sample).items() if isinstance(given, Ref)}
    if sample.op in PRODUCTS:
        product = PRODUCTS[sample.op]
        return of_product(product, held[product.left], held[product.right])
    if sample.op in LOSSES:
        shape = broadcast(tuple(held["self"].shape), tuple(held["target"].shape))
        axis = next(
            label.axis + len(shape) - len(given.shape)
            for label, given in zip(labels, sample.operands, strict=True)
            if label.kind == ROWS
        )
        return of_loss(sample.op, {**bound, **held}, axis)
    value, axis = held["self"], labels[0].axis
    reduced = dims(tuple(value.shape), bound)
    kind = SUMS[sample.op]
    found = of_sum(kind.map(value, bound), axis, reduced)
    return found / torch.Size([value.shape[axis] for axis in reduced]).numel() if kind.mean else found


def _bound(sample: Sample) -> dict[str, object]:
    return bind(TARGETS[sample.op], sample.node())


@pytest.mark.parametrize("op", sorted(KINDS - {COUNT}))
def test_a_total_is_the_sum_of_what_each_row_adds_and_of_nobody_elses(op: str) -> None:
    source = random.Random(op)
    cases = [(sample, labels) for sample in samples_of(op) for labels in labellings(sample)]
    cases = [(s, labels) for s, labels in cases if judge(s.call(labels)).labels[0].kind == AGG]
    assert len(cases) >= 4, "a total that no sample tries"
    for sample, labels in source.sample(cases, min(len(cases), MOST_CASES)):
        values = [draw(given, source) for given in sample.operands]
        before = added(sample, labels, values)
        (exact,) = sample.run(values)
        torch.testing.assert_close(before.sum(0), exact.double().reshape(-1), rtol=1e-3, atol=1e-3, equal_nan=True)
        for row in range(before.shape[0]):
            others = [draw(given, source, hostile=source.random() < 0.5) for given in sample.operands]
            after = added(sample, labels, with_row(values, others, labels, row))
            kept = [place for place in range(before.shape[0]) if place != row]
            assert same(before[kept], after[kept]), f"{sample} {labels}: row {row} moves what others add"


def test_every_operation_that_makes_a_total_says_what_each_row_adds() -> None:
    """A new rule that gives AGG is no good without contributions: nothing could be clipped."""
    found = {
        sample.op
        for sample in samples(2, 4)
        for labels in labellings(sample)
        if any(label.kind == AGG for label in judge(sample.call(labels)).labels)
    }
    assert found - {COUNT} == KINDS - {COUNT}
    assert COUNT in TABLE
