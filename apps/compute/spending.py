"""The price of a private answer in the web process: from what the worker weighed, the pots, and the caller's grants."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction

from apps.accounts.models import User
from apps.accounts.once import checked_key
from apps.accounts.queries import user_of_live_token
from apps.audit.actions import lock_log, record
from apps.audit.verbs import Verb
from apps.budgets import ledger, pricing, records
from apps.budgets.accountant import ARGMAX
from apps.budgets.accounts import Unsealed, log
from apps.budgets.books import Asking
from apps.budgets.models import Domain, Release
from apps.budgets.pricing import Held, Price, Question
from apps.budgets.records import Sealed
from apps.budgets.states import State
from apps.compute import keeping
from apps.compute.mechanism import mechanism
from apps.compute.messages import Account, Weighed
from apps.core.clock import now as moment
from apps.core.database import Together
from apps.datasets.models import Dataset
from apps.permissions.models import Grant
from apps.permissions.policies import Ask, Input, release_grants
from gridclient.wire.errors import ConflictError, GridError, InternalError, InvalidInputError, TooNoisyError

Z_95 = 1.959963984540054
FAILED = "This answer failed after it was charged, and stays charged: nobody can tell whether it left. Ask the owner."
"""The same for every reason: a failure must not tell anything about private values."""


class Wanted(NamedTuple):
    """A private answer at `epsilon`, or with noise of at most `within` in 95 of 100 answers."""

    epsilon: float | None = None
    within: float | None = None


class Demand(NamedTuple):
    """Whoever has this token wants an answer. `sealed`: what it costs each person, where that is charged."""

    token: int
    weighed: Weighed
    wanted: Wanted
    key: str
    sealed: Sealed | None = None


class Quote(NamedTuple):
    """What is asked, what it takes, and how noisy it is: `sigma`, `within_95` of its noisiest number."""

    question: Question
    price: Price
    sigma: float
    within_95: float
    of_range: float

    def words(self) -> dict[str, float]:
        """As `.estimate` shows it."""
        price = self.price
        return {
            "cost": price.cost,
            "remaining": price.remaining,
            "epsilon": price.epsilon,
            "delta": price.delta,
            "sigma": self.sigma,
            "within_95": self.within_95,
            "of_range": self.of_range,
        }

    def check_says_something(self) -> None:
        """Raise TooNoisyError where the noise would be wider than the declared half-range."""
        if self.of_range > 1:
            raise TooNoisyError(
                f"95 of 100 answers would be within ±{self.within_95:.3g}, which is {self.of_range:.2g} times half of "
                "the range that the declared bounds leave for this answer: it would say nothing, and nothing was "
                "charged. What helps: a larger epsilon, more people, tighter bounds (torch.clamp(x, low, high)), or "
                "fewer numbers in one answer.",
                estimate=self.words(),
            )


class Bill(NamedTuple):
    """A release that is paid for, or was; `unit`: the noise of each sum, as a multiple of its clip.

    `record`: the file that says who takes part; "": everybody does. `people`: as of `expected`.
    """

    release: Release
    unit: float
    receipt: dict[str, Any]
    record: str
    people: int


class Order(NamedTuple):
    """Nothing is paid for yet: a worker must seal first what it costs each person. `pot`, `header`: as of `Sealed`."""

    account: Account
    unit: float
    pot: int
    header: int
    people: int


def quote(user: User, weighed: Weighed, wanted: Wanted, *, now: datetime | None = None) -> Quote:
    """Price a private answer. Raises GetNotPermittedError without a `release` grant on every dataset in it,
    InvalidInputError for an epsilon that is none, BudgetExhaustedError where no allowance is left for it."""
    now = now or moment()
    inputs = [Input(entry.dataset, entry.version, entry.columns) for entry in weighed.inputs]
    ask = Ask("agg", inputs, program_hash=weighed.program_hash)
    grants = release_grants(user, ask, now=now)
    if wanted.epsilon is None and wanted.within is None:
        raise InvalidInputError("Say epsilon=..., such as 0.5, or within=...: the noise that is allowed.")
    spread, choice = max(weighed.spread, default=0.0), weighed.mechanism == ARGMAX
    unit = None
    if wanted.within is not None:
        if not 0 < wanted.within < math.inf or not spread:
            raise InvalidInputError("within is a positive number, in the units of the answer.")
        unit = wanted.within / (Z_95 * spread)
    question = Question(
        program=weighed.program_hash,
        versions=tuple(sorted((entry.dataset, entry.version) for entry in weighed.inputs)),
        mechanism=weighed.mechanism,
        sizes=tuple(weighed.sizes),
        clips=() if choice else tuple(weighed.clips),
        details={"entities": weighed.entities, "shape": weighed.shape} | ({"clips": weighed.clips} if choice else {}),
    )
    held = [_held(dataset, grant) for dataset, found in grants.items() for grant in found]
    price = pricing.price(user, question, epsilon=wanted.epsilon, unit=unit, grants=held, now=now)
    _check_drawable(weighed, price.unit)
    if choice:
        return Quote(question, price, 0.0, spread / price.epsilon, weighed.of_reach / price.epsilon)
    sigma = price.unit * spread
    return Quote(question, price, sigma, Z_95 * sigma, Z_95 * price.unit * weighed.of_reach)


def _check_drawable(weighed: Weighed, unit: float) -> None:
    """Raise InvalidInputError where the kernel would refuse these public values: before anything is charged."""
    for clip, size, entities in zip(weighed.clips, weighed.sizes, weighed.entities, strict=True):
        mechanism(clip=clip, sigma=clip * (unit or 1.0), size=size, entities=entities)


def estimate(token: int, weighed: Weighed, wanted: Wanted) -> dict[str, float]:
    """What a private answer would cost whoever has this token."""
    return quote(user_of_live_token(token), weighed, wanted).words()


def budget(user: User, dataset: Dataset) -> pricing.Budget:
    """What is left for a user of the budget of a dataset's people. Raises GetNotPermittedError without the right."""
    now = moment()
    grants = release_grants(user, Ask("agg", [Input(str(dataset.pk), dataset.current.number, [])]), now=now)
    held = [_held(key, grant) for key, found in grants.items() for grant in found]
    return pricing.budget(user, dataset, grants=held, now=now)


