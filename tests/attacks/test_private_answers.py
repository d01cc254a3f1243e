"""Attacks 9 to 13, 16, 26 and 28 on answers with noise: one person made to count for more, one answer asked for often.

What an owner would lose: the one thing that a private answer promises, that nobody can tell from it who is in the data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from apps.compute import kernel
from apps.compute.mechanism import mechanism
from apps.compute.messages import Draw, Failed, Value, Weigh, Weighed
from apps.compute.readers import bases
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Dtype, Ref
from tests.factories.programs import Recorded, tensor_asset

PEOPLE, COLUMNS = 30, 3
VICTIM = 7
UNIT = 4.3
WORST: list[list[float]] = [
    [100.0] * 3, [0.0] * 3, [torch.nan] * 3, [torch.inf, 50.0, -torch.inf], [3e38, -3e38, 3e38], [-0.0, 1e-40, 1e-45],
]  # fmt: skip
"""What one person's row may be, whatever was declared: the kernel must not believe it."""
Attack = Callable[[Recorded, Ref], Ref]


def others() -> torch.Tensor:
    return torch.rand(PEOPLE, COLUMNS, generator=torch.Generator().manual_seed(1)) * 100


def with_families(folder: Path, spec: AssetSpec) -> AssetSpec:
    """The asset, its rows those of ten people with three each."""
    hmacs = pa.array([f"person {row % 10}".encode().ljust(32, b"\x01") for row in range(PEOPLE)], pa.binary(32))
    with pa.ipc.new_file(str(folder / "entities.arrow"), pa.schema([("entity", pa.binary(32))])) as writer:
        writer.write_table(pa.table({"entity": hmacs}))
    return msgspec.structs.replace(spec, entities="declared", max_rows_per_entity=3)


def contributions(folder: Path, row: list[float], attack: Attack, *, families: bool) -> list[tuple[int, Any]]:
    """By sum that noise goes on: what the noise hides, and every entity's contribution, in units of the grid."""
    values = others()
    values[VICTIM] = torch.tensor(row)
    spec = tensor_asset(folder, values, columns=[f"c{i}" for i in range(COLUMNS)])
    recorded = Recorded()
    value = attack(recorded, recorded.bind(with_families(folder, spec) if families else spec))
    program, reader = recorded.session.program, recorded.session.reader
    found = []
    for base in bases.form(program, reader, bases.bases(program, value)):
        clip = base.norm * base.most
        how = mechanism(clip=clip, sigma=clip * UNIT, size=base.size, entities=base.entities)
        found.append((how.bound, kernel.quantised(*bases.rows(program, reader, base), how)))
    return found


def total(r: Recorded, x: Ref) -> Ref:
    return r("aten::sum.dim_IntList", x, [0])


def but_one(r: Recorded, x: Ref) -> Ref:
    kept = r.constant(torch.tensor([row for row in range(PEOPLE) if row != VICTIM]))
    return r("aten::sub.Tensor", total(r, x), total(r, r("aten::index_select", x, 0, kept)))


def often(r: Recorded, x: Ref) -> Ref:
    return total(r, r("aten::index_select", x, 0, r.constant(torch.full((400,), VICTIM))))


def doubled(r: Recorded, x: Ref) -> Ref:
    for _ in range(5):
        x = r("aten::cat", [x, r("aten::flip", x, [0])], 0)
    return total(r, r("aten::slice.Tensor", x, 0, 3, 700, 7))


def one_hot(r: Recorded, x: Ref) -> Ref:
    only = torch.zeros(PEOPLE)
    only[VICTIM] = 1
    return r("aten::mv", r("aten::t", x), r.constant(only))


def scaled(r: Recorded, x: Ref) -> Ref:
    by = torch.ones(PEOPLE, 1)
    by[VICTIM] = 1e9
    return total(r, r("aten::mul.Tensor", x, r.constant(by)))


def low_bits(r: Recorded, x: Ref) -> Ref:
    exact = r("aten::clamp", r("aten::mul.Tensor", r("aten::_to_copy", x, dtype=Dtype("float64")), 1e-12), -1.0, 1.0)
    return total(r, r("aten::add.Tensor", exact, 1.0))


