"""Attacks 10 and 26: exact aggregates put together until somebody's value follows from them.

What an owner would lose: one person's value, to someone whose grant was for numbers about all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gridclient.program.graph import Ref
from gridclient.wire.errors import GetNotPermittedError
from gridclient.wire.messages import Column
from tests.attacks.score import check_nothing_recovered, numbers
from tests.attacks.ward import HIGH, LOW, Ward, private_values, tried
from tests.factories.raw import RawClient

N, D = 40, 2
VARIANTS = 4
DECLARED = [Column(f"c{i}", low=LOW, high=HIGH) for i in range(D)]
Ask = Callable[[RawClient, Ref], Ref]
TOTALS: dict[str, Ask] = {
    "sum": lambda c, x: c.node("aten::sum.dim_IntList", x, [0]),
    "mean": lambda c, x: c.node("aten::mean.dim", x, [0]),
    "variance": lambda c, x: c.node("aten::var.correction", x, [0], correction=1),
    "gram": lambda c, x: c.node("aten::mm", c.node("aten::t", x), x),
    "aggregate": lambda c, x: c.node("grid::aggregate", x, "sum"),
}


def totals(ward: Ward, dataset: dict[str, Any]) -> list[Any]:
    """All that the analyst gets of a dataset, or the refusals."""
    client = ward.client("analyst")
    x = client.asset(dataset)
    return [tried(client, ask(client, x)) for ask in TOTALS.values()]


def column_sums(answers: list[Any]) -> Any:
    """The sums of the columns, however they were got; None where they were not."""
    sums, _, _, _, again = answers
    return next((found for found in (sums, again) if isinstance(found, np.ndarray)), None)


def published(ward: Ward, values: np.ndarray, name: str, **spec: Any) -> dict[str, Any]:
    dataset = ward.publish(values, name, **spec)
    if "replace" not in spec:
        ward.grant(dataset, "analyst", "aggregate")
    return dataset


def recovered(parts: list[Any], whole: np.ndarray) -> list[Any]:
    """Differences of all column sums that came back."""
    known = [found for found in map(column_sums, parts) if found is not None]
    return [one - other for one in known for other in known] + [whole[:0]]


@pytest.mark.parametrize("variant", range(VARIANTS))
def test_last_months_version_minus_this_one_is_nobody(ward: Ward, variant: int) -> None:
    values, source = private_values(N, D, seed=100 + variant), random.Random(variant)
    gone = source.sample(range(N), source.randint(1, 9))
    rest = np.delete(values, gone, axis=0)
    rest = source.choice([rest, rest[::-1].copy(), rest])
    dataset = published(ward, values, f"Attacked month {variant}")
    answers = [totals(ward, dataset)]
    dataset = published(ward, rest, "", replace=dataset["slug"])
    answers.append(totals(ward, dataset))
    assert column_sums(answers[0]) is not None, "the attack needs a first answer"
    check_nothing_recovered(values[gone], recovered(answers, values))
    assert column_sums(answers[1]) is None


@pytest.mark.parametrize("variant", range(VARIANTS))
def test_an_overlapping_dataset_minus_the_whole_is_nobody(ward: Ward, variant: int) -> None:
    values, source = private_values(N, D, seed=200 + variant), random.Random(variant)
    person = source.randrange(N)
    rest = np.delete(values, person, axis=0)
    source.shuffle(order := list(range(N - 1)))
    keep = source.choice([[0, 1], [0], [1]])
    names = [f"other{place}" for place in keep]
    answers = [totals(ward, published(ward, values, f"Attacked whole {variant}"))]
    columns = [Column(name, low=LOW, high=HIGH) for name in names]
    part = published(ward, rest[order][:, keep], f"Attacked part {variant}", columns=columns)
    answers.append(totals(ward, part))
    assert column_sums(answers[0]) is not None
    assert column_sums(answers[1]) is None
    check_nothing_recovered(values[person], recovered(answers[:1], values))


def test_the_same_data_again_give_the_same_answers(ward: Ward) -> None:
    values = private_values(N, D, seed=300)
    first = totals(ward, published(ward, values, "Attacked copy"))
    second = totals(ward, published(ward, values, "Attacked copy again"))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("ones", [0, 1, 3, 9, N - 9, N - 1, N])
def test_the_mean_of_a_vector_of_zeros_and_ones_names_nobody(ward: Ward, ones: int) -> None:
    values = np.zeros((N, 1))
    values[random.Random(ones).sample(range(N), ones)] = 1
    found = totals(ward, published(ward, values, f"Attacked flags {ones}", columns=[Column("c0", low=0, high=1)]))
    assert all(isinstance(each, GetNotPermittedError) for each in found)


@pytest.mark.parametrize("alone", [1, 4, 9])
def test_a_repeated_value_does_not_leave_the_others_alone(ward: Ward, alone: int) -> None:
    """Who knows the value that all have reads the others from the sum."""
    values = np.full((N, 1), 500.0)
    values[:alone] = private_values(alone, 1, seed=alone)
    found = totals(ward, published(ward, values, f"Attacked repeated {alone}", columns=DECLARED[:1]))
    assert all(isinstance(each, GetNotPermittedError) for each in found)
    check_nothing_recovered(values[:alone], found)


def test_sums_of_distances_give_no_row(ward: Ward) -> None:
    """301 sums of |x - t| passed every pairwise check of the predecessor, and gave all 85 values."""
    values = private_values(N, 1, seed=400)
    dataset = published(ward, values, "Attacked distances", columns=DECLARED[:1])
    client = ward.client("analyst")
    x = client.asset(dataset)
    points = np.linspace(LOW, HIGH, 60)

    def distance(t: float) -> Ref:
        return client.node(
            "aten::sum.dim_IntList", client.node("aten::abs", client.node("aten::sub.Tensor", x, t)), [0]
        )

    found = [tried(client, distance(float(t))) for t in points]
    assert all(isinstance(each, GetNotPermittedError) for each in found)
    powers = [
        client.node("aten::sum.dim_IntList", client.node("aten::pow.Tensor_Scalar", x, p), [0]) for p in (2, 3, 4)
    ]
    weighted = client.node("aten::mul.Tensor", x, client.constant(np.linspace(1, 2, N)[:, None]))
    found += [tried(client, each) for each in (*powers, client.node("aten::sum.dim_IntList", weighted, [0]))]
    assert all(isinstance(each, GetNotPermittedError) for each in found)
    check_nothing_recovered(values, found)


def grouped(client: RawClient, x: Ref, kind: str, by: Ref) -> Ref:
    return client.node("grid::aggregate", x, kind, by=by)


@pytest.mark.parametrize("few", [1, 5, 9])
def test_the_complement_of_a_small_group_is_not_told_either(ward: Ward, few: int) -> None:
    """One cell fails, and the total minus the others would give it: the whole table fails."""
    values = np.c_[private_values(N, 1, seed=500 + few), np.r_[np.ones(few), np.zeros(N - few)]]
    columns = [DECLARED[0], Column("group", low=0, high=1, edges=[0.0, 0.5, 1.0])]
    dataset = published(ward, values, f"Attacked groups {few}", columns=columns)
    client = ward.client("analyst")
    x = client.asset(dataset)
    value, group = client.node("aten::select.int", x, 1, 0), client.node("aten::select.int", x, 1, 1)
    asks = [
        client.node("grid::aggregate", group, "histogram"),
        client.node("aten::sum", group),
        client.node("aten::dot", value, group),
        client.node("grid::aggregate", value, "product", other=group),
    ]
    found = [tried(client, each) for each in asks]
    assert all(isinstance(each, GetNotPermittedError) for each in found)
    whole = tried(client, client.node("aten::sum", value))
    check_nothing_recovered(values[:few, 0], [*found, whole])


class Worst:
    """One entity at its worst, a different check each time."""

    few = np.r_[np.full(N - 3, 500.0), [200.0, 300.0, 400.0]]
    percent = np.r_[[HIGH], np.full(N - 1, 0.0)]
    dominant = np.r_[[HIGH, HIGH - 1], np.linspace(0.1, 1.0, N - 2)]


def test_which_check_failed_is_not_seen_from_outside(ward: Ward) -> None:
    """T3: the same length, text, details and kind of answer; the owner's log names the check."""
    told, logged = [], []
    for name in ("few", "percent", "dominant"):
        values = getattr(Worst, name)[:, None]
        dataset = published(ward, values, f"Attacked worst {name}", columns=[Column("c0", low=0, high=HIGH)])
        client = ward.client("analyst")
        error = tried(client, TOTALS["sum"](client, client.asset(dataset)))
        assert isinstance(error, GetNotPermittedError)
        told.append((error.code, error.message, repr(error.details)))
        status, body = ward.call("auditor", "GET", "audit/?limit=1")
        assert status == 200
        logged.append(body["results"][0])
    assert len(set(told)) == 1
    assert not any(list(numbers(each["payload"].get("values", []))) for each in logged)
    assert [each["verb"] for each in logged] == ["aggregate_withheld"] * 3
    assert len({tuple(each["payload"]["checks"]) for each in logged}) == 3
