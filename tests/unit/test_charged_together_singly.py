"""Those who are charged together about people with accounts of their own: each sees what the others were charged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.db import transaction

from apps.accounts.models import User
from apps.budgets import accounts, ledger, records
from apps.budgets.accountant import ARGMAX
from apps.budgets.accounts import Unsealed
from apps.budgets.books import Asking
from apps.budgets.models import Domain, Release
from apps.budgets.verification import verify
from apps.compute import vector
from apps.compute.messages import Account
from apps.datasets.models import Dataset
from gridclient.wire.errors import GridError
from tests.factories.budgets import NOW, held, priced, question
from tests.factories.individuals import pot_of, publish, spent, town
from tests.factories.people import People

pytestmark = pytest.mark.django_db(transaction=True)

LOUD = 3


@pytest.fixture
def domain(people: People) -> Domain:
    return town(people.owner)


@pytest.fixture
def visits(people: People, domain: Domain) -> Dataset:
    return publish(people.owner, [1.0] * LOUD, range(LOUD), domain)


def asking(user: User, dataset: Dataset, key: str, *, choice: bool = False, epsilon: float = 1.0) -> Asking:
    """On three grants of the whole pot."""
    asked = question(dataset, program=key[0] * 64)
    if choice:
        asked = asked._replace(mechanism=ARGMAX, clips=())
    grants = [held(dataset, 2.0, grant) for grant in range(1, 4)]
    return Asking(user, asked, priced(user, asked, *grants, epsilon=epsilon), key)


def charged(*group: Asking) -> list[Release | GridError | Unsealed]:
    with transaction.atomic():
        return ledger.charge_all(group, now=NOW)


def sealed(unsealed: Unsealed, dataset: Dataset) -> records.Sealed:
    """As a worker seals it: everybody contributes the most that one can."""
    pot, file = unsealed.pot, Path(settings.GRID_STORAGE_DIR) / "sealed"
    file.parent.mkdir(parents=True, exist_ok=True)
    account = Account(
        str(records.folder(pot.id)), accounts.log(pot.id), pot.uniform or 0, unsealed.limit, unsealed.worst,
        pot.order_grid, unsealed.tested,
    )  # fmt: skip
    costs = np.full(LOUD, unsealed.worst, dtype=np.uint64)
    names = np.array([str(number) for number in range(LOUD)], dtype="S32")
    digest, alone = vector.seal(file, account, [vector.Contribution(str(dataset.pk), 1, costs, lambda: names)])
    return records.Sealed(digest, file, pot.id, unsealed.worst, pot.spent, unsealed.tested, alone)


def answer(dataset: Dataset, wanted: Asking, *before: Asking) -> Release:
    """Ask at the end of a group the first time, then alone with what was sealed."""
    found = charged(*before, wanted)[-1]
    while isinstance(found, Unsealed):
        (found,) = charged(wanted._replace(sealed=sealed(found, dataset)))
    assert isinstance(found, Release)
    return found


def test_nobody_is_charged_beyond_their_account_by_a_choice_in_the_same_group(
    people: People, domain: Domain, visits: Dataset
) -> None:
    """What a choice costs everybody alike counts for what is sealed for whoever asked beside it."""
    for number in range(2):
        answer(visits, asking(people.scientist, visits, f"a{number}"))
    choice = asking(people.reviewer, visits, "b", choice=True, epsilon=0.2)
    last = answer(visits, asking(people.scientist, visits, "c"), choice)
    pot = pot_of(domain)
    assert (last.may_exclude, pot.uniform) == (True, choice.price.charges[0][1])
    assert max(spent(domain)) + choice.price.charges[0][1] <= pot.cap < pot.spent
    assert verify().problem == ""


def test_what_was_sealed_and_is_gone_is_sealed_again(people: People, domain: Domain, visits: Dataset) -> None:
    """Another process started after a group had failed for somebody else, and removed what no release named."""
    wanted = asking(people.scientist, visits, "a")
    (unsealed,) = charged(wanted)
    assert isinstance(unsealed, Unsealed)
    wanted = wanted._replace(sealed=sealed(unsealed, visits))
    with transaction.atomic():
        ledger.charge_all([wanted], now=NOW)
        transaction.set_rollback(True)
    assert records.remove_orphans() == 1
    assert isinstance(charged(wanted)[0], Unsealed)
    answer(visits, wanted)
    assert spent(domain) == [unsealed.worst] * LOUD


def test_what_was_sealed_is_charged_after_a_group_that_failed_for_another(
    people: People, domain: Domain, visits: Dataset
) -> None:
    """It was named in a transaction that is undone, and each of the group is tried by itself."""
    wanted = asking(people.scientist, visits, "a")
    (unsealed,) = charged(wanted)
    assert isinstance(unsealed, Unsealed)
    wanted = wanted._replace(sealed=sealed(unsealed, visits))
    with transaction.atomic():
        ledger.charge_all([wanted], now=NOW)
        transaction.set_rollback(True)
    (release,) = charged(wanted)
    assert isinstance(release, Release)
    assert spent(domain) == [unsealed.worst] * LOUD
    assert verify().problem == ""
