"""Attack 13: whatever someone without rights sees must not depend on a value: errors, shapes, words, lengths, listings.

Twins are two datasets that differ in one person at their worst: all that is seen of one must be seen of the other.
What an owner would lose: one bit of one person's record a question, which is all of it after enough questions.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from apps.compute.targets import TARGETS
from gridclient.program.graph import Dtype, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridclient.wire.frames import unpack
from gridclient.wire.messages import Column
from tests.attacks.ward import Ward, private_values
from tests.factories.operations import Sample, T, samples
from tests.factories.raw import RawClient

N, D = 12, 12
PER_OPERATION = 6
LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Twins:
    """Two datasets of one schema, and the columns that differ in one person."""

    ordinary: dict[str, Any]
    worst: dict[str, Any]
    dtype: str


FLOATS = [0.0, -0.0, LARGEST, -LARGEST, 5e-324, 1e308, -1e-320, 1.0, 2.0**53, -1.5, 1e-300, 3.4e38]
INTEGERS = [0, -1, 2**63 - 1, -(2**63), 1, 2**62, -(2**62), 63, 64, -64, 7, 2**31]


@pytest.fixture(scope="module", params=["float64", "int64"])
def twins(ward: Ward, request: pytest.FixtureRequest) -> Twins:
    dtype = str(request.param)
    values = np.rint(private_values(N, D, seed=31)) if dtype == "int64" else private_values(N, D, seed=31)
    values = values.astype(dtype)
    worst = values.copy()
    worst[5] = np.array(FLOATS if dtype == "float64" else INTEGERS, dtype)
    columns = [Column(f"c{i}") for i in range(D)]
    kind = dtype[0]
    made = [
        ward.publish(given, f"Attacked twin {kind}{letter}", columns=columns)
        for letter, given in (("a", values), ("b", worst))
    ]
    return Twins(made[0], made[1], dtype)


class Witness:
    """A session that keeps every frame it is sent."""

    def __init__(self, ward: Ward, person: str, dataset: dict[str, Any]) -> None:
        self.client = RawClient(ward.url, ward.tokens[person])
        self.dataset = dataset
        self.frames: list[bytes] = []
        receive = self.client.socket.recv

        def noted(**how: Any) -> Any:
            frame = receive(**how)
            self.frames.append(bytes(frame))
            return frame

        self.client.socket.recv = noted  # type: ignore[method-assign, assignment]

    def told(self) -> list[Any]:
        """The frames so far, without what differs by name only: length and content of each."""
        found = []
        for frame in self.frames:
            body = bytes(unpack(frame).body)
            found.append((len(body), same_names(repr(m.decode_node(body)), self.dataset)))
        return found


def same_names(text: str, dataset: dict[str, Any]) -> str:
    for name in (dataset["id"], dataset["slug"], dataset["name"]):
        text = text.replace(str(name), "X")
    return text


def programs(source: random.Random) -> list[Sample]:
    """Calls of every operation whose operands a square dataset can give."""
    fitting: dict[str, list[Sample]] = {}
    for sample in samples(N, D):
        if all(given.shape in ((N, D), (N,), (N, 1), (1, D), ()) for given in sample.operands):
            fitting.setdefault(sample.op, []).append(sample)
    return [s for found in fitting.values() for s in source.sample(found, min(PER_OPERATION, len(found)))]


def recorded(client: RawClient, x: Ref, sample: Sample, dtype: str) -> list[Ref]:
    """The call with private operands, in the dtype that the dataset has where the operation takes floats."""

    def operand(given: T) -> Ref:
        value = x
        if given.shape in ((N,), ()):
            value = client.node("aten::select.int", value, 1, 3)
        if given.shape == ():
            value = client.node("aten::select.int", value, 0, 5)
        if given.shape == (N, 1):
            value = client.node("aten::slice.Tensor", value, 1, 2, 3)
        if given.shape == (1, D):
            value = client.node("aten::slice.Tensor", value, 0, 5, 6)
        wanted = dtype if given.dtype == "float32" else given.dtype
        return value if wanted == dtype else client.node("aten::_to_copy", value, dtype=Dtype(wanted))

    def value(given: Any) -> Any:
        if isinstance(given, T):
            return operand(given)
        return [value(item) for item in given] if isinstance(given, list) else given

    outputs = TARGETS[sample.op].outputs
    return [client.node(sample.op, *map(value, sample.args), outputs=outputs, **sample.kwargs)]


def test_refusals_are_the_same_to_the_byte(ward: Ward, twins: Twins) -> None:
    told = []
    for dataset in (twins.ordinary, twins.worst):
        witness, source = Witness(ward, "scientist", dataset), random.Random(13)
        with witness.client as client:
            x = client.asset(dataset)
            for sample in programs(source):
                for value in recorded(client, x, sample, twins.dtype):
                    try:
                        client.get(value)
                    except GridError:
                        continue
            for trap in TRAPS:
                try:
                    client.get(trap(client, x))
                except GridError:
                    continue
        told.append(witness.told())
    assert len(told[0]) > 300
    assert told[0] == told[1]


TRAPS = [
    lambda c, x: c.node("aten::div.Tensor", 1.0, c.node("aten::sub.Tensor", x, x)),
    lambda c, x: c.node("aten::index_select", c.constant(np.arange(4.0)), 0, _index(c, x)),
    lambda c, x: c.node("aten::index_select", x, 0, _index(c, x)),
    lambda c, x: c.node("aten::pow.Tensor_Tensor", _cast(c, x, "int64"), _cast(c, x, "int64")),
    lambda c, x: c.node("aten::log", c.node("aten::neg", _cast(c, x, "float64"))),
    lambda c, x: c.node(
        "aten::_to_copy", c.node("aten::mul.Tensor", _cast(c, x, "float64"), 1e300), dtype=Dtype("int8")
    ),
    lambda c, x: c.node("aten::clamp.Tensor", x, x, c.node("aten::neg", x)),
    lambda c, x: c.node("aten::zeros_like", c.node("aten::log", _cast(c, x, "float64"))),
    lambda c, x: c.node("aten::argmax", x),
    lambda c, x: c.node("aten::_softmax", c.node("aten::mul.Tensor", _cast(c, x, "float64"), 1e308), 1, False),
    lambda c, x: c.node("aten::select.int", x, 0, x),
    lambda c, x: c.node("aten::slice.Tensor", x, 0, 0, x),
    lambda c, x: c.node("aten::view", x, [x, -1]),
    lambda c, x: c.node("aten::full_like", x, x),
    lambda c, x: c.node("aten::nonzero", x),
    lambda c, x: c.node("aten::index.Tensor", x, [c.node("aten::gt.Scalar", x, 0)]),
    lambda c, x: c.node("aten::masked_select", x, c.node("aten::gt.Scalar", x, 0)),
    lambda c, x: c.node("aten::repeat_interleave.Tensor", _cast(c, x, "int64")),
]


def _cast(client: RawClient, x: Ref, dtype: str) -> Ref:
    return client.node("aten::_to_copy", x, dtype=Dtype(dtype))


def _index(client: RawClient, x: Ref) -> Ref:
    return _cast(client, client.node("aten::select.int", x, 1, 3), "int64")


def test_nothing_fails_by_value_where_it_may_run(ward: Ward, twins: Twins) -> None:
    """An approved program that fails for one person's value tells the requester that value's presence."""
    outcomes = []
    for dataset in (twins.ordinary, twins.worst):
        client, source = ward.client("owner"), random.Random(14)
        x = client.asset(dataset)
        found: list[Any] = []
        for sample in programs(source):
            for value in recorded(client, x, sample, twins.dtype):
                found.append((sample, outcome(client, value)))
        found += [(number, outcome(client, trap(client, x))) for number, trap in enumerate(TRAPS)]
        outcomes.append(found)
    for ordinary, worst in zip(*outcomes, strict=True):
        assert ordinary == worst


def outcome(client: RawClient, value: Ref) -> Any:
    """Shape and dtype of an answer, or the error's text; not the answer."""
    try:
        got = client.get(value)
    except GridError as error:
        return type(error).__name__, error.message
    return got.shape, str(got.dtype)


