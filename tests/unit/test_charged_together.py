"""Those who ask at the same time are charged in one transaction: each as if it had been alone."""

from __future__ import annotations

from typing import Any

import pytest

from apps.accounts.models import AccessToken, User
from apps.accounts.token_actions import create_token, revoke_token
from apps.audit import queries as audit
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.budgets import outside, verification
from apps.budgets.models import Release
from apps.compute.models import KeptAnswers
from apps.compute.spending import Bill, Demand, Wanted, charge_all
from apps.datasets.models import Dataset
from apps.permissions.actions import give
from gridclient.wire.errors import (
    AuthenticationError,
    BudgetExhaustedError,
    ConflictError,
    GetNotPermittedError,
    InvalidInputError,
    LimitExceededError,
    TooNoisyError,
)
from tests.factories.budgets import queries_pot
from tests.factories.people import People, make_user
from tests.factories.queue import publish
from tests.factories.weighing import weighed_sum

pytestmark = pytest.mark.django_db(transaction=True)


def token(user: User) -> int:
    create_token(user=user, name=f"laptop {AccessToken.objects.count()}", expires=None, by=user)
    return AccessToken.objects.filter(user=user).latest("pk").pk


@pytest.fixture
def births(people: People) -> Dataset:
    births = publish(people.owner)
    give(births, to=people.scientist, right="release", epsilon=0.3, reason="Study 7", by=people.owner)
    return births


def test_each_gets_its_bill_or_its_refusal_and_the_books_are_whole(people: People, births: Dataset) -> None:
    bob = make_user("bob", "scientist")
    give(births, to=bob, right="release", epsilon=0.3, reason="Study 8", by=people.owner)
    hers, his, revoked = token(people.scientist), token(bob), token(bob)
    revoke_token(AccessToken.objects.get(pk=revoked), by=bob)
    small = Wanted(0.2)
    demands = [
        Demand(hers, weighed_sum(births, 1), small, "one"),
        Demand(his, weighed_sum(births, 2), small, "one"),
        Demand(revoked, weighed_sum(births, 3), small, "three"),
        Demand(token(make_user("eve", "scientist")), weighed_sum(births, 4), small, "four"),
        Demand(his, weighed_sum(births, 5), Wanted(1.0), "five"),
        Demand(hers, weighed_sum(births, 6, of_reach=1.0), small, "six"),
        Demand(hers, weighed_sum(births, 1), small, "one"),
        Demand(hers, weighed_sum(births, 7), small, "one"),
        *(Demand(hers, weighed_sum(births, 10 + number), small, f"{number}") for number in range(40)),
    ]
    found = charge_all(demands)
    first, second, *refused = found[:6]
    assert isinstance(first, Bill) and isinstance(second, Bill)
    kinds = [AuthenticationError, GetNotPermittedError, LimitExceededError, TooNoisyError]
    assert [type(each) for each in refused] == kinds
    repeated, other, *many = found[6:]
    assert isinstance(repeated, Bill) and repeated.release.pk == first.release.pk
    assert isinstance(other, ConflictError)
    # One after the other, until her grant was used up: her receipts say what was left each time.
    paid = [each for each in many if isinstance(each, Bill)]
    assert {type(each) for each in many[len(paid) :]} == {BudgetExhaustedError}
    left = [each.receipt["remaining"] for each in (first, *paid)]
    assert left == sorted(left, reverse=True) and len(set(left)) == len(left)
    assert Release.objects.count() == len(paid) + 2
    assert queries_pot().spent == sum(Release.objects.values_list("charges__amount", flat=True))
    assert set(KeptAnswers.objects.values_list("user", flat=True)) == {people.scientist.pk, bob.pk}
    # The chains, the heads outside, and the event of each.
    assert verification.verify() and audit.verify()
    kept = outside.FILE.read()
    assert kept is not None and kept.seq == Release.objects.count()
    told = AuditEvent.objects.filter(verb=Verb.BUDGET_CHARGED).values_list("seq", "target")
    assert set(told) == {(row.event, f"release:{row.pk}") for row in Release.objects.all()}


@pytest.mark.parametrize(
    ("wanted", "key", "more"),
    [
        (Wanted(0.2), "a\0b", {}),
        (Wanted(0.2), "k" * 65, {}),
        (Wanted(within=1e80), "wide", {}),
        (Wanted(within=1e-300), "narrow", {}),
        (Wanted(within=1e300), "clipped", {"clips": [1e30]}),
        (Wanted(0.2), "scaled", {"clips": [1e300]}),
    ],
)
def test_who_asks_for_what_is_none_is_refused_and_the_others_are_charged_beside_it(
    people: People, births: Dataset, wanted: Wanted, key: str, more: dict[str, Any]
) -> None:
    """An error that is no refusal would undo the charges of all, and have each tried by itself."""
    give(births, to=people.reviewer, right="release", epsilon=0.3, reason="Study 8", by=people.owner)
    demands = [
        Demand(token(people.scientist), weighed_sum(births, 1), Wanted(0.2), "one"),
        Demand(token(people.reviewer), weighed_sum(births, 2, **more), wanted, key),
    ]
    bill, refusal = charge_all(demands)
    assert isinstance(bill, Bill) and isinstance(refusal, InvalidInputError)
    assert Release.objects.get().pk == bill.release.pk
