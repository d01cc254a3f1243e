"""People who are charged each by itself: who contributes little is answered for longer, and nobody sees who isn't."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from apps.budgets import accounts, records
from apps.budgets.actions import confirm_epoch, open_block, place, propose_epoch
from apps.budgets.models import Domain, Release
from apps.budgets.pots import NANO
from apps.budgets.verification import verify
from apps.compute import keeping
from apps.compute.certificates import certificate
from apps.compute.models import KeptAnswers
from apps.compute.spending import FAILED
from apps.datasets.models import Dataset
from gridclient.wire.errors import BudgetExhaustedError, InternalError, InvalidInputError
from tests.factories.asker import Asker, number
from tests.factories.individuals import allow, charged, pot_of, publish, spent, town
from tests.factories.pages import page, signed_in, text
from tests.factories.people import People

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = range(600)
LOUD, QUIET = range(200), range(200, 600)
"""Rows of the first contribute the most that a row can (1 in 0 to 1, half of the range above its middle), those of the
others next to nothing."""
VALUES = [1.0] * len(LOUD) + [0.52] * len(QUIET)
TRUTH = sum(VALUES)
WITHOUT = TRUTH - 0.5 * len(LOUD)
"""Whoever is left out counts as the middle of the declared range."""
WIDE = 30.0
"""Far more than the noise of an answer at epsilon 1."""


@pytest.fixture
def domain(people: People) -> Domain:
    return town(people.owner)


@pytest.fixture
def visits(people: People, domain: Domain) -> Dataset:
    made = publish(people.owner, VALUES, PEOPLE, domain)
    allow(made, people.scientist, people.owner)
    return made


@pytest.fixture
def asker(people: People, tmp_path: Path) -> Asker:
    return Asker(people.scientist, tmp_path)


def until_some_may_be_left_out(asker: Asker, *datasets: Dataset) -> int:
    """Ask until the sum of worst cases is full; how many answers left nobody out."""
    for count in range(20):
        if asker.take(asker.total(*datasets, times=1 + count / 100)).receipt["may_exclude"]:  # type: ignore[index]
            return count
    raise AssertionError("It never ends.")


def test_who_contributes_little_is_answered_for_when_others_have_nothing_left(
    domain: Domain, visits: Dataset, asker: Asker
) -> None:
    assert number(asker.take(asker.total(visits, times=2.0))) == pytest.approx(2 * TRUTH, abs=2 * WIDE)
    assert until_some_may_be_left_out(asker, visits) == 2
    answer = asker.take(asker.total(visits, times=3.0))
    assert number(answer) == pytest.approx(3 * WITHOUT, abs=3 * WIDE)
    pot = pot_of(domain)
    assert (pot.uniform, pot.spent > pot.cap) == (0, True)
    amounts = spent(domain)
    worst = Release.objects.get(seq=1).charges.get().amount
    assert amounts[-len(LOUD) :] == [pytest.approx(3 * worst, rel=1e-6)] * len(LOUD)
    assert all(0 < amount < worst / 50 for amount in amounts[: len(QUIET)])
    assert amounts[-1] <= pot.cap
    assert verify().problem == ""


def test_a_person_has_one_account_in_all_datasets_of_the_domain(
    people: People, domain: Domain, visits: Dataset, asker: Asker
) -> None:
    """Deleted and published again, under another name and in another order: who had nothing left has nothing."""
    until_some_may_be_left_out(asker, visits)
    again = publish(people.owner, VALUES[::-1], PEOPLE[::-1], domain, name="Visits again")
    allow(again, people.scientist, people.owner)
    answer = asker.take(asker.total(again))
    assert number(answer) == pytest.approx(WITHOUT, abs=WIDE)
    assert len(spent(domain)) == len(PEOPLE)


def test_several_sums_are_charged_together(people: People, domain: Domain, visits: Dataset, asker: Asker) -> None:
    births = publish(people.owner, [1.0, 0.5], [0, 7_000], domain, name="Births")
    allow(births, people.scientist, people.owner)
    asker.take(asker.total(visits, births))
    worst, amounts = Release.objects.get().charges.get().amount, spent(domain)
    # Person 0 contributes the most to both sums, 7,000 the middle of the range, which is nothing.
    assert (amounts[-1], amounts[0]) == (pytest.approx(worst, rel=1e-6), 0)
    assert amounts[-2] == pytest.approx(worst / 2, rel=1e-6)
    assert len(amounts) == len(PEOPLE) + 1
    asker.take(asker.total(visits, visits))
    assert spent(domain)[-1] == pytest.approx(2 * worst, rel=1e-6), "of two sums over the same rows, too"


def test_a_choice_costs_everybody_alike_and_is_refused_when_some_may_have_nothing_left(
    domain: Domain, visits: Dataset, asker: Asker
) -> None:
    def choice(times: float) -> Any:
        x = asker.recorded("aten::mul.Tensor", asker.rows(visits), times)
        both = asker.recorded("aten::cat", [x, x], 1)
        return asker.recorded("aten::argmax", asker.recorded("aten::sum.dim_IntList", both, [0]))

    answer = asker.take(choice(1.0), 0.3)
    assert (answer.receipt or {})["may_exclude"] is False
    pot = pot_of(domain)
    assert pot.uniform == pot.spent == Release.objects.get().charges.get().amount
    assert until_some_may_be_left_out(asker, visits) == 2
    before = charged()
    with pytest.raises(BudgetExhaustedError, match="A choice costs everybody alike"):
        asker.take(choice(2.0), 0.3)
    assert charged() == before
    assert max(spent(domain)) + pot.uniform <= pot.cap
    assert verify().problem == ""


def test_the_console_says_what_was_charged_to_whom_and_that_somebody_may_be_left_out(
    people: People, domain: Domain, visits: Dataset, asker: Asker
) -> None:
    """The sum of worst cases passes what everybody was promised, and nobody was charged more than that."""
    client = signed_in(people, "owner")
    until_some_may_be_left_out(asker, visits)
    first, last = Release.objects.earliest("seq"), Release.objects.latest("seq")
    pot = text(client.get(f"{page(domain)}/change/"))
    assert "0 left for everybody of epsilon 2" in pot and "nobody more than 2" in pot and "spent, for which" not in pot
    charges = [text(client.get(f"{page(release)}/change/")) for release in (first, last)]
    assert ["Whom it may leave out" in shown for shown in charges] == [False, True]
    assert all("at most 0.6356 of 2 epsilon for each person" in shown for shown in charges)


def test_answers_that_may_leave_somebody_out_end_by_a_public_number(
    visits: Dataset, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MOST_BEYOND", 2)
    until_some_may_be_left_out(asker, visits)
    asker.take(asker.total(visits, times=5.0))
    with pytest.raises(BudgetExhaustedError, match="2 answers were given"):
        asker.take(asker.total(visits, times=6.0))


def test_nobody_takes_all_the_answers_that_are_left_in_a_day(
    people: People, visits: Dataset, asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may cost next to nothing, and their number is everybody's."""
    until_some_may_be_left_out(asker, visits)
    monkeypatch.setattr(accounts, "MOST_A_DAY", 2)
    asker.take(asker.total(visits, times=5.0))
    with pytest.raises(BudgetExhaustedError, match="tomorrow"):
        asker.take(asker.total(visits, times=6.0))
    allow(visits, people.reviewer, people.owner)
    colleague = Asker(people.reviewer, tmp_path / "colleague")
    colleague.folder.mkdir()
    colleague.take(colleague.total(visits, times=6.0))


