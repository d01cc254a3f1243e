"""The checks of exact aggregates: what passes them must leave nobody alone behind a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from apps.compute.checks import DOMINANCE, FEW, FREEDOM, P_PERCENT, Cell, dominated, failed, p_percent, spread
from apps.compute.messages import Thresholds

LEAST = Thresholds(k=10, p=0.1, dominance=0.9, freedom=10)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9)
Contributions = arrays.arrays(np.float64, st.integers(0, 40), elements=NUMBERS)


def cell(values: Any, *, parameters: int = 0) -> Cell:
    """Of as many people as there are values."""
    column = np.asarray(values, dtype=np.float64)
    return Cell(column, (column,), np.arange(len(column)), parameters)


def test_an_ordinary_column_passes_all() -> None:
    values = np.random.default_rng(1).uniform(2.5, 4.5, 85)
    assert failed([cell(values), cell(values, parameters=2)], LEAST) == frozenset()


@pytest.mark.parametrize(
    ("values", "check"),
    [
        (np.linspace(1, 2, 9), FEW),
        ([0.0] * 82 + [1.0] * 3, FEW),  # three with it
        ([1.0] * 85, FEW),  # everybody has it
        ([0.0] * 80 + [3.0, 4.0, 5.0, 6.0, 7.0], FEW),  # a value that many share, and five others
        ([0.0] * 40 + [1.0] * 40 + [2.0] * 5, FEW),  # count, sum and sum of squares give the five
        ([0.0] * 60, P_PERCENT),
        ([1e9, *np.linspace(1, 2, 30)], P_PERCENT),
        ([1e9, 9e8, *np.linspace(1e6, 2e6, 30)], DOMINANCE),
        ([-1e9, 1e9, *np.linspace(1, 2, 30)], DOMINANCE),  # they cancel out in the sum, not here
        ([0.0] * 60, DOMINANCE),
        ([np.nan, *np.linspace(1, 2, 30)], DOMINANCE),
        ([np.inf, *np.linspace(1, 2, 30)], P_PERCENT),
    ],
)
def test_each_check_fails_where_somebody_stands_out(values: Any, check: str) -> None:
    assert check in failed([cell(values)], LEAST)


def test_a_second_moment_of_few_people_has_no_freedom() -> None:
    values = np.linspace(1, 2, 11)
    assert failed([cell(values, parameters=1)], LEAST) == frozenset()
    assert failed([cell(values, parameters=2)], LEAST) == {FREEDOM}


def test_one_failing_cell_fails_the_whole_table() -> None:
    """Its number would follow from the total and the others."""
    good, bad = cell(np.linspace(1, 2, 50)), cell(np.linspace(1, 2, 5))
    assert failed([good, bad, good], LEAST) == {FEW}


def test_people_are_counted_and_not_their_rows() -> None:
    values = np.arange(50.0) + 1
    assert spread(values, np.arange(50), 10)
    assert not spread(np.r_[[0.0, 0.0], values], np.r_[[8, 9], np.arange(50) % 9], 10)


@given(Contributions, st.floats(0.01, 1.0))
def test_the_second_largest_cannot_tell_the_largest_to_within_p(contributions: Any, p: float) -> None:
    """They know the total and their own number; what is left over the largest is their error."""
    sizes = np.sort(np.abs(contributions))[::-1]
    if p_percent(contributions, p):
        error = sizes[2:].sum()
        assert sizes[0] > 0 and error >= p * sizes[0] * (1 - 1e-9) - 1e-6 * sizes[0]


@given(Contributions, st.floats(0.1, 1.0))
def test_two_people_are_never_most_of_a_total(contributions: Any, share: float) -> None:
    sizes = np.sort(np.abs(contributions))[::-1]
    passed = dominated(contributions, share)
    assert passed == bool(len(sizes) > 0 and sizes[:2].sum() < share * sizes.sum()) or np.isclose(
        sizes[:2].sum(), share * sizes.sum()
    )


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 7.5])))
def test_who_knows_the_frequent_value_learns_of_no_few_people(values: Any) -> None:
    if spread(values, np.arange(len(values)), 5):
        _, counts = np.unique(values, return_counts=True)
        assert len(values) - counts.max() >= 5 or counts.max() == 1
        if len(counts) <= 3:
            assert counts.min() >= 5


@given(Contributions, st.randoms(use_true_random=False))
def test_the_order_of_people_and_the_sign_say_nothing(contributions: Any, source: Any) -> None:
    order = list(range(len(contributions)))
    source.shuffle(order)
    found = failed([cell(contributions)], LEAST)
    assert failed([cell(-contributions[order])], LEAST) == found


def test_every_check_is_computed_whatever_the_others_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time would tell which one failed."""
    seen: list[str] = []
    for whole in (p_percent, dominated, spread):

        def noted(*args: Any, check: Any = whole) -> Any:
            seen.append(check.__name__)
            return check(*args)

        monkeypatch.setattr(f"apps.compute.checks.{whole.__name__}", noted)
    computed = set()
    for values in (np.linspace(1, 2, 50), np.linspace(1, 2, 3), np.zeros(50)):
        failed([cell(values), cell(values)], LEAST)
        computed.add(tuple(seen))
        seen.clear()
    assert len(computed) == 1 and len(computed.pop()) == 6
