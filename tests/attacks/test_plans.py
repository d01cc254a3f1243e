"""Attack 17: a plan that passes the allow-list and still outputs its input, or that hides what it does.

What a person in the data would lose: their row, taken by a call whose only name is "average"; what a plan's owner would
lose: the weights in it, which they let others run and not copy.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from gridclient.program.graph import Node, Ref, constant, tensor_digest
from gridclient.program.plan_format import encode_plan, plan_digest
from gridclient.program.plan_graph import PLAN, Input, PlanGraph, Result
from gridclient.program.plan_tensors import Constant
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridclient.wire.messages import TensorHeader
from tests.attacks.conftest import Private
from tests.attacks.ward import Ward, tried
from tests.factories.raw import RawClient

_names = (f"average-{number}" for number in count(1))
ROWS, COLUMNS = 24, 3


class Draft:
    """A plan over the births, written line by line."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}

    def op(self, name: str, *args: Any, outputs: int = 1) -> Ref:
        self.nodes.append(Node(len(self.nodes) + 1, f"aten::{name}", list(args), {}, outputs))
        return Ref(len(self.nodes))

    def constant(self, value: np.ndarray) -> Ref:
        """Constants come before all operations."""
        data = value.tobytes()
        digest = tensor_digest(str(value.dtype), value.shape, data)
        self.constants[digest] = Constant(TensorHeader(str(value.dtype), list(value.shape), len(data)), data)
        self.nodes.append(constant(len(self.nodes) + 1, digest))
        return Ref(len(self.nodes))

    def graph(self, result: Ref, *shape: int) -> PlanGraph:
        given = Input("births", "float64", [ROWS, COLUMNS])
        spec = Result(0, "float64", list(shape))
        name, words = next(_names), "The average of a month."
        return PlanGraph(name, words, [given], self.nodes, [result], [spec], self.constants)


def keep(client: RawClient, graph: PlanGraph, *, allow_download: bool = False) -> str:
    """Send a plan; its digest."""
    data = encode_plan(graph)
    transfer = client.upload(data, "plan")
    client.ask(m.Plan(next(client._asks), transfer, allow_download))
    return plan_digest(data)


def called(client: RawClient, digest: str, size: int, *operands: Ref, **kwargs: Any) -> int:
    """Call a plan; the first id that the call takes."""
    first = next(client._ids)
    for _ in range(size - 1):
        next(client._ids)
    client.send(m.Run([Node(first, PLAN, [digest, size, list(operands)], kwargs)]))
    return first


def run(client: RawClient, graph: PlanGraph, *operands: Ref) -> Ref:
    """The first result of a call of a plan that is sent for it."""
    first = called(client, keep(client, graph), graph.size, *operands)
    return Ref(first + graph.results[0].node - len(graph.inputs), graph.results[0].output)


X = Ref(0)


def _added(d: Draft, source: random.Random) -> Ref:
    value = X
    for _ in range(source.randint(1, 40)):
        value = d.op(source.choice(["add.Tensor", "sub.Tensor"]), value, 0.0)
    return value


def _there_and_back(d: Draft, source: random.Random) -> Ref:
    axis = source.randint(0, 1)
    return d.op("flip", d.op("flip", d.op("mul.Tensor", X, 2.0), [axis]), [axis])


def _by_a_one_hot(d: Draft, source: random.Random) -> Ref:
    person = source.randrange(ROWS)
    weights = np.zeros((1, ROWS))
    weights[0, person] = 1.0
    return d.op("mm", d.constant(weights), X)


def _by_an_identity(d: Draft, source: random.Random) -> Ref:
    eye = d.constant(np.eye(ROWS)[source.sample(range(ROWS), ROWS)])
    return d.op("mm", eye, X)


def _one_row(d: Draft, source: random.Random) -> Ref:
    person = source.randrange(ROWS)
    return d.op("slice.Tensor", X, 0, person, person + 1)


def _sorted(d: Draft, source: random.Random) -> Ref:
    d.op("sort", X, 0, source.random() < 0.5, outputs=2)
    return Ref(len(d.nodes), 0)


