"""Nothing is answered that was not paid for, and nothing is paid for twice: charging, answering, delivering."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction

from apps.audit.models import AuditEvent
from apps.audit.queries import verify
from apps.budgets import accountant, ledger, outside, pricing
from apps.budgets.books import Asking
from apps.budgets.chain import DOMAIN, GENESIS
from apps.budgets.models import Allowance, Charge, LedgerHead, Placement, Pot, Release
from apps.budgets.states import State
from apps.core import keys
from apps.datasets.models import Dataset
from gridclient.wire.errors import (
    BudgetExhaustedError,
    ConflictError,
    GridError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    NotPermittedError,
)
from tests.factories.budgets import NOW, answer, ask, charged, held, priced, queries_pot, question
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def until_it_is_exhausted(spend: Callable[[], object]) -> tuple[int, BudgetExhaustedError]:
    """How often something can be spent, and what is said then."""
    for count in range(1_000):
        try:
            spend()
        except BudgetExhaustedError as error:
            return count, error
    raise AssertionError("It never ends.")


def test_an_answer_is_charged_what_its_noise_lets_through(people: People, births: Dataset) -> None:
    asked = question(births, clips=(2.0, 3.0))
    price = priced(people.scientist, asked, held(births, 2.0))
    pot = queries_pot()
    assert price.unit == pytest.approx(math.sqrt(2) * accountant.sigma_of(0.5, 1e-6))
    assert price.sigmas == (2.0 * price.unit, 3.0 * price.unit)
    squares = sum((clip / sigma) ** 2 for clip, sigma in zip(asked.clips, price.sigmas, strict=True))
    exact = float(pot.order) * squares / 2 * accountant.UNIT
    assert price.charges == ((pot.pk, pytest.approx(exact, abs=2)),)
    assert price.charges[0][1] >= exact - 1e-3
    assert (price.delta, price.share) == (1e-6, price.charges[0][1] / pot.cap)

    release = charged(people.scientist, asked, price, "first")
    assert release.state == State.CHARGED
    assert queries_pot().spent == price.charges[0][1]
    assert list(Charge.objects.values_list("release", "pot", "amount")) == [(release.pk, *price.charges[0])]
    event = AuditEvent.objects.get(seq=release.event)
    assert (event.verb, event.actor_name, event.target) == ("budget_charged", "scientist", f"release:{release.pk}")
    assert event.payload is not None and event.payload["ledger"] == [1, release.hash]
    assert verify()


def test_a_domain_answers_about_as_many_people_as_it_was_opened_for(people: People, births: Dataset) -> None:
    few, many = (question(births, entities=[most]) for most in (100_000, 100_001))
    priced(people.scientist, few, held(births, 2.0))
    with pytest.raises(LimitExceededError, match="100,000 people"):
        priced(people.scientist, many, held(births, 2.0))


def test_epsilon_and_width_name_the_same_noise(people: People, births: Dataset) -> None:
    asked, grant = question(births), held(births, 2.0)
    price = priced(people.scientist, asked, grant, epsilon=0.5)
    again = priced(people.scientist, asked, grant, unit=price.unit)
    assert again.epsilon == pytest.approx(0.5, rel=1e-6)
    assert (again.charges, again.digest) == (price.charges, price.digest)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, 1e-9, 1e9, "0.5", True])
def test_a_wrong_epsilon_is_told_what_would_work(people: People, births: Dataset, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"epsilon.*0\.5"):
        priced(people.scientist, question(births), held(births, 2.0), epsilon=wrong)


def test_a_question_with_both_or_no_price_and_a_width_too_narrow_are_refused(people: People, births: Dataset) -> None:
    asked, grant = question(births), held(births, 2.0)
    for how in ({"epsilon": 0.5, "unit": 8.0}, {"epsilon": None}, {"unit": 1e-4}, {"unit": -1.0}):
        with pytest.raises(InvalidInputError):
            priced(people.scientist, asked, grant, **how)
    with pytest.raises(InvalidInputError, match=r"\.get\(\)"):
        priced(people.scientist, question(), grant)
    with pytest.raises(InvalidInputError):
        priced(people.scientist, question(births, clips=(0.0,)), grant)
    with pytest.raises(InvalidInputError):
        priced(people.scientist, question(births, grid=math.nan), grant)


def test_one_answer_has_the_limit_of_its_grant_or_the_default(people: People, births: Dataset) -> None:
    asked = question(births)
    with pytest.raises(LimitExceededError, match=r"at most epsilon=0\.5") as caught:
        priced(people.scientist, asked, held(births), epsilon=0.6)
    assert caught.value.details["limit"] == 0.5
    priced(people.scientist, asked, held(births), epsilon=0.5)
    with pytest.raises(LimitExceededError):
        priced(people.scientist, asked, held(births, 1.0), epsilon=1.01)
    priced(people.scientist, asked, held(births), held(births, 1.0, grant=2), epsilon=1.0)
    with pytest.raises(NotPermittedError):
        priced(people.stranger, asked)


def test_a_grant_is_used_up_by_all_who_share_it_and_by_nobody_else(people: People, births: Dataset) -> None:
    ask(people.scientist, births, "1", epsilon=1.0, allowed=1.0)
    pot = queries_pot()
    assert pot.spent <= pot.cap // 2, "an epsilon of 1.0 is half of a pot of 2.0, and one answer less"
    with pytest.raises(BudgetExhaustedError, match="left for you") as caught:
        ask(people.reviewer, births, "2", epsilon=1.0, allowed=1.0)
    assert 0 < caught.value.remaining < 1.0
    asked = question(births)
    price = priced(people.reviewer, asked, held(births, 1.0, grant=2), epsilon=1.0)
    charged(people.reviewer, asked, price, "of another grant")
    assert queries_pot().spent == 2 * pot.spent


def test_without_an_epsilon_in_the_grant_a_day_has_a_quarter_of_the_pot(people: People, births: Dataset) -> None:
    asked, when = question(births), NOW

    def spend() -> None:
        charged(people.scientist, asked, priced(people.scientist, asked, held(births), now=when), uuid4().hex, when)

    count, told = until_it_is_exhausted(spend)
    assert "today" in told.message
    used, pot = queries_pot().spent, queries_pot()
    one = used // count
    assert used <= pot.cap // 4 < used + one
    # It is another's day too, and tomorrow is another.
    other = priced(people.reviewer, asked, held(births))
    charged(people.reviewer, asked, other, "other")
    when = NOW + timedelta(days=1)
    spend()
    assert queries_pot().spent == used + 2 * one


def test_the_pot_is_everybody_s_and_is_never_overspent(people: People, births: Dataset) -> None:
    count, _ = until_it_is_exhausted(lambda: ask(people.scientist, births, uuid4().hex, epsilon=0.7))
    assert count > 3
    before = list(Release.objects.values()), queries_pot().spent, AuditEvent.objects.count()
    with pytest.raises(BudgetExhaustedError) as caught:
        ask(people.reviewer, births, "other", epsilon=0.7)
    assert caught.value.details == {"remaining": caught.value.remaining}
    assert (list(Release.objects.values()), queries_pot().spent, AuditEvent.objects.count()) == before
    assert queries_pot().spent <= queries_pot().cap


def test_the_same_key_is_the_same_answer_and_never_another(people: People, births: Dataset) -> None:
    first = ask(people.scientist, births, "once")
    assert ask(people.scientist, births, "once").pk == first.pk
    assert Release.objects.count() == 1
    with pytest.raises(ConflictError, match="another question"):
        ask(people.scientist, births, "once", program="b" * 64)
    assert ask(people.reviewer, births, "once").pk != first.pk, "a key is its user's own"
    for key in ("", "k" * 65):
        with pytest.raises(InvalidInputError):
            ask(people.scientist, births, key)


def test_the_price_of_one_question_does_not_buy_another(people: People, births: Dataset) -> None:
    cheap = priced(people.scientist, question(births), held(births, 2.0), epsilon=0.1)
    dear = question(births, clips=(9.0,))
    for price in (cheap, cheap._replace(charges=()), cheap._replace(unit=1.0)):
        with pytest.raises(InternalError):
            charged(people.scientist, dear, price, "k")
    assert not Release.objects.exists()


def test_what_is_rolled_back_was_not_charged(people: People, births: Dataset) -> None:
    asked = question(births)
    price = priced(people.scientist, asked, held(births, 2.0))
    with transaction.atomic():
        ledger.charge(people.scientist, asked, price, key="k", now=NOW)
        transaction.set_rollback(True)
    assert (queries_pot().spent, LedgerHead.objects.get().seq, Allowance.objects.count()) == (0, 0, 0)
    assert outside.problem() == ""
    with pytest.raises(transaction.TransactionManagementError):
        ledger.charge(people.scientist, asked, price, key="k", now=NOW)


def test_a_worker_that_was_thought_dead_cannot_keep_a_second_draw(people: People, births: Dataset) -> None:
    release = ask(people.scientist, births, "k")
    slow = ledger.attempt(release, now=NOW)
    fast = ledger.attempt(release, now=NOW)
    with pytest.raises(ConflictError, match="too late"):
        ledger.answered(release, slow, data=b"slow", dtype="float64", shape=[])
    kept = ledger.answered(release, fast, data=b"fast", dtype="float64", shape=[])
    assert (bytes(kept.data or b""), kept.state) == (b"fast", State.ANSWERED)
    with pytest.raises(ConflictError):
        ledger.answered(release, fast, data=b"again", dtype="float64", shape=[])
    with pytest.raises(ConflictError):
        ledger.attempt(release, now=NOW)


def test_an_answer_is_delivered_as_often_as_asked_and_kept(people: People, births: Dataset) -> None:
    release = ask(people.scientist, births, "k")
    with pytest.raises(ConflictError, match="not yet answered"):
        ledger.delivered(release)
    answer(release)
    for _ in range(3):
        done = ledger.delivered(release)
        assert (done.state, bytes(done.data or b""), done.dtype, done.shape) == (
            State.DELIVERED, b"12345678", "float64", [1],
        )  # fmt: skip
    assert Release.objects.get().state == State.DELIVERED


def test_a_failure_stays_charged_and_a_second_one_ends_automatic_answers(people: People, births: Dataset) -> None:
    for key in ("1", "2"):
        release = ask(people.scientist, births, key)
        spent = queries_pot().spent
        assert ledger.void(release, "The worker failed.").state == State.VOID
        assert queries_pot().spent == spent
        with pytest.raises(ConflictError):
            ledger.void(release, "Again.")
        with pytest.raises(ConflictError):
            ledger.attempt(release, now=NOW)
    with pytest.raises(NotPermittedError, match="failed 2 times"):
        ask(people.scientist, births, "3")
    ask(people.scientist, births, "4", program="b" * 64)
    assert [each.key for each in ledger.unanswered()] == ["4"]


def test_the_very_same_question_is_answered_from_the_store_and_no_other_is(people: People, births: Dataset) -> None:
    release = ask(people.scientist, births, "k", scale=1.0)
    asked, grant = question(births, scale=1.0), held(births, 2.0)
    price = priced(people.reviewer, asked, grant)
    assert ledger.stored(asked, price) is None
    answer(release)
    found = ledger.stored(asked, price)
    assert found is not None and found.pk == release.pk
    assert price.charges[0][1] > 0, "the price doesn't tell that somebody asked"
    others = [
        (question(births, scale=2.0), 0.5),
        (question(births, scale=1.0, clips=(1.5,)), 0.5),
        (question(births, scale=1.0, program="b" * 64), 0.5),
        (asked._replace(versions=((str(births.pk), 2),)), 0.5),
        (asked._replace(sizes=(2,)), 0.5),
        (asked, 0.4),
    ]
    for other, epsilon in others:
        assert ledger.stored(other, priced(people.reviewer, other, grant, epsilon=epsilon)) is None


def test_a_choice_is_charged_by_its_pure_epsilon(people: People, births: Dataset) -> None:
    asked = question(births)._replace(mechanism="argmax", clips=(), sizes=())
    price = priced(people.scientist, asked, held(births, 2.0), epsilon=0.5)
    pot = queries_pot()
    assert price.charges == ((pot.pk, accountant.argmax(pot.order, 0.5)),)
    charged(people.scientist, asked, price, "k")
    assert priced(people.scientist, asked, held(births, 2.0), epsilon=0.4).digest != price.digest
    with pytest.raises(InvalidInputError, match="no width"):
        priced(people.scientist, asked, held(births, 2.0), unit=1.0)


def test_people_see_their_allowance_and_what_is_left_for_all(people: People, births: Dataset) -> None:
    def seen(*grants: pricing.Held) -> pricing.Budget:
        return pricing.budget(people.scientist, births, grants=grants, now=NOW)

    fresh = seen(held(births, 1.0))
    assert (fresh.domain, fresh.epoch, fresh.epsilon, fresh.delta, fresh.limit) == ("default", 1, 2.0, 1e-6, 1.0)
    assert (fresh.allowance, fresh.remaining) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (fresh.left, fresh.used, fresh.spent, fresh.daily, fresh.frozen) == (2.0, 0.0, 0.0, False, "")
    price = priced(people.scientist, question(births), held(births, 1.0))
    ask(people.scientist, births, "k", allowed=1.0)
    ask(people.reviewer, births, "k", allowed=1.0)
    now = seen(held(births, 1.0))
    assert now.spent == pytest.approx(2.0 * price.share)
    assert now.used == pytest.approx(2 * now.spent), "a grant that two share is used by both"
    assert now.left == pytest.approx(2.0 - 2 * now.spent)
    default = seen(held(births))
    assert (default.daily, default.limit, default.allowance) == (True, 0.5, pytest.approx(0.5))
    assert price.more == 1 // (2 * price.share) and price.remaining == pytest.approx(1.0)
    with pytest.raises(NotPermittedError):
        seen()


def test_datasets_of_one_domain_are_one_person_s_data_and_charged_once(people: People, births: Dataset) -> None:
    other = publish(people.owner, name="Admissions")
    asked = question(births, other)
    price = priced(people.scientist, asked, held(births, 2.0), held(other, 1.0, grant=2))
    charged(people.scientist, asked, price, "k")
    ((pot, amount),) = price.charges
    assert Pot.objects.get(pk=pot).spent == amount
    assert set(Allowance.objects.values_list("payer", "used")) == {("grant:1", amount), ("grant:2", amount)}
    assert Placement.objects.count() == 2
    with pytest.raises(NotPermittedError):
        priced(people.scientist, asked, held(births, 2.0))


@pytest.mark.parametrize("rewrite", [
    lambda: Release.objects.update(digest="0" * 64),
    lambda: Release.objects.update(state=State.CHARGED, data=None, dtype="", shape=None),
    lambda: Release.objects.update(data=b"other"),
    lambda: Charge.objects.update(amount=1),
    lambda: Charge.objects.all().delete(),
    lambda: Allowance.objects.update(used=0),
    lambda: Pot.objects.update(spent=0),
    lambda: Pot.objects.filter(spent__gt=0).update(cap=2**60),
    lambda: LedgerHead.objects.update(seq=0),
    lambda: Pot.objects.update(spent=2**60),
])  # fmt: skip
def test_the_database_refuses_to_give_anything_back(people: People, births: Dataset, rewrite: Any) -> None:
    ledger.delivered(answer(ask(people.scientist, births, "k")))
    with pytest.raises((DatabaseError, GridError)):
        rewrite()


def test_each_deployment_signs_the_beginning_of_its_ledger_itself(settings: Any, tmp_path: Path) -> None:
    """All ledgers begin alike: a signature that another deployment made of that would freeze this one's budgets."""
    first = outside.signed(0, GENESIS)
    settings.GRID_KEYS_DIR = tmp_path / "another"
    second = outside.signed(0, GENESIS)
    assert first.hash == second.hash and first.signature != second.signature
    assert keys.verify(keys.public_key(), DOMAIN, GENESIS.encode(), second.signature)


@pytest.mark.parametrize("shared", ["a grant", "the pot"])
def test_those_who_are_charged_together_share_what_is_left(people: People, births: Dataset, shared: str) -> None:
    asking = []
    for number in range(30):
        asked = question(births, program=f"{number:064x}")
        allowed = held(births, 1.0) if shared == "a grant" else held(births, 2.0, number)
        price = priced(people.scientist, asked, allowed, epsilon=0.9)
        asking.append(Asking(people.scientist, asked, price, f"{number}"))
    with transaction.atomic():
        found = ledger.charge_all(asking, now=NOW)
    paid = [each for each in found if isinstance(each, Release)]
    assert 0 < len(paid) == asking[0].price.more < 30
    assert {type(each) for each in found[len(paid) :]} == {BudgetExhaustedError}
