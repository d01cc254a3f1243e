"""Asking for a budget: who may ask, who decides, and what a decision gives."""

from __future__ import annotations

from typing import Any

import pytest

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.compute.spending import budget
from apps.datarequests import budgets
from apps.datarequests.models import BudgetRequest
from apps.datarequests.queries import budget_requests_i_may_decide, budget_requests_visible_to
from apps.datasets.models import Dataset
from apps.permissions import actions as permissions
from apps.permissions.models import Grant
from gridclient.wire.errors import ConflictError, GridError, InvalidInputError, NotFoundError, NotPermittedError
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def ask(user: User, dataset: Dataset, epsilon: float = 1.0, reason: str = "Growth curves") -> BudgetRequest:
    return budgets.ask_for_budget(dataset, epsilon=epsilon, reason=reason, by=user)


def names(rows: Any) -> list[str]:
    return [row.requester.username for row in rows]


def test_an_approval_gives_the_budget_that_was_asked_for(people: People, births: Dataset) -> None:
    asked = ask(people.scientist, births)
    assert (asked.state, asked.epsilon, asked.grant) == ("submitted", 1.0, None)
    made = budgets.approve_budget(asked, reason="Fine.", by=people.owner)
    assert (made.state, made.decided_by, made.decision) == ("approved", people.owner, "Fine.")
    assert made.decided_at is not None and made.grant is not None
    assert (made.grant.right, made.grant.user, made.grant.allowance) == ("release", people.scientist, 1.0)
    assert budget(people.scientist, births).allowance == pytest.approx(1.0)


def test_an_owner_gives_less_than_was_asked_for_and_never_more(people: People, births: Dataset) -> None:
    asked = ask(people.scientist, births)
    for epsilon in (1.5, 0.0, -1.0, float("nan")):
        with pytest.raises(InvalidInputError, match="epsilon"):
            budgets.approve_budget(asked, reason="Fine.", epsilon=epsilon, by=people.owner)
    assert not Grant.objects.exists()
    made = budgets.approve_budget(asked, reason="Half will do.", epsilon=0.5, by=people.owner)
    assert made.grant is not None and made.grant.allowance == 0.5 and made.epsilon == 1.0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 1e-4, 101.0, float("inf"), float("nan")])
def test_what_is_no_budget_is_refused_where_it_is_asked_for(people: People, births: Dataset, epsilon: float) -> None:
    with pytest.raises(InvalidInputError, match="epsilon"):
        ask(people.scientist, births, epsilon)
    with pytest.raises(InvalidInputError, match="reason"):
        ask(people.scientist, births, reason="  ")
    assert not BudgetRequest.objects.exists()


def test_a_denial_gives_nothing_and_says_why(people: People, births: Dataset) -> None:
    made = budgets.deny_budget(ask(people.scientist, births), reason="Say more.", by=people.owner)
    assert (made.state, made.decision, made.decided_by) == ("denied", "Say more.", people.owner)
    assert not Grant.objects.exists()
    again = ask(people.scientist, births)
    assert budgets.withdraw_budget(again, by=people.scientist).state == "withdrawn"


def test_one_open_request_for_each_person_and_dataset(people: People, births: Dataset) -> None:
    first = ask(people.scientist, births)
    with pytest.raises(ConflictError, match="withdraw"):
        ask(people.scientist, births, 0.5)
    ask(people.scientist, publish(people.owner, "March births"))
    ask(people.reviewer, births)
    budgets.withdraw_budget(first, by=people.scientist)
    assert ask(people.scientist, births, 0.5).state == "submitted"


def test_only_the_owner_decides_and_only_who_asked_withdraws(people: People, births: Dataset) -> None:
    asked = ask(people.scientist, births)
    for who in (people.scientist, people.reviewer, people.other_owner, people.administrator, people.auditor):
        for decide in (budgets.approve_budget, budgets.deny_budget):
            with pytest.raises(NotPermittedError):
                decide(asked, reason="Mine.", by=who)
    for who in (people.owner, people.reviewer, people.administrator):
        with pytest.raises(NotPermittedError):
            budgets.withdraw_budget(asked, by=who)
    assert BudgetRequest.objects.get().state == "submitted" and not Grant.objects.exists()