def whole_numbers(r: Recorded, x: Ref) -> Ref:
    return total(r, r("aten::_to_copy", r("aten::clamp", x, -1e4, 1e4), dtype=Dtype("int16")))


def quotients(r: Recorded, x: Ref) -> Ref:
    below = r("aten::sub.Tensor", x, 50.0)
    return total(r, r("aten::clamp", r("aten::div.Tensor", r.constant(torch.tensor(1.0)), below), -1e6, 1e6))


def squares(r: Recorded, x: Ref) -> Ref:
    return r("aten::mm", r("aten::t", x), x)


def several(r: Recorded, x: Ref) -> Ref:
    mean = r("aten::mean.dim", r("aten::roll", x, [11], [0]), [0])
    return r("aten::stack", [total(r, x), r("aten::mul.Tensor", mean, 1e6), often(r, x)], 0)


def looked_for(r: Recorded, x: Ref) -> Ref:
    return r("aten::count_nonzero.dim_IntList", r("aten::eq.Tensor", x, r.constant(torch.tensor(100.0))), [0])


ATTACKS: list[Attack] = [
    total, but_one, often, doubled, one_hot, scaled, low_bits, whole_numbers, quotients, squares, several, looked_for,
]  # fmt: skip


@pytest.mark.parametrize("families", [False, True], ids=["rows", "families"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_nobody_counts_for_more_than_the_noise_hides(tmp_path: Path, attack: Attack, families: bool) -> None:
    runs = [contributions(tmp_path / str(n), row, attack, families=families) for n, row in enumerate(WORST)]
    for same in zip(*runs, strict=True):
        moved = np.zeros(len(same[0][1]), dtype=bool)
        for bound, q in same:
            assert max(sum(int(each) ** 2 for each in row) for row in q) <= bound**2
            moved |= (q != same[0][1]).any(1)
        assert moved.sum() <= 1, "a row moved what other people contribute"


def weighed(recorded: Recorded, value: Ref) -> Weighed | Failed:
    reply = recorded.session.handle(Weigh(1, value), 0)
    assert isinstance(reply, Weighed | Failed)
    return reply


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_price_and_the_shape_of_an_answer_are_the_same_whatever_a_row_is(tmp_path: Path, attack: Attack) -> None:
    seen = set()
    for number, row in enumerate(WORST):
        values = others()
        values[VICTIM] = torch.tensor(row)
        recorded = Recorded()
        x = recorded.bind(tensor_asset(tmp_path / str(number), values, columns=[f"c{i}" for i in range(COLUMNS)]))
        value = attack(recorded, x)
        price = weighed(recorded, value)
        assert isinstance(price, Weighed)
        answer = recorded.session.handle(Draw(2, value, UNIT, price.clips, "/dev/null"), 0)
        assert isinstance(answer, Value) and answer.data is not None
        seen.add((msgspec.msgpack.encode(price), msgspec.msgpack.encode(answer.header), len(answer.data)))
    assert len(seen) == 1


def test_an_answer_is_no_larger_than_the_ledger_may_keep_for_ever(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, others(), columns=["a", "b", "c"]))
    one = recorded("aten::sum", x)
    reply = weighed(recorded, recorded("aten::expand", one, [2**20 + 1]))
    assert isinstance(reply, Failed) and reply.code == "limit_exceeded"
    assert isinstance(weighed(recorded, recorded("aten::expand", one, [2**17])), Weighed)
    factors = recorded("aten::add.Tensor", recorded("grid::rand", [2**17], Dtype("float32"), 7), 1.0)
    reply = weighed(recorded, recorded("aten::mul.Tensor", one, factors))
    assert isinstance(reply, Failed) and reply.code == "limit_exceeded", "each number would have a sigma of its own"


def test_rows_that_are_joined_again_and_again_do_not_hold_up_the_worker(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, others(), columns=["a", "b", "c"]))
    for _ in range(60):
        x = recorded("aten::slice.Tensor", recorded("aten::cat", [x, x], 0), 0, 0, PEOPLE)
    reply = weighed(recorded, total(recorded, x))
    assert isinstance(reply, Failed) and reply.code == "invalid_input"