@transaction.atomic
def charge_all(demands: Sequence[Demand]) -> list[Bill | Order | GridError]:
    """Charge private answers, or find what was charged under their keys, or the same answers in the store.

    Where its people are charged each by itself, the first call gives an `Order`, and so does every later one that came
    too late with what was sealed. A refusal is as of `quote`; before anything is charged TooNoisyError, and
    LimitExceededError where too much is kept for the account; BudgetExhaustedError, ConflictError for a key of another
    question, InternalError where what was charged under this key failed.
    """
    lock_log()  # whoever took a right away, and was told so, may rely on it
    found: dict[int, Bill | Order | GridError] = {}
    waiting: dict[UUID, deque[tuple[int, User]]] = {}
    for number, demand in enumerate(demands):
        try:
            checked_key(demand.key)  # before it comes to a statement that fails for all
            user = user_of_live_token(demand.token)
            waiting.setdefault(user.pk, deque()).append((number, user))
        except GridError as error:
            found[number] = error
    while waiting:
        # One of each account at a time: what it has left, and what is kept for it, follows from its last one.
        told: dict[int, _Told] = {}
        for number, user in [queue.popleft() for queue in waiting.values()]:
            try:
                told[number] = _told(user, demands[number])
            except GridError as error:
                found[number] = error
        found |= zip(told, _billed_all(list(told.values())), strict=True)
        waiting = {key: queue for key, queue in waiting.items() if queue}
    return [found[number] for number in range(len(demands))]


charged: Together[Demand, Bill | Order] = Together(charge_all)
"""Charges one: those who wait for the database thread at the same time are charged in one transaction."""


class _Told(NamedTuple):
    """A demand with its price. `stored`: the same answer, from the store; `nbytes`: what the node keeps of another."""

    user: User
    demand: Demand
    quote: Quote
    stored: Release | None
    nbytes: int