def test_nobody_gives_themselves_a_budget_by_asking(people: People, births: Dataset) -> None:
    with pytest.raises(NotPermittedError, match="own"):
        ask(people.owner, births)


@pytest.mark.parametrize("end", ["approved", "denied", "withdrawn"])
def test_what_was_settled_stays_settled(people: People, births: Dataset, end: str) -> None:
    asked = ask(people.scientist, births)
    verbs = {
        "approved": lambda: budgets.approve_budget(asked, reason="Fine.", by=people.owner),
        "denied": lambda: budgets.deny_budget(asked, reason="No.", by=people.owner),
        "withdrawn": lambda: budgets.withdraw_budget(asked, by=people.scientist),
    }
    verbs[end]()
    grants = Grant.objects.count()
    for verb in verbs.values():
        with pytest.raises(ConflictError, match=end):
            verb()
    assert BudgetRequest.objects.get().state == end and Grant.objects.count() == grants


def test_a_dataset_that_is_not_for_me_looks_absent(people: People) -> None:
    hidden = publish(people.owner, "Staff list", visibility="granted")
    with pytest.raises(NotFoundError):
        ask(people.scientist, hidden)


def test_a_closed_account_gets_no_budget(people: People, births: Dataset) -> None:
    asked = ask(people.scientist, births)
    accounts.deactivate(people.scientist, by=people.administrator)
    with pytest.raises(ConflictError, match="no longer active"):
        budgets.approve_budget(asked, reason="Fine.", by=people.owner)
    assert budgets.deny_budget(asked, reason="Gone.", by=people.owner).state == "denied"


def test_requests_are_seen_by_who_asked_who_owns_and_who_reads_everything(people: People, births: Dataset) -> None:
    ask(people.scientist, births)
    for who, seen, decides in (
        (people.scientist, True, False), (people.owner, True, True), (people.auditor, True, False),
        (people.other_owner, False, False), (people.reviewer, False, False), (people.administrator, False, False),
    ):  # fmt: skip
        assert bool(names(budget_requests_visible_to(who))) is seen, who
        assert bool(names(budget_requests_i_may_decide(who))) is decides, who
    budgets.deny_budget(BudgetRequest.objects.get(), reason="No.", by=people.owner)
    assert not budget_requests_i_may_decide(people.owner).exists()


def test_the_audit_log_tells_of_each_step(people: People, births: Dataset) -> None:
    asked = ask(people.scientist, births, 0.7)
    budgets.approve_budget(asked, reason="Fine.", epsilon=0.3, by=people.owner)
    budgets.withdraw_budget(ask(people.scientist, births), by=people.scientist)
    budgets.deny_budget(ask(people.scientist, births), reason="No.", by=people.owner)
    found = AuditEvent.objects.filter(target__startswith="budget-request:").order_by("seq")
    assert [event.verb for event in found] == [
        "budget_requested", "budget_approved", "budget_requested", "budget_withdrawn", "budget_requested",
        "budget_denied",
    ]  # fmt: skip
    first, second = found[0], found[1]
    assert (first.target, first.payload["epsilon"], first.actor_name) == (
        f"budget-request:{asked.pk}",
        0.7,
        "scientist",
    )
    assert (second.payload["epsilon"], second.payload["grant"]) == (0.3, Grant.objects.get().pk)


def test_an_ended_grant_is_no_way_back_into_the_data(people: People, births: Dataset) -> None:
    made = budgets.approve_budget(ask(people.scientist, births), reason="Fine.", by=people.owner)
    assert made.grant is not None
    permissions.revoke(made.grant, by=people.owner)
    with pytest.raises(GridError):
        budget(people.scientist, births)
