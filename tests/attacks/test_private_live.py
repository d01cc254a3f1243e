"""Attacks 10, 12, 16 and 28 on answers with noise, on a live node by a client that checks nothing.

What an owner would lose: noise that averages away, a charge that is not made, an answer to whoever guesses a question.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gridclient.program.graph import Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GetNotPermittedError, GridError
from tests.attacks.score import check_nothing_recovered
from tests.attacks.ward import Ward, private_values
from tests.factories.raw import RawClient


@pytest.fixture(scope="module")
def asked(ward: Ward) -> dict[str, Any]:
    """2,000 people; the analyst may take private answers about them."""
    values = private_values(2000, 1, seed=31)
    dataset = ward.publish(values, "Attacked privately")
    given = {"to": "attack-analyst", "right": "release", "epsilon": 1.5, "reason": "A study."}
    status, body = ward.call("owner", "POST", f"datasets/{dataset['slug']}/grants/", given)
    assert status == 201, body
    return {"sum": float(values.sum()), **dataset}


def left(ward: Ward, dataset: dict[str, Any]) -> float:
    """What the analyst may still ask."""
    status, body = ward.call("analyst", "GET", f"datasets/{dataset['slug']}/budget/")
    assert status == 200, body
    return float(body["remaining"])


def private(client: RawClient, value: Ref, ask: int, **how: Any) -> Any:
    try:
        return client.ask(m.Get(ask, value, **how))
    except GridError as error:
        return error


def test_a_question_under_one_key_is_one_answer_and_one_charge(ward: Ward, asked: dict[str, Any]) -> None:
    client, before = ward.client("analyst"), left(ward, asked)
    value = client.node("aten::sum", client.asset(asked))
    asks = range(5000, 5020)
    for ask in asks:
        client.send(m.Get(ask, value, epsilon=0.2, key="attack-once"))
    found: dict[int, Any] = {}
    while len(found) < len(asks):
        reply = client.receive()
        found[reply.ask] = reply
    answers = [reply for reply in found.values() if isinstance(reply, m.Answer)]
    assert len({reply.data for reply in answers}) == 1, "averaged, the noise of several answers would be less"
    assert {reply.code for reply in found.values() if isinstance(reply, m.Refused)} <= {"conflict"}
    assert left(ward, asked) == pytest.approx(before - answers[0].receipt["cost"])
    other = private(client, client.node("aten::mul.Tensor", value, 2.0), 5100, epsilon=0.2, key="attack-once")
    assert isinstance(other, GridError) and other.code == "conflict"


def test_the_same_question_from_elsewhere_is_the_same_answer_or_none(ward: Ward, asked: dict[str, Any]) -> None:
    client = ward.client("analyst")
    answers = []
    for number in range(3):
        value = client.node("aten::sum", client.asset(asked))
        answers.append(private(client, value, 5200 + number, epsilon=0.1))
    assert len({answer.data for answer in answers}) == 1
    assert [answer.receipt["cost"] > 0 for answer in answers] == [True, False, False]
    for person in ("scientist", "stranger", "neighbour"):
        other = ward.client(person)
        value = other.node("aten::sum", other.asset(asked))
        for command in (m.Get(5300, value, epsilon=0.1), m.Get(5301, value, epsilon=0.1, key="attack-once"),
                        m.Estimate(5302, value, epsilon=0.1)):  # fmt: skip
            with pytest.raises(GetNotPermittedError):
                other.ask(command)


def test_what_is_no_epsilon_and_no_width_is_refused_before_anything_is_charged(
    ward: Ward, asked: dict[str, Any]
) -> None:
    client, before = ward.client("analyst"), left(ward, asked)
    value = client.node("aten::sum", client.asset(asked))
    hows: list[dict[str, Any]] = [{"epsilon": 0.1, "within": 1e4}]
    for wrong in (0.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, 1e-300, 1e300):
        hows += [{"epsilon": wrong}, {"within": wrong}]
    seen = [private(client, value, 5400 + number, **how) for number, how in enumerate(hows)]
    assert {type(reply).__name__ for reply in seen} <= {"InvalidInputError", "LimitExceededError", "TooNoisyError"}
    for number, rows in enumerate((0, 1)):
        few = client.node("aten::sum", client.node("aten::slice.Tensor", client.asset(asked), 0, 0, rows))
        assert isinstance(private(client, few, 5500 + number, epsilon=0.5), GridError)
    assert left(ward, asked) == before


def test_differences_of_private_answers_find_nobody(ward: Ward) -> None:
    values = private_values(2000, 1, seed=32)
    dataset = ward.publish(values, "Attacked by differences")
    given = {"to": "attack-analyst", "right": "release", "epsilon": 1.0, "reason": "A study."}
    assert ward.call("owner", "POST", f"datasets/{dataset['slug']}/grants/", given)[0] == 201
    client = ward.client("analyst")
    x, seen = client.asset(dataset), []
    for victim in range(8):
        kept = client.constant(np.array([row for row in range(len(values)) if row != victim]))
        for value in (x, client.node("aten::index_select", x, 0, kept)):
            seen.append(private(client, client.node("aten::sum", value), 5600 + len(seen), epsilon=0.05))
    answers = [np.frombuffer(each.data, each.header.dtype) for each in seen if isinstance(each, m.Answer)]
    assert len(answers) == len(seen)
    check_nothing_recovered(values[:8], answers)
