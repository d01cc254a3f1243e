"""What the SDK makes of noisy sums: answers near the truth, and intervals that hold it as often as they say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gridclient.questions import _Moments
from gridclient.trees import Tree

PEOPLE = 1236
ROUNDS = 300
WANTED = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(20261128)
        yield


def weights() -> torch.Tensor:
    return (3.4 + 0.5 * torch.randn(PEOPLE, dtype=torch.float64)).clamp(0.5, 6.0)


def draws(sums: torch.Tensor, sigma: float) -> Iterator[torch.Tensor]:
    return (sums + sigma * torch.randn(sums.shape, dtype=torch.float64) for _ in range(ROUNDS))


def test_without_noise_quantiles_are_right_to_a_leaf() -> None:
    values, tree = weights(), Tree(0.5, 6.0, 6)
    counts = tree.counts(values, counted=False).double()
    answer, low, high = tree.quantiles(counts, torch.full_like(counts, 1e-6), WANTED, PEOPLE)
    truth = torch.quantile(values, WANTED)
    assert torch.all((answer - truth).abs() <= 5.5 / 64)
    assert torch.all((low <= truth) & (truth <= high))


@pytest.mark.parametrize("counted", [False, True])
def test_the_interval_of_a_noisy_quantile_holds_the_truth_in_95_of_100(counted: bool) -> None:
    values, tree = weights(), Tree(0.5, 6.0, 6)
    counts, truth = tree.counts(values, counted=counted).double(), torch.quantile(values, WANTED)
    sigma = (7 if counted else 6) ** 0.5 * 8.06  # epsilon 0.5
    inside = torch.zeros(3)
    for noisy in draws(counts, sigma):
        spread = torch.full_like(noisy, sigma)
        answer, low, high = tree.quantiles(noisy, spread, WANTED, None if counted else PEOPLE)
        inside += (low <= truth) & (truth <= high)
        assert torch.all((low <= answer) & (answer <= high) & (low >= 0.5) & (high <= 6.0))
    assert torch.all(inside >= 0.95 * ROUNDS)


def test_a_consistent_tree_is_closer_than_its_leaves_alone() -> None:
    values, tree = weights(), Tree(0.5, 6.0, 6)
    counts, truth = tree.counts(values, counted=False).double(), torch.quantile(values, WANTED)
    sigma, tree_error, leaf_error = 6**0.5 * 8.06, 0.0, 0.0
    leaves = Tree(0.5, 6.0, 6)
    for noisy in draws(counts, sigma):
        spread = torch.full_like(noisy, sigma)
        tree_error += float((tree.quantiles(noisy, spread, WANTED, PEOPLE)[0] - truth).abs().mean())
        blind = torch.where(torch.arange(len(noisy)) < len(noisy) - 64, 1e9, sigma).double()
        leaf_error += float((leaves.quantiles(noisy, blind, WANTED, PEOPLE)[0] - truth).abs().mean())
    assert tree_error < leaf_error * 0.7


@pytest.mark.parametrize("people", [PEOPLE, None])
def test_intervals_of_means_and_variances_hold_the_truth_in_95_of_100(people: int | None) -> None:
    values, middle = weights(), 3.25
    powers = [values - middle, (values - middle).square()]
    rows = torch.stack(powers if people else [torch.ones_like(values), *powers], 1)
    sums, moments = rows.sum(0), _Moments(people, middle)
    inside = torch.zeros(2)
    for noisy in draws(sums, 12.0):
        sigmas = torch.full_like(noisy, 12.0)
        mean, variance = moments.mean(noisy, sigmas), moments.variance(noisy, sigmas)
        inside[0] += bool(mean.low <= values.mean() <= mean.high)
        inside[1] += bool(variance.low <= values.var(correction=0) <= variance.high)
    assert torch.all(inside >= 0.91 * ROUNDS)
    assert torch.all(inside <= 0.99 * ROUNDS), "an interval that always holds it says less than it could"