def test_requests_look_the_same(ward: Ward, twins: Twins) -> None:
    """Words, shapes, listing and the life of a request, for the requester."""
    told = []
    for dataset in (twins.ordinary, twins.worst):
        witness, source = Witness(ward, "scientist", dataset), random.Random(15)
        rows = []
        with witness.client as client:
            x = client.asset(dataset)
            for sample in source.sample(programs(source), 12):
                value = recorded(client, x, sample, twins.dtype)[0]
                try:
                    request = client.request(value, "A study.")
                except GridError as error:
                    rows.append((error.code, error.message))
                    continue
                rows.append(listed(ward, request, dataset))
            risky = client.node("aten::index_select", x, 0, _index(client, x))
            approved = client.request(risky, "A study.")
            assert ward.call("owner", "POST", f"requests/{approved}/approve/", {"reason": "Fine."})[0] == 200
            rows.append(final(ward, client, approved, dataset))
        told.append(rows)
    assert told[0] == told[1]


def listed(ward: Ward, request: str, dataset: dict[str, Any]) -> Any:
    """A request as its requester reads it, without ids and times."""
    status, body = ward.call("scientist", "GET", f"requests/{request}/")
    assert status == 200
    ward.call("scientist", "POST", f"requests/{request}/withdraw/", {})
    for name in ("id", "created", "updated", "decided_at", "answered_at", "delivered_at", "program_hash"):
        body[name] = len(str(body[name]))
    return same_names(json.dumps(body, sort_keys=True), dataset)


