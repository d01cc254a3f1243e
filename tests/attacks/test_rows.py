"""Attack 9: one person's row, or aggregates from which it follows, by any program whatever.

What an owner would lose: a row, to someone who may only compute, or who may only take the sums that the grant named.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from gridclient.wire.errors import GetNotPermittedError, GridError
from tests.attacks.conftest import Private
from tests.attacks.programs import TRICKS, Target, draw
from tests.attacks.score import check_nothing_recovered, numbers, recovered
from tests.attacks.ward import Ward, tried

VARIANTS = 400
DATASETS = ["births", "square"]


@pytest.fixture(params=DATASETS)
def private(request: pytest.FixtureRequest) -> Private:
    found: Private = request.getfixturevalue(request.param)
    return found


def attacked(ward: Ward, person: str, private: Private, seed: int) -> tuple[list[Any], list[tuple[str, np.ndarray]]]:
    """Everything that came back, and the answers among it by trick."""
    client, source = ward.client(person), random.Random(seed)
    x = client.asset(private.dataset)
    shape = (private.values.shape[0], private.values.shape[1])
    seen: list[Any] = []
    answers = []
    for _ in range(VARIANTS):
        name, value = draw(client, x, shape, source)
        got = tried(client, value)
        seen.append(got)
        if isinstance(got, np.ndarray):
            answers.append((name, got))
    return seen, answers


def closed_set(values: np.ndarray) -> list[float]:
    """Every number that an aggregate grant allows."""
    moments = [values.sum(0), values.mean(0), values.var(0, ddof=1), (values.T @ values).reshape(-1)]
    return [float(len(values)), *np.concatenate(moments).tolist()]


def test_programs_give_someone_who_may_only_compute_nothing(ward: Ward, private: Private) -> None:
    seen, answers = attacked(ward, "scientist", private, seed=11)
    check_nothing_recovered(private.values, seen)
    assert answers == []


def test_programs_give_an_aggregate_grant_the_closed_set_and_nothing_else(ward: Ward, private: Private) -> None:
    seen, answers = attacked(ward, "analyst", private, seed=12)
    check_nothing_recovered(private.values, seen)
    allowed = np.array(closed_set(private.values))
    for name, answer in answers:
        for number in numbers(answer):
            assert np.isclose(allowed, number, rtol=1e-9).any(), f"{name} gave {number}, which no grant names"


@pytest.mark.parametrize("trick", TRICKS)
def test_each_trick_alone_gives_no_row(ward: Ward, births: Private, trick: str) -> None:
    """The tricks themselves, without a disguise that might spoil them: none is forgotten by the drawing of lots."""
    n, d = births.values.shape
    for person in ("scientist", "analyst"):
        client = ward.client(person)
        x = client.asset(births.dataset)
        seen = []
        for at in range(0, n, 5):
            target = Target(client, x, n, d, at, at % d, random.Random(at))
            seen.append(tried(client, TRICKS[trick](target)))
        assert recovered(births.values, seen) == 0
        for got in seen:
            if isinstance(got, np.ndarray):
                assert person == "analyst"
                allowed = np.array(closed_set(births.values))
                assert all(np.isclose(allowed, number, rtol=1e-9).any() for number in numbers(got)), trick


def test_the_tricks_do_work_where_they_may(ward: Ward, births: Private) -> None:
    """The owner gets rows by these programs: a score of 0 for the others means that they were refused."""
    client, source = ward.client("owner"), random.Random(13)
    x = client.asset(births.dataset)
    answered = []
    for _ in range(150):
        got = tried(client, draw(client, x, (24, 3), source)[1])
        assert not isinstance(got, GetNotPermittedError)
        if not isinstance(got, GridError):
            answered.append(got)
    assert len(answered) > 100
    assert recovered(births.values, answered) == 1


def test_complements_of_two_questions_do_not_meet(ward: Ward, births: Private) -> None:
    """Differencing: all minus all but one, over columns, versions of the question and dtypes of the answer."""
    client = ward.client("analyst")
    x = client.asset(births.dataset)
    n, d = births.values.shape
    seen: list[Any] = []
    for column in range(d):
        for at in range(n):
            target = Target(client, x, n, d, at, column, random.Random(at))
            for trick in ("everybody but one", "one twice", "mean of everybody but one"):
                seen.append(tried(client, TRICKS[trick](target)))
        seen.append(
            tried(
                client,
                client.node("aten::sum.dim_IntList", client.node("aten::select.int", x, 1, column), [0]),
            )
        )
    assert sum(isinstance(got, np.ndarray) for got in seen) == d
    check_nothing_recovered(births.values, seen)