def test_a_domain_whose_people_have_no_identifiers_cannot_charge_them_by_themselves(
    people: People, domain: Domain
) -> None:
    births = publish(people.owner, VALUES, None, None, name="Births")
    with pytest.raises(InvalidInputError, match="entities="):
        place(births, domain, by=people.owner)
    with pytest.raises(InvalidInputError, match="uniform, individual"):
        town(people.owner, "other", "generous")


def test_sums_of_several_pots_are_not_charged_to_accounts_of_one(
    people: People, domain: Domain, visits: Dataset, asker: Asker
) -> None:
    village = publish(people.owner, VALUES, PEOPLE, town(people.owner, "village", "uniform"), name="Village")
    allow(village, people.scientist, people.owner)
    with pytest.raises(InvalidInputError, match="'town' charges each person by itself"):
        asker.take(asker.total(visits, village))
    assert charged() == 0


def test_a_time_block_has_accounts_of_its_own(people: People, domain: Domain) -> None:
    village = town(people.owner, "village", "uniform")
    blocks = [open_block(each, "2026", epsilon_nano=NANO, by=people.owner) for each in (domain, village)]
    assert [block.uniform for block in blocks] == [0, None]


def test_what_was_sealed_is_on_the_disk_before_it_is_charged(
    visits: Dataset, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the commit must leave the record that the ledger names."""
    synced: list[int] = []
    real, commit, kept = os.fsync, transaction.Atomic.__exit__, []

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    def committed(self: Any, *given: Any) -> None:
        if not kept and Release.objects.exists():
            kept.extend(synced)
        commit(self, *given)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(transaction.Atomic, "__exit__", committed)
    asker.take(asker.total(visits))
    release = Release.objects.get()
    file = records.place(release.charges.get().pot_id, release.record)
    assert {file.stat().st_ino, file.parent.stat().st_ino} <= set(kept)


def test_a_seal_that_fails_is_charged_to_everybody_and_tells_one_text(
    domain: Domain, visits: Dataset, asker: Asker
) -> None:
    def fails(question: Any) -> None:
        if type(question).__name__ == "Seal":
            raise InternalError("a secret text")

    first = asker.total(visits)
    asker.before = fails
    with pytest.raises(InternalError) as caught:
        asker.take(first)
    assert caught.value.message == FAILED
    release, pot = Release.objects.get(), pot_of(domain)
    assert (release.state, release.record, pot.uniform) == ("void", "", pot.spent)
    assert KeptAnswers.objects.get().nbytes > keeping.ROW, "whoever lets a worker fail fills the ledger, too"
    asker.before = lambda question: None
    assert until_some_may_be_left_out(asker, visits) == 2
    asker.before = fails
    with pytest.raises(InternalError):
        asker.take(asker.total(visits, times=7.0))
    after, last = pot_of(domain), Release.objects.order_by("seq").last()
    assert after.uniform == pot.uniform, "more would be beyond what some people have left"
    assert last is not None and (last.state, last.may_exclude) == ("void", True)
    assert verify().problem == ""


def test_after_a_crash_the_same_people_take_part_as_were_charged(
    people: People, domain: Domain, visits: Dataset, asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_some_may_be_left_out(asker, visits)
    wanted = asker.total(visits, times=4.0)
    asker.die_before_the_draw(wanted, key="once")
    left = Release.objects.get(key="once")
    amounts = spent(domain)
    assert left.state == "charged"
    # Another answer is charged before the first one runs again.
    asker.take(asker.total(visits, times=8.0))
    asker.asked.clear()
    assert number(asker.take(wanted, key="once")) == pytest.approx(4 * WITHOUT, abs=4 * WIDE)
    assert asker.asked == ["Draw"]
    assert spent(domain) != amounts
    assert Release.objects.get(key="once").record == left.record
    assert verify().problem == ""


def test_an_answer_that_came_first_makes_the_other_seal_again(domain: Domain, visits: Dataset, asker: Asker) -> None:
    """Both on the same state of the pot would leave a person who can pay for one of them in both."""
    until_some_may_be_left_out(asker, visits)
    late = asker.total(visits, times=9.0)
    other = asker.total(visits, times=10.0)

    def overtakes(question: Any) -> None:
        if type(question).__name__ == "Seal":
            asker.before = lambda question: None
            asker.take(other)

    asker.before = overtakes
    asker.asked.clear()
    asker.take(late)
    assert asker.asked == ["Seal", "Seal", "Draw", "Seal", "Draw"]
    assert verify().problem == ""


def another_epoch(domain: Domain, people: People) -> None:
    confirm_epoch(propose_epoch(domain, reason="All was asked.", by=people.owner), by=people.reviewer)
    domain.refresh_from_db()


def test_what_was_sealed_for_one_epoch_is_sealed_anew_for_the_next(
    people: People, domain: Domain, visits: Dataset, asker: Asker
) -> None:
    """It numbers people as the old budget does: charged to the new one, nobody could be told there any more."""
    asker.take(asker.total(visits))
    wanted = asker.total(visits, times=2.0)

    def opens(question: Any) -> None:
        if type(question).__name__ == "Seal":
            asker.before = lambda question: None
            another_epoch(domain, people)

    asker.before = opens
    asker.asked.clear()
    asker.take(wanted)
    assert asker.asked == ["Seal", "Seal", "Draw"]
    asker.take(asker.total(visits, times=3.0))
    worst = Release.objects.get(seq=3).charges.get().amount
    assert spent(domain)[-1] == pytest.approx(2 * worst, rel=1e-6)
    assert verify().problem == ""


def test_an_answer_that_was_charged_is_drawn_after_another_epoch_began(
    people: People, domain: Domain, visits: Dataset, asker: Asker
) -> None:
    wanted = asker.total(visits)
    asker.die_before_the_draw(wanted, key="once")
    another_epoch(domain, people)
    assert number(asker.take(wanted, key="once")) == pytest.approx(TRUTH, abs=WIDE)
    assert charged() == 1


def test_a_record_that_was_never_charged_goes_and_all_others_stay(visits: Dataset, asker: Asker) -> None:
    asker.take(asker.total(visits))
    release = Release.objects.get()
    kept = records.place(release.charges.get().pot_id, release.record)
    stray = kept.with_name("0" * 64)
    stray.write_bytes(b"never charged")
    assert records.remove_orphans() == 1
    assert (kept.exists(), stray.exists()) == (True, False)


def test_records_that_are_missing_or_were_changed_are_found_out(visits: Dataset, asker: Asker) -> None:
    asker.take(asker.total(visits))
    release = Release.objects.get()
    file = records.place(release.charges.get().pot_id, release.record)
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "was changed" in verify().problem
    file.unlink()
    assert "missing" in verify().problem
    file.write_bytes(data)
    assert verify().problem == ""


def test_a_certificate_says_how_people_were_charged_and_that_some_may_be_left_out(
    people: People, visits: Dataset, asker: Asker
) -> None:
    until_some_may_be_left_out(asker, visits)
    found = [certificate(row, to=people.scientist) for row in Release.objects.order_by("seq")]
    assert [each["may_exclude"] for each in found] == [False, False, False, True]
    assert {each["accounting"] for each in found} == {"individual"}
    assert "record" not in found[0]
