"""Bounds against the operations themselves: what comes of values inside of bounds lies inside of bounds.

A bound that is too narrow would clip honest answers without a word; one for each rule, on shapes that hide mistakes.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from apps.compute.labels import ROWS, Label
from apps.compute.readers import shapes
from apps.compute.readers.bounds import RULES, ruled
from apps.compute.readers.intervals import Interval, made
from apps.compute.readers.labels import judge
from apps.compute.targets import DTYPES, TARGETS, bind
from gridclient.program.graph import Ref
from tests.factories.operations import Sample, T, draw, samples_of
from tests.property.test_labels_separability import labellings

MOST_CASES = 16
SELDOM = {"aten::_log_softmax", "aten::binary_cross_entropy_with_logits"}
"""Unbounded on one side; bounded for labels only."""
COARSE = {"float16": 1e-2, "bfloat16": 1e-1}


def inside(given: T, axis: int, source: random.Random) -> tuple[torch.Tensor, Interval]:
    """Random bounds of one row, and values of all rows inside of them, often on the very bounds."""
    shape = tuple(1 if place == axis else extent for place, extent in enumerate(given.shape))
    generator = torch.Generator().manual_seed(source.getrandbits(32))
    whole = not DTYPES[given.dtype].is_floating_point
    low = torch.rand(shape, generator=generator, dtype=torch.float64) * 6 - source.choice([1.0, 3.0, 6.0])
    low = low.clamp(min=0) if given.dtype == "uint8" else low
    high = low + torch.rand(shape, generator=generator, dtype=torch.float64) * 4
    low, high = (low.floor(), high.ceil()) if whole else (low.float().double(), high.float().double())
    if given.dtype == "bool":
        low, high = torch.zeros(shape).double(), torch.ones(shape).double()
    part = torch.rand(given.shape, generator=generator, dtype=torch.float64)
    part = torch.where(part < 0.25, 0.0, torch.where(part > 0.75, 1.0, part))
    value = low + part * (high - low)
    return (value.round() if whole else value).to(DTYPES[given.dtype]), made(low, high)


def check(sample: Sample, labels: list[Label], source: random.Random) -> int:
    judged = judge(sample.call(labels)).labels
    values: list[torch.Tensor] = []
    held: list[Any] = []
    for given, label in zip(sample.operands, labels, strict=True):
        if label.kind == ROWS:
            value, interval = inside(given, label.axis, source)
            values.append(value)
            held.append(interval)
        else:
            values.append(draw(given, source))
            held.append(values[-1])
    exact = sample.run(values)

    def placed(given: Any) -> Any:
        if isinstance(given, list):
            return [placed(each) for each in given]
        return held[given.node] if isinstance(given, Ref) else given

    args = {name: placed(given) for name, given in bind(TARGETS[sample.op], sample.node()).items()}
    bounded = 0
    for number, label in enumerate(judged):
        if label.kind != ROWS:
            continue
        found, dtype = exact[number], shapes.NAMES[exact[number].dtype]
        shape = tuple(1 if place == label.axis else extent for place, extent in enumerate(found.shape))
        interval = ruled(sample.op, args, shape, label.axis, number, dtype)
        known = found.double()
        much = COARSE.get(dtype, 1e-4) * (1 + known.abs())
        fits = (known >= interval.low - much) & (known <= interval.high + much)
        # What is not finite contributes 0, whatever its bounds are.
        assert (fits | ~known.isfinite()).all(), f"{sample} {labels}: {found} outside of {interval}"
        bounded += interval.finite()
        if interval.finite() and found.numel():
            largest = interval.largest
            scaled = torch.where(largest > 0, found.double() / largest, 0.0)
            scaled = torch.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).movedim(label.axis, 0)
            norms = scaled.reshape(scaled.shape[0], -1).norm(dim=1)
            assert (norms <= interval.norm * (1 + COARSE.get(dtype, 1e-4)) + 1e-6).all(), f"{sample} {labels}: {norms}"
    return bounded


@pytest.mark.parametrize("op", sorted(RULES))
def test_values_inside_of_bounds_stay_inside_of_bounds(op: str) -> None:
    source = random.Random(op)
    cases = [(sample, labels) for sample in samples_of(op) for labels in labellings(sample)]
    cases = [(s, labels) for s, labels in cases if any(label.kind == ROWS for label in judge(s.call(labels)).labels)]
    bounded = sum(check(sample, labels, source) for sample, labels in source.sample(cases, min(len(cases), MOST_CASES)))
    assert bounded or op in SELDOM, "a rule that never bounds anything"
