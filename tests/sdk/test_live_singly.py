"""People who are charged each by itself, on a live node: a few who contribute the most end nobody else's answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import gridclient as grid
from gridclient.node import Node
from tests.factories.crew import fresh

LOUD, QUIET = 200, 1_000
WHY = "A question."
FRAME = pd.DataFrame({"person": np.arange(LOUD + QUIET), "visits": np.array([100.0] * LOUD + [51.0] * QUIET)})
EVERYBODY = float(FRAME["visits"].sum())
WITHOUT = EVERYBODY - 50.0 * LOUD
"""Who has nothing left counts as the middle of the declared range."""


def test_past_the_sum_of_worst_cases_small_contributors_still_get_answers(owner: Node, scientist: Node) -> None:
    domain = owner.open_domain(fresh("singly"), statement="Made up for one test.", accounting="individual")
    assert domain.accounting == "individual"
    sent = grid.private_table(
        FRAME, name=fresh("visits"), bounds={"visits": (0.0, 100.0)}, entities="person", domain=domain.name
    ).send(owner)
    dataset = owner.dataset(sent.dataset)
    for _ in range(2):
        dataset.grant(scientist.user, "release", epsilon=2.0, reason=WHY)
    visits = scientist.dataset(dataset.name).pointer()["visits"]
    answers = [(visits * (1 + number / 100)).sum().get(epsilon=1.0) for number in range(5)]
    flags = [answer.receipt.may_exclude for answer in answers]
    assert flags == [False, False, False, True, True]
    for number, (answer, flag) in enumerate(zip(answers, flags, strict=True)):
        truth = (WITHOUT if flag else EVERYBODY) * (1 + number / 100)
        assert abs(float(answer) - truth) < 6 * answer.receipt.sigma
        assert 20 * answer.receipt.sigma < 50.0 * LOUD, "the two are told apart"
    found = scientist.certificate(answers[-1].receipt.id)
    assert (found["accounting"], found["may_exclude"]) == ("individual", True)


def test_people_without_identifiers_are_refused_and_nothing_is_published(owner: Node) -> None:
    domain = owner.open_domain(fresh("singly"), statement="Made up for one test.", accounting="individual").name
    name = fresh("visits")
    with pytest.raises(grid.InvalidInputError, match="entities="):
        grid.private_table(FRAME, name=name, bounds={"visits": (0.0, 100.0)}, domain=domain).send(owner)
    assert name not in [dataset.name for dataset in owner.datasets()]


def test_a_later_version_has_identifiers_too(owner: Node) -> None:
    """Without them, whoever has nothing left would begin anew."""
    domain = owner.open_domain(fresh("singly"), statement="Made up for one test.", accounting="individual").name
    bounds = {"visits": (0.0, 100.0)}
    first = grid.private_table(FRAME, name=fresh("visits"), bounds=bounds, entities="person", domain=domain)
    dataset = owner.dataset(first.send(owner).dataset)
    with pytest.raises(grid.InvalidInputError, match="charges each person by itself"):
        dataset.replace(grid.private_table(FRAME[["visits"]], bounds=bounds))
    assert owner.dataset(dataset.name).version == 1
