"""What is known of a call that was judged before is what judging it again would say, whatever it is given.

Without this a scientist could call a plan on public data, then on private rows, and be given the rows as public.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.compute.entries import Called, Entry
from apps.compute.messages import Append, Bind, PutPlan
from apps.compute.repeats import Repeats
from apps.compute.worker import Session
from gridclient.program.graph import CONSTANT, Node, Ref, constant, lineage_hash, tensor_digest
from gridclient.program.plan_format import encode_plan, plan_digest
from gridclient.program.plan_graph import PLAN, Input, PlanGraph, Result
from gridclient.program.plan_tensors import Constant
from gridclient.wire.messages import TensorHeader
from tests.factories.programs import Recorded, tensor_asset

N, D = 4, 3
PROGRAMS = 80
CALLS = 10
WEIGHTS = torch.arange(N * D, dtype=torch.float32)


class Judging(Recorded):
    """A session with values of every kind, all of shape [N, D]."""

    def __init__(self, folder: Path, repeats: Repeats) -> None:
        super().__init__()
        self.session.program.repeats = repeats
        x = self.bind(tensor_asset(folder / "x", torch.rand(N, D), columns=["a", "b", "c"], dataset="x"))
        beside = tensor_asset(folder / "beside", torch.rand(N, D), dataset="beside", sequence="x@1")
        named = tensor_asset(folder / "named", torch.rand(N, D), columns=["a", "b", "d"], dataset="named")
        padded = tensor_asset(folder / "padded", torch.rand(N, D), columns=["a", "b", "c"],
                              presence=[True, True, False, True], dataset="padded")  # fmt: skip
        mock = self.bind(tensor_asset(folder / "mock", torch.rand(N, D), dataset="mock"), "mock")
        public = self.constant(torch.ones(N, D))
        index = self.constant(torch.tensor([1, 0, 2, 3]))
        rows = self("aten::sum.dim_IntList", x, [0], True)
        weights = self("grid::parameter", public, "net", "weight", True)
        buffer = self("grid::parameter", mock, "other", "buffer", False)
        loss = self("aten::sum", self("aten::mul.Tensor", x, weights))
        root = self("aten::expand", self("aten::ones_like", loss), [N, D])
        largest = self("aten::max.dim", self("aten::unsqueeze", x, 2), 2, outputs=2)
        self.values = [
            x, self.bind(beside), self.bind(named), self.bind(padded), mock, public, weights, buffer, root, largest,
            self("aten::expand", rows, [N, D]), self("aten::cumsum", x, 0), self("aten::flip", x, [0]),
            self("aten::index_select", x, 0, index), self("aten::exp", x), self("aten::add.Tensor", x, weights),
            self("aten::ones_like", x), self("aten::t", self("aten::clone", self("aten::t", x))),
        ]  # fmt: skip

    def call(self, plan: PlanGraph, digest: str, operands: list[Ref], seed: int) -> range:
        first, self._next = self._next, self._next + plan.size
        kwargs = {"seed": seed} if plan.draws else {}
        self.session.handle(Append([Node(first, PLAN, [digest, plan.size, operands], kwargs, 1, "line 1")]), 10)
        return range(first, first + plan.size)


def drawn(source: random.Random, name: str) -> PlanGraph:
    """A plan of two inputs and a few operations, of which most fit."""
    digest = tensor_digest("float32", [N, D], WEIGHTS.numpy().tobytes())
    index = torch.tensor([1, 0, 2, 3]).numpy().tobytes()
    places = tensor_digest("int64", [N], index)
    constants = {
        digest: Constant(TensorHeader("float32", [N, D], 4 * N * D), WEIGHTS.numpy().tobytes()),
        places: Constant(TensorHeader("int64", [N], 8 * N), index),
    }
    constants = {key: constants[key] for key in sorted(constants)}
    nodes = [constant(number, key) for number, key in enumerate(constants, 2)]
    weights, chosen = (Ref(2 + list(constants).index(key)) for key in (digest, places))
    values = [Ref(0), Ref(1), weights]
    for _ in range(source.randrange(1, 9)):
        one, other = source.choice(values), source.choice(values)
        op, *args = source.choice(_OPERATIONS)(one, other, chosen, source)
        number = len(nodes) + 2
        outputs = 2 if op in ("aten::max.dim", "grid::dropout") else 1
        nodes.append(Node(number, op, args, {}, outputs))
        values.append(Ref(number, source.randrange(outputs)))
    results = [value for value in values[3:] if source.random() < 0.5] or values[-1:]
    return PlanGraph(
        name, "", [Input("x", "float32", [N, D]), Input("y", "float32", [N, D])], nodes, results,
        [Result(number, "float32", [N, D]) for number in range(len(results))], constants,
    )  # fmt: skip


_OPERATIONS: list[Any] = [
    lambda x, y, i, source: ("aten::add.Tensor", x, y),
    lambda x, y, i, source: ("aten::mul.Tensor", x, source.choice([y, 2, 2.0, 1e30, True])),
    lambda x, y, i, source: ("aten::sum.dim_IntList", x, [source.randrange(2)], True),
    lambda x, y, i, source: ("aten::mean.dim", x, [0], True),
    lambda x, y, i, source: ("aten::sum", x),
    lambda x, y, i, source: ("aten::relu", x),
    lambda x, y, i, source: ("aten::slice.Tensor", x, source.randrange(2), 0, source.randrange(1, 4)),
    lambda x, y, i, source: ("aten::select.int", x, source.randrange(2), 1),
    lambda x, y, i, source: ("aten::flip", x, [source.randrange(2)]),
    lambda x, y, i, source: ("aten::t", x),
    lambda x, y, i, source: ("aten::mm", x, y),
    lambda x, y, i, source: ("aten::cat", [x, y], source.randrange(2)),
    lambda x, y, i, source: ("aten::ones_like", x),
    lambda x, y, i, source: ("aten::max.dim", x, source.randrange(2), True),
    lambda x, y, i, source: ("aten::index_select", x, 0, i),
    lambda x, y, i, source: ("aten::index.Tensor", x, [i]),
    lambda x, y, i, source: ("grid::count", x),
    lambda x, y, i, source: ("grid::dropout", x, 0.5, 0),
]


def said(entry: Entry) -> tuple[Any, ...]:
    """Everything that is known of a node."""
    facts = [(fact.label, fact.shape, fact.dtype, fact.nbytes, fact.table) for fact in entry.facts]
    return (
        facts, entry.op, entry.node, entry.flops, entry.nbytes, entry.presence, entry.shapes_only, entry.assets,
        entry.marks, sorted(entry.operands), entry.held, entry.waiting, entry.settled, entry.public(),
        None if entry.op == CONSTANT else entry.bound(),
    )  # fmt: skip


class Never(Repeats):
    """Every call is judged by itself."""

    def key(self, call: Any, entries: Any) -> Any:
        return None


def test_a_repeated_call_is_known_as_one_judged_by_itself(tmp_path: Path) -> None:
    """Over random plans: with public and private inputs of one shape, with other columns, rows, masks and marks."""
    source = random.Random(5)
    found, fresh = (Judging(tmp_path, repeats) for repeats in (Repeats(), Never()))
    assert found.values == fresh.values
    repeated = private = public = 0
    for number in range(PROGRAMS):
        plan = drawn(source, f"plan-{number}")
        data = encode_plan(plan)
        digest = plan_digest(data)
        for judging in (found, fresh):
            judging.session.handle(PutPlan(digest, data), 0)
        # Half of them of one kind: all that differs is what they were made from, or what they owe to modules.
        alike = source.random() < 0.5
        pool = [value for value in found.values if not alike or found.session.program.entries[value.node].public()]
        pairs = [[source.choice(pool), source.choice(pool)] for _ in range(3)]
        for _ in range(CALLS):
            operands, seed = source.choice(pairs), source.randrange(2**40)
            for judging in (found, fresh):
                numbers = judging.call(plan, digest, operands, seed)
            one, other = found.session.program, fresh.session.program
            for node in numbers:
                entry, wanted = one.entries.get(node), other.entries.get(node)
                if entry is None or wanted is None:
                    assert entry is wanted
                    assert str(one.failures[node].error) == str(other.failures[node].error)
                    continue
                assert said(entry) == said(wanted), plan
                assert one.hashes[node] == other.hashes[node] == lineage_hash(entry.node, one.hashes)
                repeated += isinstance(entry, Called)
                private += isinstance(entry, Called) and not entry.public()
                public += isinstance(entry, Called) and entry.public()
    assert repeated > 500
    assert private > 100
    assert public > 100


@pytest.mark.parametrize("part", ["values", "mock"])
def test_mock_data_say_nothing_of_the_real_ones(tmp_path: Path, part: str) -> None:
    """The same plan on mock data, then on the real ones, and the other way round."""
    recorded = Judging(tmp_path, Repeats())
    spec = tensor_asset(tmp_path / "real", torch.rand(N, D), dataset="real")
    plan = PlanGraph(
        "twice", "", [Input("x", "float32", [N, D])], [Node(1, "aten::mul.Tensor", [Ref(0), 2.0])], [Ref(1)],
        [Result(0, "float32", [N, D])], {},
    )  # fmt: skip
    data = encode_plan(plan)
    recorded.session.handle(PutPlan(plan_digest(data), data), 0)
    parts = [part, "mock" if part == "values" else "values"]
    for each in (*parts, *parts):
        recorded.session.handle(Bind(spec, (each,)), 0)
        operand = recorded.bind(spec, each)
        (number,) = recorded.call(plan, plan_digest(data), [operand], 0)
        proposal = recorded.propose(Ref(number))
        assert proposal.label == ("public" if each == "mock" else "rows")
        assert proposal.assets == [("real", 1, each)]


def test_many_calls_take_no_more_room_than_a_session_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.compute.repeats.MOST", 5)
    repeats = Repeats()
    recorded = Judging(tmp_path, repeats)
    for number in range(9):
        plan = drawn(random.Random(number), f"plan-{number}")
        data = encode_plan(plan)
        recorded.session.handle(PutPlan(plan_digest(data), data), 0)
        recorded.call(plan, plan_digest(data), recorded.values[:2], 0)
        assert sum(map(len, repeats._known.values())) == repeats._nodes <= 5


def test_a_plan_that_was_replaced_is_judged_anew(tmp_path: Path) -> None:
    """Two plans under one name of their bytes cannot be; should they ever, neither speaks for the other."""
    recorded = Judging(tmp_path, Repeats())
    session: Session = recorded.session
    labels = []
    for op in ("aten::relu", "aten::ones_like"):
        plan = PlanGraph(
            "one", "", [Input("x", "float32", [N, D])], [Node(1, op, [Ref(0)])], [Ref(1)],
            [Result(0, "float32", [N, D])], {},
        )  # fmt: skip
        session.handle(PutPlan("0" * 64, encode_plan(plan)), 0)
        (number,) = recorded.call(plan, "0" * 64, recorded.values[:1], 0)
        labels.append(recorded.propose(Ref(number)).label)
    assert labels == ["rows", "public"]
