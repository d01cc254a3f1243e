"""One person, whatever is done with their rows, moves the integer sum by at most C / g: the whole promise of the noise.

Random programs of the table x random data x a random person, through the readers and the kernel as a release runs them.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from apps.compute.kernel import integer_sum, quantised, squared_norms
from apps.compute.mechanism import mechanism
from apps.compute.readers.bases import Base, bases, form, rows
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Ref
from gridclient.wire.errors import GridError
from tests.factories.operations import HOSTILE
from tests.factories.programs import Recorded, tensor_asset

PEOPLE, WIDTH = 5, 3
PROGRAMS = 50
UNARY = "neg abs exp sigmoid tanh relu sqrt log reciprocal sin isnan isfinite sign floor".split()
PAIRS = "add.Tensor sub.Tensor mul.Tensor div.Tensor minimum maximum lt.Tensor".split()


class Grown:
    """A random program over one asset, written in the same way whatever the values are."""

    def __init__(self, spec: AssetSpec, seed: int) -> None:
        self.recorded, self.source = Recorded(), random.Random(seed)
        self.values = [self.recorded.bind(spec)]
        for _ in range(self.source.randint(1, 6)):
            self.values.append(self._step())
        self.total = self._total()

    def _step(self) -> Ref:
        pick, recorded = self.source.choice, self.recorded
        value, other = pick(self.values), pick(self.values)
        shown = torch.tensor([self.source.randint(-1, PEOPLE) for _ in range(self.source.randint(1, 7))])
        weights = torch.tensor([self.source.uniform(-2, 2) for _ in range(WIDTH * WIDTH)]).reshape(WIDTH, WIDTH)
        made = pick(
            [
                lambda: recorded(f"aten::{pick(UNARY)}", value),
                lambda: recorded(f"aten::{pick(PAIRS)}", value, other),
                lambda: recorded(f"aten::{pick(PAIRS)}", value, pick([0.5, -3.0, 1e9])),
                lambda: recorded("aten::clamp", value, -1.0, 1.0),
                lambda: recorded("aten::where.self", recorded("aten::gt.Scalar", value, 0.5), other, value),
                lambda: recorded("aten::mm", value, recorded.constant(weights)),
                lambda: recorded("aten::index_select", value, 0, recorded.constant(shown)),
                lambda: recorded("aten::flip", value, [0]),
                lambda: recorded("aten::roll", value, [1], [0]),
                lambda: recorded("aten::slice.Tensor", value, pick([0, 1]), 0, 2**63 - 1, 2),
                lambda: recorded("aten::cat", [value, other], pick([0, 1])),
                lambda: recorded("aten::transpose.int", value, 0, 1),
                lambda: recorded("aten::_softmax", value, 1, False),
            ]
        )
        return made()

    def _total(self) -> Ref:
        pick, recorded = self.source.choice, self.recorded
        value, other = pick(self.values[-3:]), pick(self.values)
        made = pick(
            [
                lambda: recorded("aten::sum.dim_IntList", value, [0]),
                lambda: recorded("aten::sum", value),
                lambda: recorded("aten::mean.dim", value, [pick([0, 1])], True),
                lambda: recorded("aten::nansum", value, [0]),
                lambda: recorded("aten::count_nonzero.dim_IntList", value, [0]),
                lambda: recorded("grid::count", value),
                lambda: recorded("aten::mm", recorded("aten::t", value), other),
                lambda: recorded("aten::mm", recorded("aten::t", other), value),
                lambda: recorded("aten::mm", recorded.constant(torch.arange(2.0 * PEOPLE).reshape(2, PEOPLE)), value),
            ]
        )
        return recorded("aten::mul.Tensor", made(), 0.5)

    def forms(self) -> list[Base]:
        session = self.recorded.session
        return form(session.program, session.reader, bases(session.program, self.total))

    def rows(self, base: Base) -> Any:
        return rows(self.recorded.session.program, self.recorded.session.reader, base)


def published(folder: Path, values: torch.Tensor, present: list[bool] | None, people: list[int] | None) -> AssetSpec:
    spec = tensor_asset(folder, values, columns=[f"c{place}" for place in range(WIDTH)], presence=present)
    if people is None:
        return spec
    hmacs = pa.array([bytes([code]) * 32 for code in people], pa.binary(32))
    with pa.ipc.new_file(str(folder / "entities.arrow"), pa.schema([("entity", pa.binary(32))])) as writer:
        writer.write_table(pa.table({"entity": hmacs}))
    return msgspec.structs.replace(spec, entities="declared", max_rows_per_entity=2)


@pytest.mark.parametrize("present", [None, [True, False, True, True, True]], ids=["all records", "null records"])
@pytest.mark.parametrize("people", [None, [2, 0, 2, 1, 0]], ids=["rows are people", "people have rows"])
def test_one_person_moves_the_sum_by_no_more_than_the_noise_hides(
    tmp_path: Path, present: list[bool] | None, people: list[int] | None
) -> None:
    codes = people or list(range(PEOPLE))
    released = 0
    for seed in range(PROGRAMS):
        source = random.Random(seed)
        values = torch.tensor([[source.uniform(0, 100) for _ in range(WIDTH)] for _ in range(PEOPLE)])
        person = source.choice(codes)
        others = values.clone()
        for row in range(PEOPLE):
            if codes[row] == person:
                others[row] = torch.tensor([source.choice([*HOSTILE, 1e30, 50.0]) for _ in range(WIDTH)])
        first, second = (
            Grown(published(tmp_path / f"{seed}{name}", data, present, people), seed)
            for name, data in (("a", values), ("b", others))
        )
        try:
            found = first.forms()
        except GridError:  # no sum, no bounds, or shapes that don't fit
            continue
        assert found == second.forms(), "a form that depends on values"
        for base in found:
            how = mechanism(clip=base.most * base.norm, sigma=base.norm, size=base.size, entities=base.entities)
            (scaled, given, keep), after = first.rows(base), second.rows(base)
            before, changed = quantised(scaled, given, keep, how), quantised(*after, how)
            same = (before == changed).all(axis=1)
            assert (~same).sum() <= 1, f"{seed}: somebody else's contribution changed"
            for contributions in (before, changed):
                assert squared_norms(contributions).max(initial=0) <= how.bound**2
            moved = integer_sum(before) - integer_sum(before, same)
            assert sum(int(number) ** 2 for number in moved) <= how.bound**2
            if given is not None and people is not None:
                assert set(np.flatnonzero(~same)) <= {person}, "the change is laid to somebody else"
            released += 1
    assert released >= PROGRAMS // 10
