"""The place of a largest: chosen by the law that it is charged for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from apps.budgets import accountant
from apps.compute import kernel


def test_the_largest_is_chosen_as_the_exponential_mechanism_would() -> None:
    scores, epsilon, draws = np.array([10, 12, 7, 12]), 1.2, 3000
    weights = np.exp(epsilon * (scores - 12) / (2 * 2))
    wanted = weights / weights.sum()
    drawn = np.bincount([kernel.noisy_argmax(scores, 2, epsilon) for _ in range(draws)], minlength=4) / draws
    assert (np.abs(drawn - wanted) < 6 * np.sqrt(wanted * (1 - wanted) / draws)).all()


def test_the_largest_is_found_where_it_stands_out_whatever_its_size() -> None:
    scores = np.array([-(2**63), 2**62, 2**63 - 1], dtype=np.int64)
    assert kernel.noisy_argmax(scores, 1, 0.5) == 2
    assert kernel.noisy_argmax(np.array([3], dtype=np.int64), 1, 1e-9) == 0


@pytest.mark.parametrize(
    ("epsilon", "sensitivity"), [*itertools.product([0.01, 0.1, 0.5, 1.0, 3.0], [1, 2, 3, 7, 1000])]
)
def test_the_largest_is_charged_no_less_than_an_independent_proof_asks(epsilon: float, sensitivity: int) -> None:
    from opendp import domains, measurements, measures, metrics

    space = domains.vector_domain(domains.atom_domain(T="i64")), metrics.linf_distance(T="i64")
    scale = kernel.argmax_scale(sensitivity, epsilon)
    proven = measurements.make_noisy_max(*space, measures.zero_concentrated_divergence(), scale=scale)
    assert proven.map(sensitivity) == pytest.approx(epsilon**2 / 8, rel=1e-14)
    for order in (2.0, 12.25):  # a divergence of rho in zCDP is order * rho at an order
        assert accountant.argmax(order, epsilon) / accountant.UNIT >= min(order * proven.map(sensitivity), epsilon)


@pytest.mark.parametrize(
    ("scores", "sensitivity", "epsilon"),
    [([], 1, 1.0), ([1, 2], 0, 1.0), ([1, 2], 1, 0.0), ([1, 2], 1, math.nan), ([1, 2], 1, math.inf), ([1.0], 1, 1.0)],
)
def test_a_choice_without_meaning_is_refused(scores: list[Any], sensitivity: int, epsilon: float) -> None:
    dtype = np.float64 if scores and isinstance(scores[0], float) else np.int64
    with pytest.raises(ValueError):
        kernel.noisy_argmax(np.array(scores, dtype=dtype), sensitivity, epsilon)
