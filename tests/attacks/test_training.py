"""Attacks 14, 17 and 23 on the right to train: a model that is none, a loss that is none, and what lies between.

What an owner would lose: rows, to someone whom they trusted with models. By its definition the right bounds nothing
for whom trains on purpose; what it does not name must stay.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gridclient.program.graph import Dtype, Ref
from gridclient.wire.errors import GetNotPermittedError, GridError, InvalidInputError
from tests.attacks.conftest import Private
from tests.attacks.score import check_nothing_recovered
from tests.attacks.ward import Ward, private_values, tried
from tests.factories.raw import RawClient

N, D = 18, 3
VARIANTS = 40


@pytest.fixture(scope="session")
def studied(ward: Ward) -> Private:
    """18 people, 3 columns; the analyst may train on it."""
    values = private_values(N, D, seed=14)
    private = Private(ward.publish(values, "Attacked study"), values)
    ward.grant(private.dataset, "analyst", "train")
    return private


@dataclass
class Model:
    """A linear model in a hostile session: `weight` [3, 1] and `bias` [1], trained for one step on x [n, 3]."""

    client: RawClient
    x: Ref
    module: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        self.weight = self.sent("weight", np.full((D, 1), 0.01))
        self.bias = self.sent("bias", np.zeros(1))
        self.scores = self.op("add.Tensor", self.op("mm", self.x, self.weight), self.bias)
        self.squares = self.op("pow.Tensor_Scalar", self.scores, 2)
        self.loss = self.op("mean", self.squares)
        self.root = self.op("ones_like", self.loss)
        slope = self.op("mul.Tensor", self.op("expand", self.root, [N, 1]), self.op("mul.Tensor", self.scores, 2 / N))
        self.by_weight = self.op("mm", self.op("t", self.x), slope)
        self.by_bias = self.op("sum.dim_IntList", slope, [0])
        self.trained = {
            "weight": self.less(self.weight, self.by_weight),
            "bias": self.less(self.bias, self.by_bias),
        }

    def op(self, name: str, *args: Any, **kwargs: Any) -> Ref:
        return self.client.node(f"aten::{name}", *args, **kwargs)

    def sent(self, name: str, values: np.ndarray, **trainable: bool) -> Ref:
        return self.client.node("grid::parameter", self.client.constant(values), self.module, name, **trainable)

    def less(self, value: Ref, slope: Ref) -> Ref:
        return self.op("sub.Tensor", value, self.op("mul.Tensor", slope, 1e-7))

    def column(self, person: int) -> Ref:
        """[3, 1]: a person's row, as the weight lies."""
        return self.op("t", self.op("slice.Tensor", self.x, 0, person, person + 1))


def model(ward: Ward, person: str, private: Private) -> Model:
    client = ward.client(person)
    return Model(client, client.asset(private.dataset))


def taken(found: Model, values: dict[str, Ref], module: str = "") -> Any:
    try:
        return found.client.take(module or found.module, values)
    except GridError as error:
        return error


def test_what_training_makes_comes_to_who_may_train_and_to_nobody_else(ward: Ward, studied: Private) -> None:
    mine = model(ward, "analyst", studied)
    state = mine.client.take(mine.module, mine.trained)
    scores = studied.values @ np.full((D, 1), 0.01)
    gradient = studied.values.T @ (scores * 2 / N)
    np.testing.assert_allclose(state["weight"], 0.01 - 1e-7 * gradient)
    np.testing.assert_allclose(mine.client.get(mine.loss), (scores**2).mean())
    for person in ("scientist", "neighbour", "stranger"):
        other = model(ward, person, studied)
        assert isinstance(taken(other, other.trained), GridError)
        assert isinstance(tried(other.client, other.loss), GridError)


