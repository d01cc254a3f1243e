"""The queue of a live node: people decide, and what they approve arrives, as often as it is asked for."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch

import gridclient
from gridclient.datasets import Dataset
from gridclient.node import Node
from gridclient.requests import DataRequest
from tests.factories.crew import Crew, fresh, refused, sent

# Of nobody whom another test's data are about: exact answers are compared with all others of the node.
ROWS = torch.arange(10, dtype=torch.float64).reshape(5, 2) / 7 + 0.5
WHY = "For the yearly report."


def publish(owner: Node, **declared: Any) -> Dataset:
    given: dict[str, Any] = {"name": fresh("queue"), "bounds": (0, 10), **declared}
    return owner.dataset(gridclient.private_tensor(ROWS, **given).send(owner).dataset)


def ask(person: Node, dataset: Dataset, reason: str = WHY) -> DataRequest:
    pointer = person.dataset(dataset.name).pointer()
    return (pointer * 2).sum(0).request(reason)


def of(person: Node, request: DataRequest) -> DataRequest:
    """The same request as another person sees it."""
    (found,) = [entry for entry in person.requests() if entry.id == request.id]
    return found


def sees(person: Node, request: DataRequest) -> bool:
    return request.id in [entry.id for entry in person.requests()]


def test_approved_value_is_delivered_as_often_as_asked(crew: Crew, owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    request = ask(scientist, dataset)
    with pytest.raises(gridclient.RequestPendingError, match="Nobody has decided"):
        request.get()
    with pytest.raises(gridclient.RequestPendingError, match="submitted"):
        request.wait(timeout=0)
    asked = of(owner, request)
    assert asked in owner.requests(state="submitted") or sees(owner, request)
    assert (asked.reason, asked.requester) == (WHY, scientist.user)
    assert dataset.name in asked.words
    assert asked.approve(reason="Fine.").state == "approved"
    clear = (ROWS * 2).sum(0)
    first = request.wait(timeout=30).get()
    assert torch.equal(first, clear)
    for _ in range(3):
        assert torch.equal(request.get(), first)
    assert request.status == "delivered"
    assert request.decision_reason == "Fine."
    # The approval was for this one value.
    refused(scientist.dataset(dataset.name).pointer().sum(0).get)
    assert crew.admin.audit(verify=True)
    verbs = [event.verb for event in crew.admin.audit(limit=2000) if event.target == f"request:{request.id}"]
    assert verbs.count("request_delivered") == 4


def test_same_value_may_be_taken_from_a_pointer_after_the_approval(owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    request = ask(scientist, dataset)
    of(owner, request).approve(reason="Fine.")
    again = (scientist.dataset(dataset.name).pointer() * 2).sum(0)
    assert torch.equal(again.get(), request.get())
    refused((scientist.dataset(dataset.name).pointer() * 3).sum(0).get)


def test_get_right_after_the_approval_waits_for_the_answer(owner: Node, scientist: Node) -> None:
    request = ask(scientist, publish(owner))
    of(owner, request).approve(reason="Fine.")
    assert torch.equal(request.get(), (ROWS * 2).sum(0))


def test_denial_comes_with_its_reason(owner: Node, scientist: Node) -> None:
    request = ask(scientist, publish(owner))
    of(owner, request).deny(reason="Too few people.")
    assert request.wait(timeout=5).state == "denied"
    with pytest.raises(gridclient.RequestDeniedError, match="Too few people") as denied:
        request.get()
    assert denied.value.details["reason"] == "Too few people."
    with pytest.raises(gridclient.ConflictError):
        of(owner, request).approve(reason="After all.")


def test_withdrawn_request_is_decided_by_nobody(owner: Node, scientist: Node) -> None:
    request = ask(scientist, publish(owner))
    theirs = of(owner, request)
    assert request.withdraw().state == "withdrawn"
    with pytest.raises(gridclient.ConflictError):
        theirs.approve(reason="Fine.")
    with pytest.raises(gridclient.ConflictError, match="withdrawn"):
        request.get()
    with pytest.raises(gridclient.ConflictError):
        request.withdraw()
    assert not [entry for entry in owner.requests(state="submitted") if entry.id == request.id]


def test_queue_shows_to_each_what_is_theirs_oldest_first(
    crew: Crew, owner: Node, scientist: Node, reviewer: Node
) -> None:
    stranger, other = crew.hire("scientist"), crew.hire("owner")
    dataset = publish(owner)
    requests = [ask(scientist, dataset, f"Question {number}.") for number in range(3)]
    for person in (owner, reviewer, scientist):
        ids = [entry.id for entry in person.requests(state="submitted")]
        assert [key for key in ids if key in {request.id for request in requests}] == [r.id for r in requests]
    for person in (stranger, other):
        assert not any(sees(person, request) for request in requests)
        with pytest.raises(gridclient.NotFoundError):
            person.http.get(f"requests/{requests[0].id}/")
        with pytest.raises(gridclient.NotFoundError):
            person.http.post(f"requests/{requests[0].id}/approve/", reason="Mine.")
        with pytest.raises(gridclient.NotFoundError):
            person.fetch(requests[0].id)


def test_nobody_decides_on_their_own_request(crew: Crew, owner: Node, reviewer: Node) -> None:
    both = crew.hire("scientist", "reviewer")
    dataset = publish(owner)
    own = ask(both, dataset)
    with pytest.raises(gridclient.NotPermittedError, match="of their own"):
        own.approve(reason="Mine.")
    with pytest.raises(gridclient.NotPermittedError):
        own.deny(reason="Mine.")
    assert own.status == "submitted"
    # The answer is the requester's, whoever approved it.
    of(reviewer, own).approve(reason="Fine.")
    assert torch.equal(own.wait(timeout=30).get(), (ROWS * 2).sum(0))
    with pytest.raises(gridclient.NotPermittedError, match="person who made it"):
        of(reviewer, own).get()
    with pytest.raises(gridclient.NotPermittedError):
        of(owner, own).get()


def test_owner_s_approval_of_an_older_page_is_refused(owner: Node, reviewer: Node, scientist: Node) -> None:
    request = ask(scientist, publish(owner))
    seen_by_owner, seen_by_reviewer = of(owner, request), of(reviewer, request)
    seen_by_reviewer.deny(reason="No.")
    with pytest.raises(gridclient.ConflictError):
        seen_by_owner.approve(reason="Yes.")
    assert request.status == "denied"


def test_whole_table_can_be_asked_for(owner: Node, scientist: Node) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [True, False, True]})
    name = gridclient.private_table(frame, name=fresh("queue")).send(owner).dataset
    t = scientist.dataset(name).pointer()
    whole, column = refused(t.get).request(WHY), t["a"].request(WHY)
    for request in (whole, column):
        of(owner, request).approve(reason="Fine.")
    assert whole.wait(timeout=30).get().to_pydict() == frame.to_dict("list")
    assert whole.get().to_pydict() == frame.to_dict("list")
    assert torch.equal(column.get(), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


def test_answer_outlives_the_session_that_asked(crew: Crew, owner: Node) -> None:
    ana = crew.hire("scientist")
    constant = torch.arange(20_000, dtype=torch.float64)
    session = crew.enter(ana.user)
    value = session.dataset(publish(owner).name).pointer()[0, 1] + constant
    request = value.request(WHY)
    session.close()
    of(owner, request).approve(reason="Fine.")
    (mine,) = crew.enter(ana.user).requests()
    assert mine.id == request.id
    assert torch.equal(mine.get(), ROWS[0, 1] + constant)


def test_program_over_two_owners_needs_a_reviewer(crew: Crew, owner: Node, scientist: Node, reviewer: Node) -> None:
    other = crew.hire("owner")
    mine, theirs = publish(owner), publish(other)
    pointers = [scientist.dataset(dataset.name).pointer() for dataset in (mine, theirs)]
    request = (pointers[0].sum(0) + pointers[1].sum(0)).request(WHY)
    for person in (owner, other):
        with pytest.raises(gridclient.NotPermittedError, match="every dataset"):
            of(person, request).approve(reason="Half of it is mine.")
    of(reviewer, request).approve(reason="Both agreed.")
    assert torch.equal(request.wait(timeout=30).get(), ROWS.sum(0) * 2)


def test_request_keeps_to_the_version_that_it_named(owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    request = ask(scientist, dataset)
    dataset.replace(ROWS + 1)
    of(owner, request).approve(reason="Fine.")
    assert torch.equal(request.wait(timeout=30).get(), (ROWS * 2).sum(0))


def test_public_value_needs_no_request(scientist: Node) -> None:
    with pytest.raises(gridclient.InvalidInputError, match=r"\.get\(\)"):
        sent(torch.ones(2), scientist).request(WHY)


def test_decision_without_a_reason_is_none(owner: Node, scientist: Node) -> None:
    request = ask(scientist, publish(owner))
    with pytest.raises(gridclient.InvalidInputError, match="reason"):
        of(owner, request).approve(reason=" ")
    with pytest.raises(gridclient.InvalidInputError, match="reason"):
        of(owner, request).deny(reason="")
    assert request.status == "submitted"
