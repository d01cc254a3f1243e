"""Attacks 23 and 24: private values written into public ones, and people mixed by ordinary operations.

What an owner would lose: any value, to anyone who finds one operation that forgets where its operands came from.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from apps.compute.operations import TABLE
from apps.compute.rules.pointwise import like
from apps.compute.targets import TARGETS
from gridclient.program.graph import Dtype, Ref
from gridclient.program.operations import OPERATIONS
from gridclient.wire.errors import (
    GetNotPermittedError,
    GridError,
    InvalidInputError,
    LimitExceededError,
    OperationNotAllowedError,
    ShapeError,
)
from tests.attacks.conftest import Private
from tests.attacks.score import check_nothing_recovered, numbers
from tests.attacks.ward import Ward, tried
from tests.factories.operations import Sample, T, samples
from tests.factories.raw import RawClient

SHAPE_ONLY = {name for name, row in TABLE.items() if row.rule is like}
CALLS_PER_OPERATION = 14


class Operands:
    """Private values of a square dataset in every shape, ROWS wherever rows can be; public ones of zeros."""

    def __init__(self, client: RawClient, dataset: dict[str, Any], n: int) -> None:
        self.client, self.n = client, n
        self.x = client.asset(dataset)
        self.flat = client.node("aten::view", self.x, [-1])
        self.made: dict[tuple[T, bool], Ref] = {}

    def get(self, wanted: T, *, private: bool) -> Ref:
        key = (wanted, private)
        if key not in self.made:
            self.made[key] = self._private(wanted) if private else self._public(wanted)
        return self.made[key]

    def _public(self, wanted: T) -> Ref:
        return self.client.constant(np.zeros(wanted.shape, wanted.dtype))

    def _private(self, wanted: T) -> Ref:
        value = self._shaped(wanted.shape)
        if wanted.dtype == "float64":
            return value
        return self.client.node("aten::_to_copy", value, dtype=Dtype(wanted.dtype))

    def _shaped(self, shape: tuple[int, ...]) -> Ref:
        node, n = self.client.node, self.n
        if shape == (n, n):
            return self.x
        if shape == (n,):
            return node("aten::select.int", self.x, 1, 1)
        if shape == (n, 1):
            return node("aten::slice.Tensor", self.x, 1, 0, 1)
        if shape == (1, n):
            return node("aten::slice.Tensor", self.x, 0, 0, 1)
        if shape == (n, n, 2):
            return node("aten::stack", [self.x, self.x], 2)
        if shape == (2, n, n):
            return node("aten::stack", [self.x, self.x], 0)
        if shape == (n, 2, n):
            return node("aten::stack", [self.x, self.x], 1)
        size = int(np.prod(shape))
        index = self.client.constant(np.arange(size, dtype=np.int64) % (n * n))
        return node("aten::view", node("aten::index_select", self.flat, 0, index), list(shape))


def drawn(source: random.Random, n: int) -> list[Sample]:
    """Some calls of every operation of the table, which the shapes n == d make most dangerous."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples(n, n):
        if not sample.operands:  # random numbers: nothing private goes in
            continue
        by_name.setdefault(sample.op, []).append(sample)
    return [
        sample for found in by_name.values() for sample in source.sample(found, min(CALLS_PER_OPERATION, len(found)))
    ]


def call(operands: Operands, sample: Sample, source: random.Random, *, after: Any = None) -> tuple[list[Ref], bool]:
    """Append the call with a random choice of private operands, at least one; all its outputs."""
    wanted = sample.operands
    chosen = {number for number in range(len(wanted)) if source.random() < 0.6} or {source.randrange(len(wanted))}
    refs = iter([operands.get(given, private=number in chosen) for number, given in enumerate(wanted)])

    def value(given: Any) -> Any:
        if isinstance(given, T):
            return next(refs)
        return [value(item) for item in given] if isinstance(given, list) else given

    outputs = TARGETS[sample.op].outputs
    args, kwargs = [*map(value, sample.args)], {name: value(given) for name, given in sample.kwargs.items()}
    made = operands.client.node(sample.op, *args, outputs=outputs, **kwargs)
    return [Ref(made.node, output) for output in range(outputs)], sample.op in SHAPE_ONLY


