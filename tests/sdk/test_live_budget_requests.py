"""Asking for a budget on a live node: a scientist asks, the owner decides, and the answers come."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gridclient
from gridclient.datasets import Dataset
from gridclient.node import Node
from tests.factories.crew import Crew, fresh, refused

PEOPLE = torch.linspace(1.0, 5.0, 2000, dtype=torch.float64).reshape(2000, 1)


def publish(owner: Node, **declared: Any) -> Dataset:
    domain = owner.open_domain(fresh("asked"), statement="Made up for one test.").name
    given: dict[str, Any] = {"name": fresh("asked"), "bounds": {"w": (0, 6)}, "columns": ["w"], "domain": domain}
    return owner.dataset(gridclient.private_tensor(PEOPLE, **given, **declared).send(owner).dataset)


def test_a_scientist_asks_for_a_budget_and_spends_what_the_owner_gave(owner: Node, scientist: Node) -> None:
    births = publish(owner)
    total = scientist.dataset(births.name).pointer().sum()
    refused(lambda: total.get(epsilon=0.4))
    asked = scientist.request_budget(births.name, epsilon=1.0, reason="Growth curves")
    assert (asked.state, asked.epsilon, asked.given) == ("submitted", 1.0, None)
    with pytest.raises(gridclient.ConflictError, match="withdraw"):
        scientist.request_budget(births.name, epsilon=0.5, reason="Impatience")
    (waiting,) = [each for each in owner.budget_requests("submitted") if each.id == asked.id]
    assert (waiting.requester, waiting.reason) == (scientist.user, "Growth curves")
    assert waiting.approve("Half will do.", epsilon=0.5).state == "approved"
    assert (asked.refresh().state, asked.given, asked.decision) == ("approved", 0.5, "Half will do.")
    assert scientist.budget(births.name).allowance == pytest.approx(0.5)
    answer = total.get(epsilon=0.4)
    assert abs(float(answer) - float(PEOPLE.sum())) < 6 * answer.receipt.sigma


def test_a_denial_says_why_and_what_was_asked_for_can_be_taken_back(owner: Node, scientist: Node) -> None:
    births = publish(owner)
    asked = scientist.request_budget(births.name, epsilon=1.0, reason="Growth curves")
    with pytest.raises(gridclient.NotPermittedError):
        asked.approve("I may.")
    (waiting,) = [each for each in owner.budget_requests() if each.id == asked.id]
    waiting.deny("Say more.")
    assert (asked.refresh().state, asked.decision) == ("denied", "Say more.")
    again = scientist.request_budget(births.name, epsilon=0.3, reason="Growth curves of newborns")
    assert again.withdraw().state == "withdrawn"
    with pytest.raises(gridclient.ConflictError):
        waiting.approve("After all.")


def test_a_dataset_and_a_request_that_are_not_for_me_look_absent(owner: Node, scientist: Node, crew: Crew) -> None:
    hidden = publish(owner, visibility="granted")
    for name in (hidden.name, "no-such-dataset"):
        with pytest.raises(gridclient.NotFoundError):
            scientist.request_budget(name, epsilon=1.0, reason="Curiosity")
    births = publish(owner)
    asked = scientist.request_budget(births.name, epsilon=1.0, reason="Growth curves")
    stranger = crew.hire("scientist")
    assert asked.id not in [each.id for each in stranger.budget_requests()]
