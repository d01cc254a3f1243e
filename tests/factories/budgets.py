"""Questions and what pays for them, without programs or workers: the ledger knows neither."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.budgets import ledger, pricing
from apps.budgets.models import Pot, Release
from apps.budgets.pots import NANO
from apps.budgets.pricing import Held, Price, Question
from apps.datasets.models import Dataset

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def question(
    *datasets: Dataset, program: str = "a" * 64, clips: tuple[float, ...] = (1.0,), **details: Any
) -> Question:
    """A sum over these datasets."""
    return Question(
        program=program,
        versions=tuple((str(dataset.pk), 1) for dataset in datasets),
        mechanism="gaussian",
        sizes=(1,) * len(clips),
        clips=clips,
        details={"entities": [1_000] * len(clips), **details},
    )


def held(dataset: Dataset, epsilon: float | None = None, grant: int | None = 1) -> Held:
    """A grant with this epsilon; without one: the defaults."""
    return Held(str(dataset.pk), grant, None if epsilon is None else round(epsilon * NANO))


def priced(user: User, asked: Question, *grants: Held, now: datetime = NOW, **how: Any) -> Price:
    """The price of a question, at epsilon 0.5 unless something else is said."""
    return pricing.price(user, asked, grants=grants, now=now, **(how or {"epsilon": 0.5}))


def charged(user: User, asked: Question, price: Price, key: str, now: datetime = NOW) -> Release:
    """Charge in a transaction of its own."""
    with transaction.atomic():
        return ledger.charge(user, asked, price, key=key.replace(" ", "-"), now=now)


def ask(
    user: User, dataset: Dataset, key: str, *, epsilon: float = 0.5, allowed: float = 2.0, grant: int = 1, **more: Any
) -> Release:
    """Price and charge a question about a dataset, on a grant of `allowed`."""
    asked = question(dataset, **more)
    return charged(user, asked, priced(user, asked, held(dataset, allowed, grant), epsilon=epsilon), key)


def answer(release: Release, value: bytes = b"12345678") -> Release:
    """Let a worker answer it."""
    return ledger.answered(release, ledger.attempt(release, now=release.at), data=value, dtype="float64", shape=[1])


def queries_pot() -> Pot:
    """The default domain's pot of questions, as it is now."""
    return Pot.objects.select_related("domain").get(domain__slug="default", epoch=1, kind="queries", block="")