def final(ward: Ward, client: RawClient, request: str, dataset: dict[str, Any]) -> Any:
    """What the requester gets in the end: the shape of the answer, or the failure."""
    end = time.monotonic() + 20
    while True:
        try:
            got = client.fetch(request)
            return listed(ward, request, dataset), got.shape, str(got.dtype)
        except GridError as error:
            if error.code != "request_pending" or time.monotonic() > end:
                return listed(ward, request, dataset), error.code, error.message
        time.sleep(0.05)


def test_metadata_look_the_same(ward: Ward, twins: Twins) -> None:
    """What everybody may read of a dataset, mock data included."""
    shown = []
    for dataset in (twins.ordinary, twins.worst):
        status, body = ward.call("scientist", "GET", f"datasets/{dataset['slug']}/")
        assert status == 200
        body["created"] = len(body["created"])
        body.pop("sequence")
        shown.append(same_names(json.dumps(body, sort_keys=True), dataset))
    assert shown[0] == shown[1]
    mocks = [
        ward.client("scientist").get(ward.client("scientist").asset(d, "mock")) for d in (twins.ordinary, twins.worst)
    ]
    assert mocks[0].shape == mocks[1].shape and mocks[0].dtype == mocks[1].dtype


@pytest.mark.parametrize("op", ["aten::zeros_like", "aten::ones_like", "aten::full_like"])
def test_a_public_answer_needs_no_private_file(ward: Ward, op: str) -> None:
    """Computing a private operand for a public answer takes a time that tells of its values: 62 rounds, or none."""
    dataset = ward.publish(private_values(N, 2, seed=33), f"Attacked timing {op[6:]}")
    ward.values_file(dataset).unlink()
    client = ward.client("scientist")
    one = client.node("aten::select.int", client.asset(dataset), 0, 5)
    rounds = client.node("aten::mul.Tensor", client.node("aten::gt.Scalar", one, 500.0), 2**62)
    long = client.node("aten::pow.Scalar", 3, client.node("aten::expand", rounds, [1000, 2]))
    filled = client.node(op, long, *([7] if op == "aten::full_like" else []))
    assert client.get(filled).shape == (1000, 2)
    assert client.get(client.node("aten::sum", client.node("aten::mul.Tensor", filled, filled))).shape == ()
    with pytest.raises(GridError, match="stays on its node"):
        client.get(one)
    with pytest.raises(GridError, match="could not be computed"):
        ward.client("owner").get(ward.client("owner").asset(dataset))
