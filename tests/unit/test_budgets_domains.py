"""A person's budget is one, whatever is published of them; more of it takes time, or two people and a reason."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from uuid import uuid4

import pytest

from apps.audit.models import AuditEvent
from apps.budgets import accountant, actions, ledger, outside, pricing
from apps.budgets.models import Domain, Placement, Pot
from apps.budgets.policies import can_open_epochs
from apps.budgets.pots import ENTITIES, NANO
from apps.core.heads import Head
from apps.datasets.models import Dataset
from gridclient.wire.errors import (
    BudgetExhaustedError,
    ConflictError,
    InvalidInputError,
    NotPermittedError,
    PublishNotPermittedError,
)
from tests.factories.budgets import NOW, answer, ask, charged, held, priced, queries_pot, question
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def default() -> Domain:
    return Domain.objects.get(slug="default")


def test_a_new_node_has_one_domain_with_the_budgets_that_the_documentation_states() -> None:
    domain = Domain.objects.get()
    pots = {pot.kind: pot for pot in Pot.objects.all()}
    assert (domain.slug, domain.epoch, domain.entities, domain.frozen) == ("default", 1, ENTITIES, "")
    assert {kind: (pot.epsilon, pot.delta) for kind, pot in pots.items()} == {
        "queries": (2.0, 1e-6), "training": (3.0, 1e-6),
    }  # fmt: skip
    assert float(pots["queries"].order) == accountant.order_of(2.0, 1e-6)
    assert pots["training"].order.denominator == 1
    for pot in pots.values():
        assert pot.cap == accountant.cap(Fraction(pot.epsilon_nano, NANO), Fraction(1, 10**6), pot.order)


def test_a_large_population_has_a_smaller_delta(people: People) -> None:
    domain = actions.open_domain("town", statement="Others.", entities=3_000_000, by=people.owner, now=NOW)
    assert {pot.delta_atto for pot in domain.pots.all()} == {10**18 // 30_000_000}


def test_other_people_are_a_statement_of_the_owner_with_a_reason_on_record(people: People, births: Dataset) -> None:
    for who in (people.scientist, people.stranger):
        with pytest.raises(PublishNotPermittedError):
            actions.open_domain("town", statement="Others.", by=who)
    for slug, statement in [("town", " "), ("Town!", "Others."), ("", "Others.")]:
        with pytest.raises(InvalidInputError):
            actions.open_domain(slug, statement=statement, by=people.owner)
    with pytest.raises(InvalidInputError):
        actions.open_domain("town", statement="Others.", entities=0, by=people.owner)
    town = actions.open_domain("town", statement="No patient lives there.", by=people.owner, now=NOW)
    with pytest.raises(ConflictError):
        actions.open_domain("town", statement="Again.", by=people.owner)
    with pytest.raises(NotPermittedError):
        actions.place(births, town, by=people.other_owner)
    actions.place(births, town, by=people.owner, now=NOW)
    events = AuditEvent.objects.filter(verb__in=["domain_opened", "dataset_placed"]).order_by("seq")
    assert [event.payload["statement"] for event in events if event.payload] == ["No patient lives there."] * 2
    ask(people.scientist, births, "k")
    assert queries_pot().spent == 0
    assert town.pots.get(kind="queries").spent > 0


def test_who_published_again_or_chose_another_domain_has_no_fresh_budget(people: People, births: Dataset) -> None:
    ask(people.scientist, births, "k")
    spent = queries_pot().spent
    town = actions.open_domain("town", statement="Others.", by=people.owner)
    with pytest.raises(ConflictError, match="it stays"):
        actions.place(births, town, by=people.owner)
    again = publish(people.owner, name="Births again")
    ask(people.scientist, again, "again")
    assert queries_pot().spent == 2 * spent
    third = publish(people.owner, name="Births once more")
    actions.place(third, town, by=people.owner)
    with pytest.raises(ConflictError):
        actions.place(third, default(), by=people.owner)


def test_people_of_two_domains_pay_from_both_or_from_none(people: People, births: Dataset) -> None:
    town = actions.open_domain("town", statement="Others.", by=people.owner)
    other = publish(people.owner, name="Town")
    actions.place(other, town, by=people.owner)
    asked, grants = question(births, other), (held(births, 2.0), held(other, 0.2, grant=2))
    price = priced(people.scientist, asked, *grants, epsilon=0.2)
    assert [pot for pot, _ in price.charges] == sorted(pot for pot, _ in price.charges) and len(price.charges) == 2
    assert price.remaining == pytest.approx(0.2)
    for number in range(price.more):
        charged(people.scientist, asked, price, f"{number}")
    before = list(Pot.objects.values_list("pk", "spent"))
    with pytest.raises(BudgetExhaustedError):
        charged(people.scientist, asked, price, "too much")
    assert list(Pot.objects.values_list("pk", "spent")) == before


def test_a_pot_is_set_before_its_first_use_and_never_after(people: People, births: Dataset) -> None:
    pot = queries_pot()
    with pytest.raises(NotPermittedError):
        actions.set_pot(pot, epsilon_nano=NANO, by=people.scientist)
    for wrong in (0, 1, 101 * NANO):
        with pytest.raises(InvalidInputError):
            actions.set_pot(pot, epsilon_nano=wrong, by=people.owner)
    fresh = actions.set_pot(pot, epsilon_nano=NANO, by=people.owner)
    assert (fresh.epsilon, float(fresh.order)) == (1.0, accountant.order_of(1.0, 1e-6))
    ask(people.scientist, births, "k")
    with pytest.raises(ConflictError, match="stays"):
        actions.set_pot(pot, epsilon_nano=8 * NANO, by=people.owner)


def test_a_training_pot_has_the_order_of_the_run_that_is_planned(people: People, births: Dataset) -> None:
    pot = Pot.objects.select_related("domain").get(kind="training")
    planned = actions.set_pot(pot, epsilon_nano=NANO, planned=(0.01, 4.0), by=people.owner)
    assert planned.order == accountant.training_order(1.0, 1e-6, rate=0.01, noise=4.0)


def test_a_lifetime_budget_can_be_released_year_by_year(people: People, births: Dataset) -> None:
    with pytest.raises(InvalidInputError, match="each year"):
        actions.set_pot(queries_pot(), epsilon_nano=2 * NANO, year_nano=3 * NANO, by=people.owner)
    pot = actions.set_pot(queries_pot(), epsilon_nano=2 * NANO, year_nano=NANO // 2, by=people.owner)
    asked = question(births)

    def spend(years: int) -> int:
        when, count = pot.opened + timedelta(days=365 * years), 0
        while True:
            price = priced(people.scientist, asked, held(births, 2.0))
            try:
                charged(people.scientist, asked, price, uuid4().hex, when)
            except BudgetExhaustedError:
                return count
            count += 1

    first = spend(0)
    assert first >= 1 and queries_pot().spent <= pot.cap // 4
    assert spend(0) == 0
    assert spend(1) >= 1 and queries_pot().spent <= pot.cap // 2
    spend(9)
    assert 0.9 * pot.cap < queries_pot().spent <= pot.cap


def test_each_time_block_pays_for_itself(people: People, births: Dataset) -> None:
    for who, block in [(people.scientist, "2026-11"), (people.owner, "")]:
        with pytest.raises((PublishNotPermittedError, InvalidInputError)):
            actions.open_block(default(), block, epsilon_nano=NANO, by=who)
    november = actions.open_block(default(), "2026-11", epsilon_nano=NANO, by=people.owner)
    with pytest.raises(ConflictError):
        actions.open_block(default(), "2026-11", epsilon_nano=NANO, by=people.owner)
    with pytest.raises(InvalidInputError, match="no time block"):
        actions.place(births, default(), block="2026-12", by=people.owner)
    actions.place(births, default(), block="2026-11", by=people.owner)
    ask(people.scientist, births, "k")
    november.refresh_from_db()
    assert november.spent > 0 and queries_pot().spent == 0


def test_a_new_epoch_takes_two_people_who_may(people: People, births: Dataset) -> None:
    ask(people.scientist, births, "old")
    allowed = {name: can_open_epochs(getattr(people, name), default()) for name in people.__dataclass_fields__}
    assert {name for name, may in allowed.items() if may} == {"owner", "reviewer"}
    with pytest.raises(NotPermittedError):
        actions.propose_epoch(default(), reason="The study goes on.", by=people.scientist)
    with pytest.raises(InvalidInputError):
        actions.propose_epoch(default(), reason=" ", by=people.owner)
    proposal = actions.propose_epoch(default(), reason="The study goes on.", entities=10**6, by=people.owner)
    with pytest.raises(ConflictError):
        actions.propose_epoch(default(), reason="Twice.", by=people.reviewer)
    for who in (people.owner, people.stranger):
        with pytest.raises(NotPermittedError):
            actions.confirm_epoch(proposal, by=who)
    asked = question(births)
    stale = priced(people.scientist, asked, held(births, 2.0))
    domain = actions.confirm_epoch(proposal, by=people.reviewer)
    assert (domain.epoch, domain.entities) == (2, 10**6)
    with pytest.raises(ConflictError):
        actions.confirm_epoch(proposal, by=people.reviewer)
    fresh = domain.pots.get(epoch=2, kind="queries")
    assert (fresh.spent, fresh.epsilon, fresh.delta_atto) == (0, 2.0, 10**11)
    with pytest.raises(ConflictError, match="ask again"):
        charged(people.scientist, asked, stale, "new")
    ask(people.scientist, births, "new")
    fresh.refresh_from_db()
    assert fresh.spent > 0 and queries_pot().spent > 0, "what was promised adds up"
    event = AuditEvent.objects.get(verb="epoch_opened")
    assert event.payload is not None and (event.actor_name, event.payload["proposed_by"]) == ("reviewer", "owner")


def test_a_ledger_without_its_head_is_frozen_until_two_people_open_each_domain(people: People, births: Dataset) -> None:
    town = actions.open_domain("town", statement="Others.", by=people.owner)
    done = answer(ask(people.scientist, births, "done"))
    open_ = answer(ask(people.scientist, births, "open"))
    ledger.delivered(done)
    outside.FILE.anchor(Head(9, "f" * 64, "0" * 128))  # as if seven more had been answered by what is gone
    asked = question(births)
    price = priced(people.scientist, asked, held(births, 2.0))
    with pytest.raises(ConflictError, match="frozen"):
        charged(people.scientist, asked, price, "k")
    with pytest.raises(ConflictError, match="frozen"):
        ledger.delivered(open_)
    assert "names release 9" in outside.at_start()
    assert set(Domain.objects.exclude(frozen="").values_list("slug", flat=True)) == {"default", "town"}
    with pytest.raises(ConflictError, match="frozen"):
        priced(people.scientist, asked, held(births, 2.0))
    assert pricing.budget(people.scientist, births, grants=[held(births, 2.0)], now=NOW).frozen

    proposal = actions.propose_epoch(default(), reason="Backup of Monday.", by=people.owner)
    actions.confirm_epoch(proposal, by=people.reviewer)
    assert outside.problem() == ""
    ask(people.scientist, births, "new")
    assert list(Domain.objects.exclude(frozen="").values_list("slug", flat=True)) == ["town"]
    event = AuditEvent.objects.get(verb="epoch_opened")
    assert event.payload is not None and event.payload["lost"]["seq"] == 9
    assert Placement.objects.count() == 1 and town.pots.count() == 2


def test_a_lost_head_file_stops_the_ledger_and_an_empty_one_begins_it(people: People, births: Dataset) -> None:
    assert outside.problem() == ""
    ask(people.scientist, births, "k")
    content = outside.FILE.path().read_bytes()
    outside.FILE.path().unlink()
    with pytest.raises(ConflictError, match="frozen"):
        ask(people.scientist, births, "k2")
    assert "missing" in outside.at_start()
    # Keys that were not mounted come back: nothing was lost.
    outside.FILE.path().write_bytes(content)
    ask(people.scientist, births, "k2")
    assert outside.problem() == ""


def test_a_head_that_a_crash_left_behind_is_brought_forward(people: People, births: Dataset) -> None:
    ask(people.scientist, births, "1")
    behind = outside.FILE.path().read_bytes()
    last = ask(people.scientist, births, "2")
    outside.FILE.path().write_bytes(behind)
    assert outside.at_start() == ""
    assert outside.FILE.read() == outside.signed(last.seq, last.hash)