def test_every_operation_of_the_table_is_tried() -> None:
    tried_here = {sample.op for sample in drawn(random.Random(0), 12)}
    assert all(name.startswith("grid::") for name in OPERATIONS - tried_here - {"aten::expand"})


def test_no_operation_makes_a_private_value_public(ward: Ward, square: Private) -> None:
    client, source = ward.client("scientist"), random.Random(23)
    operands = Operands(client, square.dataset, 12)
    seen: list[Any] = []
    for sample in drawn(source, 12):
        outputs, by_shape = call(operands, sample, source)
        for output in outputs:
            got = tried(client, output)
            seen.append(got)
            if by_shape:
                assert isinstance(got, np.ndarray) and len(np.unique(got)) == 1, sample
            else:
                assert isinstance(got, (GetNotPermittedError, ShapeError, InvalidInputError)), (sample, got)
    check_nothing_recovered(square.values, seen)
    assert sum(isinstance(got, GetNotPermittedError) for got in seen) > 800


def test_mixing_people_gives_an_aggregate_grant_nothing_beyond_the_closed_set(ward: Ward, square: Private) -> None:
    """Every operation on a square table, one or two of them deep, then summed over either axis."""
    client, source = ward.client("analyst"), random.Random(24)
    operands = Operands(client, square.dataset, 12)
    values = square.values
    allowed = np.array([12.0, *values.sum(0), *values.mean(0), *values.var(0, ddof=1)])
    seen: list[Any] = []
    for sample in drawn(source, 12):
        outputs, by_shape = call(operands, sample, source)
        if by_shape:
            continue
        for ref in outputs:
            then = source.choice(
                [
                    lambda ref: ref,
                    lambda ref: client.node("aten::sum", ref),
                    lambda ref: client.node("aten::sum.dim_IntList", ref, [0]),
                    lambda ref: client.node("aten::sum.dim_IntList", ref, [-1]),
                    lambda ref: client.node("aten::mean.dim", ref, [0]),
                    lambda ref: client.node("aten::select.int", ref, 0, 0),
                ]
            )(ref)
            got = tried(client, then)
            seen.append(got)
            if isinstance(got, np.ndarray):
                for number in numbers(got):
                    # Public operands are zeros, so that 0 is all that an operation without private ones can give.
                    assert np.isclose(allowed, number, rtol=1e-9).any() or number == 0, (sample, number)
    check_nothing_recovered(values, seen)


@pytest.mark.parametrize(
    "mix",
    [
        lambda c, x: c.node("aten::_softmax", x, 0, False),
        lambda c, x: c.node("aten::_log_softmax", x, -1, False),
        lambda c, x: c.node("aten::cat", [x, c.node("aten::flip", x, [0])], 0),
        lambda c, x: c.node("aten::dot", x, c.node("aten::flip", x, [0])),
        lambda c, x: c.node("aten::mm", c.node("aten::view", x, [4, 4]), c.node("aten::view", x, [4, 4])),
        lambda c, x: c.node("aten::sum.dim_IntList", c.node("aten::view", x, [4, 4]), [0]),
        lambda c, x: c.node("aten::sum.dim_IntList", c.node("aten::view", x, [16, 1]), [1]),
        lambda c, x: c.node("aten::sum.dim_IntList", c.node("aten::view", x, [1, 16]), [0]),
        lambda c, x: c.node("aten::mean.dim", c.node("aten::expand", x, [16, 16]), [0]),
        lambda c, x: c.node("aten::add.Tensor", x, c.node("aten::unsqueeze", x, 1)),
        lambda c, x: c.node("aten::addmm", x, c.constant(np.zeros((2, 2))), c.constant(np.zeros((2, 16)))),
        lambda c, x: c.node("aten::mv", c.constant(np.eye(16)), x),
        lambda c, x: c.node("aten::index_select", c.constant(np.arange(1001.0)), 0, _codes(c, x)),
        lambda c, x: c.node("aten::mean", c.node("aten::stack", [x, x], 1)),
    ],
)
def test_one_column_without_an_axis_of_its_own_is_not_mixed(ward: Ward, single: Private, mix: Any) -> None:
    for person in ("scientist", "analyst"):
        client = ward.client(person)
        got = tried(client, lambda c: mix(c, c.asset(single.dataset)))
        assert isinstance(got, GetNotPermittedError), got


