"""Private answers on a live node: what they say, what they cost, and what is refused before anything is charged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import gridclient as grid
from gridclient.datasets import Dataset
from gridclient.node import Node
from tests.factories.crew import fresh, refused

WHY = "A question."
PEOPLE = 2000
_random = np.random.default_rng(20261128)
SMOKES = ["never", "until now", "once did"]
FRAME = pd.DataFrame(
    {
        "weight": np.clip(_random.normal(3.4, 0.5, PEOPLE), 0.5, 6.0),
        "height": np.clip(_random.normal(163.0, 6.0, PEOPLE), 130.0, 200.0),
        "smokes": pd.Categorical.from_codes(_random.integers(0, 3, PEOPLE), SMOKES),
    }
)
FRAME["taller"] = FRAME["height"] + 10.0 * FRAME["weight"]
BOUNDS = {"weight": (0.5, 6.0), "height": (130.0, 200.0), "taller": (135.0, 260.0)}


def publish(owner: Node, frame: pd.DataFrame = FRAME, **declared: Any) -> Dataset:
    # People of their own: the budget of the default domain is everybody's.
    domain = owner.open_domain(fresh("people"), statement="Made up for one test.", entities=100_000).name
    given: dict[str, Any] = {"name": fresh("private"), "bounds": BOUNDS, "categories": {"smokes": SMOKES}, **declared}
    given.setdefault("domain", domain)
    return owner.dataset(grid.private_table(frame, **given).send(owner).dataset)


@pytest.fixture
def births(owner: Node) -> Dataset:
    return publish(owner)


@pytest.fixture
def table(births: Dataset, scientist: Node) -> Any:
    births.grant(scientist.user, "release", epsilon=1.5, reason=WHY)
    return scientist.dataset(births.name).pointer()


def test_a_sum_is_near_the_truth_and_says_what_it_cost(table: Any, births: Dataset, scientist: Node) -> None:
    before = scientist.budget(births.name)
    total = table["weight"].sum()
    estimate = total.estimate(epsilon=0.5)
    assert scientist.budget(births.name).remaining == before.remaining, "an estimate is free"
    answer = total.get(epsilon=0.5)
    receipt = answer.receipt
    assert abs(float(answer) - FRAME["weight"].sum()) < 6 * receipt.sigma
    assert (receipt.cost, receipt.sigma, receipt.within_95) == (estimate.cost, estimate.sigma, estimate.within_95)
    assert receipt.within_95 == pytest.approx(1.96 * receipt.sigma, rel=1e-4)
    after = scientist.budget(births.name)
    assert after.remaining == pytest.approx(before.remaining - receipt.cost)
    assert receipt.remaining == pytest.approx(after.remaining)
    assert 0 < receipt.cost < 0.5, "half of the allowance of an epsilon is not spent by an answer at that epsilon"


def test_within_gives_the_noise_that_was_asked_for(table: Any) -> None:
    answer = table["weight"].sum().get(within=100.0)
    assert answer.receipt.within_95 == pytest.approx(100.0, rel=1e-6)
    assert abs(float(answer) - FRAME["weight"].sum()) < 300.0


def test_the_same_question_again_is_the_same_answer_and_costs_nothing(table: Any) -> None:
    first = table["height"].mean().get(epsilon=0.3)
    again = table["height"].mean().get(epsilon=0.3)
    assert torch.equal(first, again)
    assert (first.receipt.stored, again.receipt.stored, again.receipt.cost) == (False, True, 0.0)
    assert again.receipt.id == first.receipt.id
    other = table["height"].mean().get(epsilon=0.31)
    assert not torch.equal(first, other)


def test_the_map_after_a_sum_is_applied_to_the_noisy_one(table: Any) -> None:
    both = torch.stack([table["weight"].sum() / PEOPLE, table["height"].sum() / PEOPLE]) * 2 + 1
    answer = both.get(epsilon=0.5)
    truth = torch.tensor([FRAME["weight"].mean(), FRAME["height"].mean()]) * 2 + 1
    sigmas = torch.tensor(answer.receipt.sigmas)
    assert torch.all((answer - truth).abs() < 6 * sigmas)
    assert sigmas[1] > sigmas[0], "each column has noise in proportion to its own range"


def test_five_rows_are_refused_before_anything_is_charged(owner: Node, scientist: Node) -> None:
    dataset = publish(owner, FRAME.head(5))
    dataset.grant(scientist.user, "release", epsilon=1.0, reason=WHY)
    before = scientist.budget(dataset.name).remaining
    mean = scientist.dataset(dataset.name).pointer()["weight"].mean()
    with pytest.raises(grid.TooNoisyError, match="nothing was charged") as caught:
        mean.get(epsilon=0.5)
    assert caught.value.estimate["of_range"] > 1
    assert caught.value.estimate["within_95"] == pytest.approx(mean.estimate(epsilon=0.5).within_95)
    assert scientist.budget(dataset.name).remaining == before


def test_without_the_right_it_is_refused_and_can_be_asked_for(births: Dataset, scientist: Node) -> None:
    total = scientist.dataset(births.name).pointer()["weight"].sum()
    with pytest.raises(grid.GetNotPermittedError, match="'release' grant") as caught:
        total.get(epsilon=0.1)
    assert caught.value.request(reason=WHY).state == "submitted"
    with pytest.raises(grid.GetNotPermittedError):
        total.estimate(epsilon=0.1)
    refused(total.get)


def test_an_allowance_that_is_used_up_gives_nothing_more(births: Dataset, scientist: Node) -> None:
    births.grant(scientist.user, "release", epsilon=0.2, reason=WHY)
    table = scientist.dataset(births.name).pointer()
    spent = 0

    def spend_all() -> None:
        nonlocal spent
        for spent in range(60):
            (table["weight"] + spent).sum().get(epsilon=0.2)

    with pytest.raises(grid.BudgetExhaustedError) as caught:
        spend_all()
    left = scientist.budget(births.name).remaining
    assert caught.value.remaining == pytest.approx(left)
    assert left >= 0
    assert spent >= 1
    with pytest.raises(grid.LimitExceededError, match=r"epsilon=0\.2"):
        table["weight"].sum().get(epsilon=0.3)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, "0.5", True])
def test_an_epsilon_that_is_none_is_named(table: Any, births: Dataset, scientist: Node, wrong: Any) -> None:
    before = scientist.budget(births.name).remaining
    for name in ("epsilon", "within"):
        with pytest.raises(grid.InvalidInputError, match=name):
            table["weight"].sum().get(**{name: wrong})
    with pytest.raises(grid.InvalidInputError, match="not both"):
        table["weight"].sum().get(epsilon=0.1, within=10.0)
    assert scientist.budget(births.name).remaining == before


def test_what_is_no_sum_over_people_or_has_no_bound_is_named(table: Any, scientist: Node, births: Dataset) -> None:
    before = scientist.budget(births.name).remaining
    weight = table["weight"]
    for value in (weight, weight[3], weight * 2, weight.max(), weight.sum() * weight.sum(), weight.sum().relu()):
        with pytest.raises(grid.GridError) as caught:
            value.get(epsilon=0.5)
        assert isinstance(caught.value, grid.InvalidInputError | grid.GetNotPermittedError)
    with pytest.raises(grid.UnboundedError, match="clamp"):
        (1 / (weight - 1)).sum().get(epsilon=0.5)
    assert float((1 / (weight - 1)).clamp(-1, 1).sum().get(epsilon=0.5)) == pytest.approx(0, abs=PEOPLE + 200)
    assert scientist.budget(births.name).remaining < before


def test_columns_beyond_the_grant_are_not_released(births: Dataset, scientist: Node) -> None:
    births.grant(scientist.user, "release", epsilon=1.0, columns=["weight"], reason=WHY)
    table = scientist.dataset(births.name).pointer()
    table["weight"].sum().get(epsilon=0.1)
    with pytest.raises(grid.GetNotPermittedError):
        (table["weight"] + table["height"]).sum().get(epsilon=0.1)


def test_quantiles_come_with_an_interval(table: Any) -> None:
    answer: Any = table["weight"].dp.quantile([0.25, 0.5, 0.75]).get(epsilon=0.5)
    truth = torch.tensor(FRAME["weight"].quantile([0.25, 0.5, 0.75]).to_list())
    low, high = answer.interval
    assert torch.all((low <= answer) & (answer <= high))
    assert torch.all((answer - truth).abs() < 0.5)
    assert answer.receipt.epsilon == 0.5


def test_group_means_counts_and_variances_are_near_the_truth(table: Any) -> None:
    groups = FRAME.groupby("smokes", observed=False)["weight"]
    near(table.group_by("smokes").mean("weight").get(epsilon=0.5), groups.mean())
    near(table.group_by("smokes").sum("weight").get(epsilon=0.3), groups.sum())
    near(table.group_by("smokes").count().get(epsilon=0.3), groups.count())
    near(table["smokes"].dp.counts().get(epsilon=0.3), groups.count())
    near(table["weight"].dp.var().get(epsilon=0.3), FRAME["weight"].var(ddof=0))
    near(table["weight"].dp.mean().get(epsilon=0.3), FRAME["weight"].mean())


def test_histograms_and_covariances_are_near_the_truth(table: Any) -> None:
    edges = [0.5, 3.0, 3.5, 6.0]
    near(table["weight"].dp.histogram(edges).get(epsilon=0.5), np.histogram(FRAME["weight"], edges)[0])
    covariance = table.dp.covariance(["weight", "height"]).get(epsilon=0.5)
    near(covariance, np.cov(FRAME["weight"], FRAME["height"], ddof=0))


def test_a_regression_finds_the_slope(owner: Node, scientist: Node) -> None:
    dataset = publish(owner, pd.concat([FRAME] * 10))
    dataset.grant(scientist.user, "release", epsilon=1.0, reason=WHY)
    table: Any = scientist.dataset(dataset.name).pointer()
    fitted = table.dp.regression("taller", ["weight", "height"], ridge=1.0).get(epsilon=1.0)
    assert fitted.shape == (3,)
    assert float(fitted[2]) == pytest.approx(1.0, abs=0.5)


def near(answer: Any, truth: Any) -> None:
    """Within three half-widths: more is seen once in a hundred million."""
    exact = torch.tensor(np.asarray(truth).tolist(), dtype=torch.float64)
    low, high = answer.interval
    assert answer.shape == exact.shape
    assert torch.all(low < high)
    assert torch.all((answer - exact).abs() <= 3 * (high - low) / 2)


def test_a_certificate_says_what_is_promised(table: Any, scientist: Node, births: Dataset) -> None:
    answer = table["weight"].sum().get(epsilon=0.5)
    certificate = scientist.certificate(answer.receipt.id)
    assert certificate["epsilon"] == pytest.approx(0.5)
    assert certificate["unit"] == "entity"
    assert certificate["mechanism"] == "gaussian"
    assert len(certificate["grids"]) == 1
    assert certificate["disclosures_outside_the_ledger"] == 0
    assert certificate["data"] == [{"dataset": births.name, "version": 1}]
    assert certificate["position"] == answer.receipt.position


def test_another_domain_has_a_budget_of_its_own_and_the_default_one_is_shared(owner: Node, scientist: Node) -> None:
    first, second = publish(owner), publish(owner)
    for dataset in (first, second):
        dataset.grant(scientist.user, "release", epsilon=1.0, reason=WHY)
    before = scientist.budget(second.name).left
    scientist.dataset(first.name).pointer()["weight"].sum().get(epsilon=0.5)
    assert scientist.budget(second.name).left == before
    shared = publish(owner, domain=scientist.budget(first.name).domain)
    shared.grant(scientist.user, "release", epsilon=1.0, reason=WHY)
    assert scientist.budget(shared.name).left == scientist.budget(first.name).left < before
    with pytest.raises(grid.InvalidInputError, match="open_domain"):
        publish(owner, domain="nobody")
    assert {"default", scientist.budget(first.name).domain} <= {domain.name for domain in owner.domains()}