def _told(user: User, demand: Demand) -> _Told:
    found = quote(user, demand.weighed, demand.wanted)
    found.check_says_something()
    stored = ledger.stored(found.question, found.price)
    nbytes = 0 if stored else keeping.checked(user, demand.key, demand.weighed, found.price)
    return _Told(user, demand, found, stored, nbytes)


def _billed_all(told: Sequence[_Told]) -> list[Bill | Order | GridError]:
    """Of different accounts."""
    asking = [
        Asking(each.user, each.quote.question, each.quote.price, each.demand.key, each.demand.sealed)
        for each in told
        if each.stored is None
    ]
    releases = iter(ledger.charge_all(asking) if asking else [])
    return [_billed(each, each.stored or next(releases)) for each in told]


def _billed(told: _Told, release: Release | GridError | Unsealed) -> Bill | Order | GridError:
    user, demand, found, kept, nbytes = told
    if isinstance(release, Unsealed):
        return _order(release, found.price.unit)
    if isinstance(release, GridError):
        return release
    stored = kept is not None and (release.user_id, release.key) != (user.pk, demand.key)
    if stored:
        record(Verb.VALUE_RELEASED, by=user, target=f"release:{release.pk}", route="release", stored=True)
    elif kept is None:
        keeping.count(user, nbytes)
    if release.state == State.VOID:
        return InternalError(FAILED)
    cost = 0.0 if stored else found.price.cost
    receipt = found.words() | {
        "id": str(release.pk),
        "position": release.seq,
        "stored": stored,
        "cost": cost,
        "remaining": found.price.remaining - cost,
        "sigmas": [found.price.unit * spread for spread in demand.weighed.spread],
        "may_exclude": release.may_exclude,
    }
    if not release.record:
        return Bill(release, found.price.unit, receipt, "", 0)
    # That which was charged: since then, another epoch may have begun.
    pot = release.charges.get().pot_id
    return Bill(release, found.price.unit, receipt, str(records.place(pot, release.record)), _people(pot))


def _order(unsealed: Unsealed, unit: float) -> Order:
    pot = unsealed.pot
    account = Account(
        folder=str(records.folder(pot.id)),
        log=log(pot.id),
        uniform=pot.uniform or 0,
        limit=unsealed.limit,
        worst=unsealed.worst,
        order=pot.order_grid,
        tested=unsealed.tested,
    )
    return Order(account, unit, pot.id, pot.spent, _people(pot.id))


def _people(pot: int) -> int:
    return Domain.objects.values_list("entities", flat=True).get(pots=pot)


@transaction.atomic
def fail(token: int, weighed: Weighed, wanted: Wanted, key: str) -> None:
    """What this answer would cost each person could not be computed: charge it, and give it up.

    A failure may depend on values. If it were free, a program could be made to tell of them by it as often as it
    likes. Raises as `charge`.
    """
    lock_log()
    user = user_of_live_token(token)
    found = quote(user, weighed, wanted)
    keeping.count(user, keeping.added(user, key, weighed, found.price))
    give_up(ledger.charge(user, found.question, found.price, key=key, failed=True))


def give_up(release: Release) -> None:
    """The worker failed: there will be no answer, and what was charged stays charged. Nothing where one came anyway."""
    with suppress(ConflictError):
        ledger.void(release, "The worker did not give an answer.")


def expected(weighed: Weighed, people: int = 0) -> float:
    """Seconds that a draw takes, from public metadata, generously: a power of two of a millisecond.

    `people`: the most that have accounts, where each is charged by itself: then all is computed twice, and what each of
    them was charged is read and written.
    """
    seconds = 2e-3 + weighed.flops / 5e8 + weighed.numbers / 1e7
    if people:
        seconds = 2 * seconds + 0.1 + people / 2e6
    return 1e-3 * 2.0 ** math.ceil(math.log2(seconds / 1e-3))


def _held(dataset: UUID, grant: Grant | None) -> Held:
    return Held(str(dataset), None, None) if grant is None else Held(str(dataset), grant.pk, grant.epsilon)