def _codes(client: RawClient, x: Ref) -> Ref:
    return client.node("aten::_to_copy", x, dtype=Dtype("int64"))


def test_a_public_value_stays_what_it_was(ward: Ward, births: Private) -> None:
    """Private rows scattered into a constant make a new, private value; the constant is as before."""
    client, source = ward.client("scientist"), random.Random(5)
    x = client.asset(births.dataset)
    public = client.constant(np.zeros((24, 3)))
    view = client.node("aten::view", public, [72])
    for _ in range(40):
        at = source.randrange(24)
        row = client.node("aten::select.int", x, 0, at)
        into = source.choice(
            [
                client.node("aten::select_scatter", public, row, 0, at),
                client.node("aten::slice_scatter", public, client.node("aten::unsqueeze", row, 0), 0, at, at + 1),
                client.node("aten::where.self", client.constant(np.ones((24, 3), bool)), x, public),
                client.node("aten::cat", [public, x], source.choice([0, 1])),
                client.node("aten::maximum", public, x),
            ]
        )
        assert isinstance(tried(client, into), GetNotPermittedError)
        assert not client.get(public).any() and not client.get(view).any()


def test_programs_never_change_what_is_published(ward: Ward, square: Private) -> None:
    """The owner runs every operation on the data themselves; the file and its mapping stay bit for bit."""
    client, source = ward.client("owner"), random.Random(6)
    operands = Operands(client, square.dataset, 12)
    before = ward.digest(square.dataset)
    answered = 0
    for sample in source.sample([sample for sample in samples(12, 12) if sample.operands], 500):
        for output in call(operands, sample, source)[0]:
            answered += isinstance(tried(client, output), np.ndarray)
    assert answered > 400
    assert ward.digest(square.dataset) == before
    assert np.array_equal(client.get(operands.x), square.values)


def mutating() -> list[str]:
    """Every ATen overload that writes into an argument, as torch itself says."""
    found = []
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        if callable(getattr(packet, "overloads", None)):
            for overload in packet.overloads():
                if getattr(packet, overload)._schema.is_mutable:
                    found.append(f"aten::{name}" + ("" if overload == "default" else f".{overload}"))
    return sorted(found)


LIARS = [
    "native_batch_norm",
    "_native_batch_norm_legit",
    "cudnn_batch_norm",
    "as_strided",
    "empty_like",
    "empty.memory_format",
    "new_empty",
    "empty_strided",
    "set_.source_Tensor",
    "resize_",
    "lift",
    "nonzero",
    "item",
    "unique_dim",
]
"""Overloads that write or read what they should not, whatever their schema says."""


def test_no_overload_that_writes_is_taken(ward: Ward, births: Private) -> None:
    client, source = ward.client("scientist"), random.Random(8)
    x = client.asset(births.dataset)
    public = client.constant(np.zeros((24, 3)))
    for name in [*source.sample(mutating(), 300), *(f"aten::{name}" for name in LIARS)]:
        for args in ([public, x], [x], [public]):
            got = tried(client, client.node(name, *args))
            assert isinstance(got, OperationNotAllowedError), (name, got)
    assert not client.get(public).any()


def test_no_operation_takes_a_place_to_write_to(ward: Ward, births: Private) -> None:
    client, source = ward.client("scientist"), random.Random(9)
    x = client.asset(births.dataset)
    public = client.constant(np.zeros((24, 3)))
    for sample in source.sample(samples(3, 3), 200):
        name = source.choice(["out", "self_", "running_mean", "other_out", "__dest__"])
        operands: list[Any] = [public if isinstance(given, (T, list)) else given for given in sample.args]
        got = tried(client, client.node(sample.op, *operands, **{name: public, **sample.kwargs}))
        assert isinstance(got, (InvalidInputError, LimitExceededError, ShapeError)), (sample, got)
        assert isinstance(got, GridError)
    assert isinstance(tried(client, client.node("aten::add.Tensor", x, public, out=public)), InvalidInputError)
    assert not client.get(public).any()