def _all_but_one(d: Draft, source: random.Random) -> Ref:
    person = source.randrange(ROWS)
    before = d.op("slice.Tensor", X, 0, 0, person)
    after = d.op("slice.Tensor", X, 0, person + 1, ROWS)
    rest = d.op("sum.dim_IntList", d.op("cat", [before, after], 0), [0], True)
    return d.op("sub.Tensor", d.op("sum.dim_IntList", X, [0], True), rest)


COPIES: dict[str, tuple[Callable[[Draft, random.Random], Ref], int]] = {
    "zeros added": (_added, ROWS),
    "turned twice": (_there_and_back, ROWS),
    "one-hot": (_by_a_one_hot, 1),
    "permutation": (_by_an_identity, ROWS),
    "one row": (_one_row, 1),
    "sorted": (_sorted, ROWS),
    "difference": (_all_but_one, 1),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_plan_that_outputs_its_input_is_refused(ward: Ward, births: Private, kind: str) -> None:
    make, rows = COPIES[kind]
    analyst = ward.client("analyst")  # has a grant for aggregates
    for seed in range(3):
        draft = Draft()
        graph = draft.graph(make(draft, random.Random(seed)), rows, COLUMNS)
        found = tried(analyst, run(analyst, graph, analyst.asset(births.dataset)))
        assert isinstance(found, GridError) and found.code == "get_not_permitted", (kind, seed)


def test_the_grant_still_gives_an_aggregate_that_a_plan_computes(ward: Ward, births: Private) -> None:
    analyst = ward.client("analyst")
    draft = Draft()
    graph = draft.graph(draft.op("sum.dim_IntList", X, [0]), COLUMNS)
    found = tried(analyst, run(analyst, graph, analyst.asset(births.dataset)))
    assert np.allclose(found, births.values.sum(0))


@pytest.mark.parametrize("kind", COPIES)
def test_a_reviewer_reads_the_operations_of_a_plan_as_if_they_had_been_written(
    ward: Ward, births: Private, kind: str
) -> None:
    make, rows = COPIES[kind]
    client = ward.client("scientist")
    draft = Draft()
    graph = draft.graph(make(draft, random.Random(5)), rows, COLUMNS)
    texts = []
    asset = client.asset(births.dataset)
    for digest, (header, data) in graph.constants.items():
        client.send(m.Constant(digest, header, bytes(data)))
    first = client._ids
    by_hand = [next(first) for _ in graph.nodes]
    client.send(m.Run(list(graph.written_out(by_hand[0], [asset]))))
    for value in (Ref(by_hand[0] + graph.results[0].node - 1, graph.results[0].output), run(client, graph, asset)):
        request = client.request(value)
        status, body = ward.call("owner", "GET", f"requests/{request}/")
        assert status == 200
        ward.call("scientist", "POST", f"requests/{request}/withdraw/", {})
        texts.append((body["words"], body["label"], body["program_hash"]))
    assert texts[0] == texts[1]
    assert texts[0][1] in ("rows", "tainted", "agg")
    assert "average" not in texts[0][0]  # the plan's own words are not the node's


def test_values_inside_of_a_call_cannot_be_used(ward: Ward, births: Private) -> None:
    """Weights that others may run, and not copy, are constants inside of the call."""
    owner, thief = ward.client("owner"), ward.client("stranger")
    draft = Draft()
    weights = draft.constant(np.arange(float(COLUMNS)))
    graph = draft.graph(draft.op("mul.Tensor", X, weights), ROWS, COLUMNS)
    digest = keep(owner, graph)
    status, _ = ward.call("stranger", "GET", f"plans/{graph.name}/bytes/")
    assert status == 403
    first = called(thief, digest, graph.size, thief.constant(np.ones((ROWS, COLUMNS))))
    ask = thief._asks
    inner = Ref(first)
    nodes = [Node(next(thief._ids), "aten::add.Tensor", [inner, 0.0])]
    thief.send(m.Run(nodes))
    for command in (
        m.Get(next(ask), inner),
        m.Get(next(ask), Ref(nodes[0].id)),
        m.Request(next(ask), inner, "A study."),
        m.Take(next(ask), "00" * 16, ["w"], [inner]),
    ):
        with pytest.raises(GridError, match="inside of a plan"):
            thief.ask(command)
    assert np.array_equal(thief.get(Ref(first + 1)), np.tile(np.arange(float(COLUMNS)), (ROWS, 1)))


def test_a_call_that_lies_about_its_plan_is_refused(ward: Ward) -> None:
    client = ward.client("stranger")
    draft = Draft()
    graph = draft.graph(draft.op("mul.Tensor", X, 2.0), ROWS, COLUMNS)
    digest = keep(client, graph)
    x = client.constant(np.ones((ROWS, COLUMNS)))
    small = client.constant(np.ones(4))
    lies: list[tuple[list[Any], dict[str, Any]]] = [
        ([digest, 2, [x]], {}),
        ([digest, 0, [x]], {}),
        ([digest, -1, [x]], {}),
        ([digest, 2**40, [x]], {}),
        ([digest, 1, []], {}),
        ([digest, 1, [x, x]], {}),
        ([digest, 1, [1.0]], {}),
        ([digest, 1, x], {}),
        ([digest, 1, [x]], {"seed": 1}),
        ([digest, 1, [x]], {"line": "x"}),
        ([digest.upper(), 1, [x]], {}),
        (["0" * 64, 1, [x]], {}),
        (["\0" * 64, 1, [x]], {}),
        ([], {}),
        ([digest, 1, [small]], {"alpha": 1}),
    ]
    for args, kwargs in lies:
        first, _ = next(client._ids), next(client._ids)  # what a call claims is taken, even of a lie
        client.send(m.Run([Node(first, PLAN, args, kwargs)]))
        found = tried(client, Ref(first))
        assert isinstance(found, GridError) and found.code in ("invalid_input", "not_found"), args
    assert np.array_equal(client.get(Ref(called(client, digest, 1, x))), np.full((ROWS, COLUMNS), 2.0))


def test_a_plan_with_a_forbidden_operation_is_refused_when_it_is_sent(ward: Ward) -> None:
    client = ward.client("stranger")
    for name in ("aten::set_.source_Tensor", "os::system", "grid::asset", "grid::plan"):
        graph = PlanGraph(
            next(_names), "", [Input("x", "float64", [1])], [Node(1, name, [Ref(0)])], [Ref(1)],
            [Result(0, "float64", [1])], {},
        )  # fmt: skip
        with pytest.raises(GridError) as refused:
            keep(client, graph)
        assert refused.value.code == "operation_not_allowed", name


def test_calls_cannot_pass_the_cap_of_a_program(ward: Ward) -> None:
    """A thousand bytes on the wire that stand for millions of operations."""
    draft = Draft()
    value = X
    for _ in range(16_000):
        value = draft.op("neg", value)
    graph = draft.graph(value, ROWS, COLUMNS)
    with RawClient(ward.url, ward.tokens["stranger"]) as client:
        digest = keep(client, graph)
        x = client.constant(np.ones((ROWS, COLUMNS)))
        first = 10
        nodes = [Node(first + graph.size * number, PLAN, [digest, graph.size, [x]]) for number in range(4_000)]
        client.send(m.Run(nodes))
        with pytest.raises(GridError) as refused:
            client.get(Ref(nodes[-1].id + graph.size - 1))
        assert refused.value.code == "limit_exceeded"


def test_a_plan_of_a_wrong_shape_fails_by_name_and_the_session_goes_on(ward: Ward) -> None:
    client = ward.client("stranger")
    draft = Draft()
    graph = draft.graph(draft.op("mm", X, X), ROWS, ROWS)
    found = tried(client, run(client, graph, client.constant(np.ones((ROWS, COLUMNS)))))
    assert isinstance(found, GridError) and found.code == "shape"
    assert client.get(client.constant(np.array(struct.unpack("<d", bytes(8))))).tolist() == [0.0]
