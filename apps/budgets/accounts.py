"""Pots that charge each entity what it contributed: what a release is booked as, and what must be sealed before.

`spent` is the sum of what every answer could cost an entity at most. As long as another one fits below what is released
of the cap, nobody can be exhausted: each was charged no more than that. Beyond, whoever is, is left out, silently; all
that is public is that this may be so. Feldman and Zrnic 2021, individual Renyi filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from apps.accounts.models import User
from apps.budgets import records
from apps.budgets.accountant import GAUSSIAN
from apps.budgets.models import Pot, Release
from apps.budgets.pricing import DAILY_PARTS, Price, Question
from apps.budgets.records import Sealed
from gridclient.wire.errors import BudgetExhaustedError, InternalError

MOST_BEYOND = 1_000
"""Answers from one pot that may leave somebody out. Public: what ends the questions must not be who is left."""
MOST_A_DAY = MOST_BEYOND // DAILY_PARTS
"""Of these, for each account and day (in UTC): however little they cost, nobody takes them all overnight."""


class Booked(NamedTuple):
    """`uniform`: what everybody is charged alike; `sealed`: what each entity is charged."""

    uniform: int
    sealed: Sealed | None
    may_exclude: bool


class Unsealed(Exception):
    """What a release costs each entity must be computed, on this state of the pot, before it can be charged.

    `limit`: the most that one may be charged in all; `worst`: the most that it costs one; `tested`: whether somebody
    may have too little left for that.
    """

    def __init__(self, pot: Pot, limit: int, worst: int, *, tested: bool) -> None:
        super().__init__()
        self.pot, self.limit, self.worst, self.tested = pot, limit, worst, tested


def booked(
    user: User, pots: Mapping[int, Pot], question: Question, price: Price, sealed: Sealed | None, *,
    failed: bool, now: datetime,
) -> Booked:  # fmt: skip
    """How a release is booked that its allowances pay for. Raises Unsealed, BudgetExhaustedError."""
    if all(pot.uniform is None for pot in pots.values()):
        return Booked(0, None, False)
    if len(pots) > 1:
        raise InternalError("Several pots of which one has accounts of its entities were to be charged together.")
    (pot,) = pots.values()
    worst = price.charges[0][1]
    beyond = worst > pot.left(now)
    if question.mechanism != GAUSSIAN:
        if beyond:
            raise BudgetExhaustedError(
                "A choice costs everybody alike, and for some people so much may not be left. Sums, means and counts "
                "are still answered, without whoever has too little left.",
                remaining=pot.as_epsilon(pot.left(now)),
            )
        return Booked(worst, None, False)
    if beyond:
        _check_number(user, pot, now)
    if failed:
        # Who would have been left out, nobody knows: a charge to everybody could be more than somebody has.
        return Booked(0 if beyond else worst, None, beyond)
    if sealed is None or _stale(sealed, pot, worst) or (beyond and not sealed.tested):
        raise Unsealed(pot, pot.available(now), worst, tested=beyond)
    return Booked(0, sealed, sealed.tested)


def _stale(sealed: Sealed, pot: Pot, worst: int) -> bool:
    """Whether the pot is another one since (an epoch began: it numbers its entities anew), promises something else, or
    was charged what the record had to know of. Or the file is gone: a process that starts removes what no release
    names, be it that its transaction was undone for another's sake."""
    if (sealed.pot, sealed.worst) != (pot.id, worst) or not records.there(sealed):
        return True
    return (sealed.tested or sealed.alone) and sealed.header != pot.spent


def _check_number(user: User, pot: Pot, now: datetime) -> None:
    """Raise BudgetExhaustedError where no more answers are given that may leave somebody out."""
    given = Release.objects.filter(charges__pot=pot.id, may_exclude=True)
    if given.count() >= MOST_BEYOND:
        raise BudgetExhaustedError(
            f"{MOST_BEYOND:,} answers were given since there may be people with nothing left: that is all of this "
            "budget. Its owners can open another epoch.",
            remaining=0.0,
        )
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if given.filter(user=user, at__gte=day).count() >= MOST_A_DAY:
        raise BudgetExhaustedError(
            f"There may be people with nothing left, and {MOST_A_DAY} such answers a day are what an account gets. Ask "
            "again tomorrow.",
            remaining=0.0,
        )


def log(pot: int) -> list[str]:
    """The records that count, in the order of the ledger."""
    found = Release.objects.filter(charges__pot=pot).exclude(record="")
    return list(found.order_by("seq").values_list("record", flat=True))
