"""Real births, real noise: the kernel's answers about 1,236 people are as close as they say."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from apps.budgets.accountant import sigma_of
from apps.compute import kernel
from apps.compute.mechanism import mechanism
from demo import births
from gridclient.questions import _Moments
from gridclient.trees import Tree

DRAWS = 100
UNIT = sigma_of(0.5, 1e-6)
LOW, HIGH = births.TABLE_BOUNDS["weight_kg"]
MIDDLE, HALF = (LOW + HIGH) / 2, (HIGH - LOW) / 2


@pytest.fixture(scope="module")
def table() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights in kilogram and codes of the mother's smoking, of all births that name both."""
    frame = births.table()[["weight_kg", "smoke"]].dropna()
    return frame["weight_kg"].to_numpy(np.float64), frame["smoke"].astype("category").cat.codes.to_numpy(np.int64)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[NDArray[np.float64], float], torch.Tensor]:
    """A sum over people with noise at epsilon 0.5: rows [n, k], and the clip of one of them."""
    monkeypatch.setattr(os, "urandom", random.Random(20261128).randbytes)

    def drawn(rows: NDArray[np.float64], clip: float) -> torch.Tensor:
        how = mechanism(clip=clip, sigma=clip * UNIT, size=rows.shape[1], entities=len(rows))
        return torch.from_numpy(kernel.release(np.ascontiguousarray(rows), None, None, how))

    return drawn


def test_the_mean_weight_is_within_2_percent_in_95_of_100_draws(
    table: tuple[NDArray[np.float64], NDArray[np.int64]],
    draw: Callable[[NDArray[np.float64], float], torch.Tensor],
) -> None:
    weights, _ = table
    assert 1_200 < len(weights) <= 1_236
    truth = weights.mean()
    rows = (weights[:, None] - MIDDLE) / HALF
    means = [float(draw(rows, 1.0)[0]) * HALF / len(rows) + MIDDLE for _ in range(DRAWS)]
    assert sum(abs(mean - truth) <= 0.02 * truth for mean in means) >= 95
    assert np.std(means) == pytest.approx(HALF * UNIT / len(rows), rel=0.3)


def test_the_intervals_of_quartiles_hold_the_truth_in_95_of_100_draws(
    table: tuple[NDArray[np.float64], NDArray[np.int64]],
    draw: Callable[[NDArray[np.float64], float], torch.Tensor],
) -> None:
    weights, _ = table
    values, tree = torch.from_numpy(weights.copy()), Tree(LOW, HIGH, 6)
    levels = [tree._level(values, level) for level in range(1, 7)]
    rows = torch.cat(levels, 1).double().numpy()
    wanted = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    truth = torch.quantile(values, wanted)
    inside, off = torch.zeros(3), torch.zeros(3, dtype=torch.float64)
    for _ in range(DRAWS):
        noisy = draw(rows, sqrt(6))
        answer, low, high = tree.quantiles(noisy, torch.full_like(noisy, sqrt(6) * UNIT), wanted, len(weights))
        inside += (low <= truth) & (truth <= high)
        off += (answer - truth).abs() / DRAWS
    assert torch.all(inside >= 95), inside
    assert torch.all(off < 0.1), off


def test_the_intervals_of_group_means_hold_the_truth_in_95_of_100_draws(
    table: tuple[NDArray[np.float64], NDArray[np.int64]],
    draw: Callable[[NDArray[np.float64], float], torch.Tensor],
) -> None:
    weights, codes = table
    groups = int(codes.max()) + 1
    members = np.eye(groups)[codes]
    rows = np.concatenate([members, members * ((weights - MIDDLE) / HALF)[:, None]], axis=1)
    truth = torch.tensor([weights[codes == group].mean() for group in range(groups)], dtype=torch.float64)
    large = torch.tensor([(codes == group).sum() > 300 for group in range(groups)])
    inside = torch.zeros(groups)
    for _ in range(DRAWS):
        noisy = draw(rows, sqrt(2)).reshape(2, groups).T * torch.tensor([1.0, HALF])
        sigmas = torch.tensor([1.0, HALF], dtype=torch.float64).expand(groups, 2) * sqrt(2) * UNIT
        found = _Moments(None, MIDDLE).mean(noisy, sigmas)
        inside += (found.low <= truth) & (truth <= found.high)
    assert int(large.sum()) >= 2
    # Of a hundred draws at 95 %, fewer than 90 are seen once in 36 runs of all seeds; this seed is fixed.
    assert torch.all(inside[large] >= 90), inside
