"""Whatever people ask, in whatever order: the cap is never passed, the books add up, nothing is drawn or paid twice."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import TestCase
from django.test.utils import override_settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from apps.accounts.models import User
from apps.budgets import actions, ledger, outside
from apps.budgets.books import Asking
from apps.budgets.models import Domain, Pot, Release
from apps.budgets.pricing import Price
from apps.budgets.verification import verify
from apps.datasets.models import Dataset
from gridclient.wire.errors import BudgetExhaustedError, ConflictError, GridError, LimitExceededError
from tests.factories.budgets import NOW, held, priced, question
from tests.factories.people import People
from tests.factories.queue import publish

EPSILONS = [0.1, 0.5, 0.9, 2.0]
GRANTS = [None, 0.5, 1.0, 2.0]
QUESTIONS = st.fixed_dictionaries(
    {
        "who": st.sampled_from(["scientist", "reviewer"]),
        "which": st.sets(st.integers(0, 2), min_size=1),
        "epsilon": st.sampled_from(EPSILONS),
        "grant": st.integers(0, 3),
        "key": st.sampled_from("abcdefgh"),
        "program": st.sampled_from("xy"),
    }
)
STATES = {"charged", "answered", "delivered", "void"}


class Books(RuleBasedStateMachine):
    """The ledger beside a model of it: what each pot and each allowance gave, and what became of each release."""

    people: People
    datasets: tuple[Dataset, ...]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.keys = override_settings(GRID_KEYS_DIR=Path(self.folder.name), GRID_STORAGE_DIR=Path(self.folder.name))
        self.keys.enable()
        self.example = transaction.atomic()
        self.example.__enter__()
        self.now = NOW
        self.spent: Counter[int] = Counter()
        self.used: Counter[tuple[int, str, str]] = Counter()
        self.keyed: dict[tuple[UUID, str], tuple[UUID | None, str]] = {}
        self.state: dict[UUID, tuple[str, int, bytes]] = {}
        self.older = b""

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)
        connection.run_on_commit.clear()
        self.keys.disable()
        self.folder.cleanup()

    def committed(self, function: Any, *args: Any, **named: Any) -> Any:
        """Run a verb as if its transaction were committed, with what follows a commit."""
        with TestCase.captureOnCommitCallbacks(execute=True), transaction.atomic():
            return function(*args, **named)

    def model_room(self, price: Price) -> bool:
        """Whether the model has room for a price, and who pays by it."""
        amounts = dict(price.charges)
        paying: dict[tuple[int, str, str], int] = {}
        for candidates in price.payers:
            for payer in candidates:
                name = (payer.pot, payer.key, payer.period(self.now))
                cap, amount = Pot.objects.get(pk=payer.pot).cap, amounts[payer.pot]
                if self.used[name] + amount <= payer.most and self.spent[payer.pot] + amount <= cap:
                    paying[name] = amount
                    break
            else:
                return False
        self.spent.update(amounts)
        self.used.update(paying)
        return True

    @rule(questions=st.lists(QUESTIONS, min_size=1, max_size=6))
    def ask(self, questions: list[dict[str, Any]]) -> None:
        """Several at the same time: priced before any of them is charged, and charged together."""
        asking = [each for each in map(self.priced, questions) if each is not None]
        expected = [self.outcome(each) for each in asking]
        found = self.committed(ledger.charge_all, asking, now=self.now) if asking else []
        for each, outcome, release in zip(asking, expected, found, strict=True):
            if isinstance(outcome, type):
                assert type(release) is outcome, release
                continue
            known = self.keyed[each.user.pk, each.key]
            if known[0] is None:
                self.keyed[each.user.pk, each.key] = (release.pk, each.price.digest)
                self.state[release.pk] = ("charged", 0, b"")
            else:
                assert release.pk == known[0]

    def priced(self, asked: dict[str, Any]) -> Asking | None:
        """What is asked with its price; None where that is refused, as it must be."""
        user: User = getattr(self.people, asked["who"])
        which, program, epsilon, grant = (asked[name] for name in ("which", "program", "epsilon", "grant"))
        told = question(*(self.datasets[each] for each in sorted(which)), program=program * 64)
        grants = [held(self.datasets[each], GRANTS[grant], grant) for each in which]
        failed = sum(state[0] == "void" and asked_of == program * 64 for asked_of, state in self._programs())
        try:
            return Asking(user, told, priced(user, told, *grants, epsilon=epsilon, now=self.now), asked["key"])
        except LimitExceededError:
            assert epsilon > (GRANTS[grant] or 0.5)
        except GridError:
            assert failed >= 2
        return None

    def outcome(self, asking: Asking) -> type[GridError] | None:
        """The refusal that the model gives, in the order of the group; None where it charges, or did before."""
        name = asking.user.pk, asking.key
        if name in self.keyed:
            return None if self.keyed[name][1] == asking.price.digest else ConflictError
        if not self.model_room(asking.price):
            return BudgetExhaustedError
        self.keyed[name] = (None, asking.price.digest)
        return None

    def _programs(self) -> list[tuple[str, tuple[str, int, bytes]]]:
        return [(row.program, self.state[row.pk]) for row in Release.objects.only("program")]

    def one(self, number: int) -> tuple[Release, tuple[str, int, bytes]]:
        key = list(self.state)[number % len(self.state)]
        return Release.objects.get(pk=key), self.state[key]

    @precondition(lambda self: self.state)
    @rule(number=st.integers(0, 50))
    def attempt(self, number: int) -> None:
        release, (state, attempts, data) = self.one(number)
        if state == "charged":
            assert ledger.attempt(release, now=release.at) == attempts + 1
            self.state[release.pk] = (state, attempts + 1, data)
        else:
            with pytest.raises(ConflictError):
                ledger.attempt(release, now=release.at)

    @precondition(lambda self: self.state)
    @rule(number=st.integers(0, 50), late=st.integers(0, 1), data=st.binary(max_size=3))
    def answered(self, number: int, late: int, data: bytes) -> None:
        release, (state, attempts, _) = self.one(number)
        if state == "charged" and attempts and not late:
            ledger.answered(release, attempts, data=data, dtype="uint8", shape=[len(data)])
            self.state[release.pk] = ("answered", attempts, data)
        else:
            with pytest.raises(ConflictError):
                ledger.answered(release, attempts - late, data=data, dtype="uint8", shape=[]) if attempts else (
                    ledger.answered(release, 99, data=data, dtype="uint8", shape=[])
                )

    @precondition(lambda self: self.state)
    @rule(number=st.integers(0, 50))
    def delivered(self, number: int) -> None:
        release, (state, attempts, data) = self.one(number)
        if state in ("answered", "delivered"):
            assert bytes(ledger.delivered(release).data or b"") == data
            self.state[release.pk] = ("delivered", attempts, data)
        else:
            with pytest.raises(ConflictError):
                ledger.delivered(release)

    @precondition(lambda self: self.state)
    @rule(number=st.integers(0, 50))
    def void(self, number: int) -> None:
        release, (state, attempts, data) = self.one(number)
        if state == "charged":
            self.committed(ledger.void, release, "It failed.")
            self.state[release.pk] = ("void", attempts, data)
        else:
            with pytest.raises(ConflictError):
                self.committed(ledger.void, release, "It failed.")

    @rule()
    def a_day_passes(self) -> None:
        self.now += timedelta(days=1)

    @rule()
    def a_new_epoch(self) -> None:
        domain = Domain.objects.get(slug="default")
        proposal = self.committed(actions.propose_epoch, domain, reason="A study.", by=self.people.owner)
        self.committed(actions.confirm_epoch, proposal, by=self.people.reviewer)

    @rule()
    def the_outside_head_is_remembered(self) -> None:
        self.older = outside.FILE.path().read_bytes() if outside.FILE.path().exists() else b""

    @precondition(lambda self: self.older)
    @rule()
    def a_crash_before_the_outside_head_moved(self) -> None:
        outside.FILE.path().write_bytes(self.older)
        outside._on_disk.clear()
        assert outside.at_start() == ""

    @invariant()
    def the_books_add_up(self) -> None:
        for pot in Pot.objects.all():
            assert pot.spent == self.spent[pot.pk] <= pot.cap
        rows = {row.pk: (row.state, row.attempt, bytes(row.data or b"")) for row in Release.objects.all()}
        assert rows == self.state
        assert verify().problem == ""


@pytest.mark.django_db
def test_the_cap_is_never_passed_and_the_books_add_up(people: People) -> None:
    town = actions.open_domain("town", statement="Others.", by=people.owner)
    datasets = tuple(publish(people.owner, name=name) for name in ("Births", "Admissions", "Town"))
    actions.place(datasets[2], town, by=people.owner)

    class OfThese(Books):
        pass

    OfThese.people, OfThese.datasets = people, datasets
    run_state_machine_as_test(OfThese, settings=settings(max_examples=20, stateful_step_count=25, deadline=None))