COPIES: dict[str, Callable[[Model, Ref], Ref]] = {
    "the row": lambda m, row: row,
    "the row, beside a gradient": lambda m, row: m.op("add.Tensor", row, m.op("mul.Tensor", m.root, 0.0)),
    "the row, beside the weight": lambda m, row: m.op("add.Tensor", row, m.op("mul.Tensor", m.weight, 0.0)),
    "the row, written over the weight": lambda m, row: m.op(
        "slice_scatter", m.client.constant(np.zeros((D, 1))), row, 0, 0, D
    ),
    "the row, in the shape of the weight": lambda m, row: m.op(
        "add.Tensor", row, m.op("zeros_like", m.trained["weight"])
    ),
    "the row, in the place of ones": lambda m, row: m.op("mul.Tensor", m.op("ones_like", m.trained["weight"]), row),
    "the row of another width": lambda m, row: m.op("_to_copy", m.op("add.Tensor", row, m.trained["weight"]),
                                                    dtype=Dtype("float32")),
    "two rows": lambda m, row: m.op("cat", [m.trained["weight"], row], 1),
    "all rows": lambda m, row: m.op("add.Tensor", m.x, m.op("t", m.trained["weight"])),
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_private_values_is_no_model(ward: Ward, studied: Private, name: str) -> None:
    source, seen = random.Random(name), list[Any]()
    for _ in range(3):
        mine = model(ward, "analyst", studied)
        weight = COPIES[name](mine, mine.column(source.randrange(N)))
        for values in ({**mine.trained, "weight": weight}, {"weight": weight}, {"weight": weight, "bias": mine.bias}):
            got = taken(mine, values)
            assert isinstance(got, GetNotPermittedError) and "A 'train' grant gives what training made" in str(got)
            seen.append(got)
        seen.append(tried(mine.client, weight))
        assert isinstance(seen[-1], GetNotPermittedError)
    check_nothing_recovered(studied.values, seen)


def test_a_state_is_whole_of_one_module_and_under_its_own_names(ward: Ward, studied: Private) -> None:
    mine, other = model(ward, "analyst", studied), model(ward, "analyst", studied)
    weight, bias = mine.trained["weight"], mine.trained["bias"]
    row = mine.column(0)
    for values in (
        {"weight": weight},
        {"bias": bias},
        {**mine.trained, "rows": row},
        {"weight": weight, "rows": row},
        {"weight": row, "bias": bias},
        {"Weight": weight, "bias": bias},
        {"weight": other.trained["weight"], "bias": bias},
        {"weight": weight, "bias": other.trained["bias"]},
    ):
        assert isinstance(taken(mine, values), GetNotPermittedError), values
    for module in (other.module, "00" * 8):
        assert isinstance(taken(mine, mine.trained, module), GetNotPermittedError)
    # One that has nothing but buffers, or whose parameters nobody trained, is no model.
    for trainable in (False, True):
        empty = Model(mine.client, mine.x)
        empty.module = secrets.token_hex(8)
        kept = empty.sent("kept", np.zeros((D, 1)), trainable=trainable)
        assert isinstance(taken(empty, {"kept": empty.op("add.Tensor", kept, row)}), GetNotPermittedError)
    assert set(taken(mine, mine.trained)) == {"weight", "bias"}


def test_a_loss_has_no_axis_is_a_number_and_is_of_a_model(ward: Ward, studied: Private) -> None:
    mine = model(ward, "analyst", studied)
    seen: list[Any] = []
    for value in (
        mine.op("view", mine.loss, [1]),
        mine.op("unsqueeze", mine.loss, 0),
        mine.op("_to_copy", mine.loss, dtype=Dtype("int64")),
        mine.op("gt.Scalar", mine.loss, 0.5),
        mine.op("select.int", mine.op("select.int", mine.x, 0, 3), 0, 1),
        mine.op("mean", mine.op("pow.Tensor_Scalar", mine.x, 2)),
        mine.op("add.Tensor", mine.op("mean", mine.x), mine.op("mul.Tensor", mine.root, 0.0)),
        mine.op("add.Tensor", mine.op("mean", mine.x), mine.op("sum", mine.op("zeros_like", mine.weight))),
        mine.op("mean.dim", mine.squares, [0]),
    ):
        seen.append(tried(mine.client, value))
        assert isinstance(seen[-1], GetNotPermittedError), value
    check_nothing_recovered(studied.values, seen)
    assert mine.client.get(mine.loss).shape == ()


def test_a_loss_that_depends_on_no_parameter_trains_nothing(ward: Ward, studied: Private) -> None:
    mine = model(ward, "analyst", studied)
    for loss in (
        mine.op("mean", mine.x),
        mine.op("view", mine.loss, [1]),
        mine.op("_to_copy", mine.loss, dtype=Dtype("int32")),
        mine.op("mean", Model(mine.client, mine.x).scores),
    ):
        root = mine.op("_to_copy", mine.op("ones_like", loss), dtype=Dtype("float64"))
        step = mine.op("mul.Tensor", mine.column(1), root)
        got = taken(mine, {**mine.trained, "weight": mine.less(mine.weight, step)})
        assert isinstance(got, GetNotPermittedError) and "gradient of a loss" in str(got)


def test_what_lies_between_model_and_loss_stays(ward: Ward, studied: Private) -> None:
    """Random programs from a training step: activations, rows' losses, gradients, the optimiser's state."""
    source, seen = random.Random(14), list[Any]()
    mine = model(ward, "analyst", studied)
    between = [mine.scores, mine.squares, mine.by_weight, mine.by_bias, *mine.trained.values(), mine.x]
    for _ in range(VARIANTS):
        value = source.choice(between)
        for _ in range(source.randrange(3)):
            value = source.choice(
                [
                    lambda v: mine.op("mul.Tensor", v, 0.9),
                    lambda v: mine.op("add.Tensor", v, v),
                    lambda v: mine.op("sqrt", mine.op("mul.Tensor", v, v)),
                    lambda v: mine.op("flip", v, [0]),
                    lambda v: mine.op("slice.Tensor", v, 0, 0, 1),
                    lambda v: mine.op("clone", v),
                    lambda v: mine.op("mul.Tensor", v, mine.loss),
                    lambda v: mine.op("div.Tensor", v, mine.root),
                ]
            )(value)
        seen.append(tried(mine.client, value))
        assert isinstance(seen[-1], GetNotPermittedError)
    check_nothing_recovered(studied.values, seen)


def test_one_dataset_without_the_right_keeps_a_model_of_both(ward: Ward, studied: Private, births: Private) -> None:
    client = ward.client("analyst")
    other = client.node("aten::slice.Tensor", client.asset(births.dataset), 0, 0, N)
    granted = client.asset(studied.dataset)
    for x in (
        client.node("aten::add.Tensor", granted, other),
        client.node("aten::cat", [client.node("aten::slice.Tensor", granted, 0, 0, N - 1),
                                  client.node("aten::slice.Tensor", other, 0, 0, 1)], 0),
        client.node("aten::where.self", client.node("aten::gt.Scalar", other, 500.0), granted, client.constant(0.0)),
        other,
    ):  # fmt: skip
        mine = Model(client, x)
        for got in (taken(mine, mine.trained), tried(client, mine.loss)):
            assert isinstance(got, GetNotPermittedError)
            assert "'train' grant on every dataset" in str(got)


def test_nothing_private_is_marked_as_sent(ward: Ward, studied: Private) -> None:
    mine = model(ward, "analyst", studied)
    for value in (mine.x, mine.column(0), mine.loss, mine.trained["weight"], mine.op("mul.Tensor", mine.x, 0.0)):
        marked = mine.client.node("grid::parameter", value, secrets.token_hex(8), "weight")
        assert isinstance(tried(mine.client, marked), InvalidInputError)
        assert isinstance(taken(mine, {"weight": marked}), InvalidInputError)
    # What is marked is what it was, and stays so.
    assert np.array_equal(mine.client.get(mine.weight), np.full((D, 1), 0.01))


def test_a_reviewer_reads_that_a_model_is_none(ward: Ward, studied: Private) -> None:
    mine = model(ward, "scientist", studied)
    stolen = {**mine.trained, "weight": mine.column(7)}
    asked = mine.client.request_state(mine.module, stolen)
    status, found = ward.call("reviewer", "GET", f"requests/{asked}/")
    assert status == 200 and found["kind"] == "state" and found["names"] == ["weight", "bias"]
    assert "It is not what training made of the module" in found["words"] and "position 7" in found["words"]
    with pytest.raises(InvalidInputError):
        mine.client.request_state(mine.module, {"weight\u202e": mine.trained["weight"]})
