"""The ledger while its head is locked: each charge counts for those after it at once, and all are written together.

Whoever holds the head keeps everybody else waiting. So the statements are made by hand, and there are as few of them
for many charges as for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import UUIDField

from apps.accounts.models import User
from apps.audit.actions import Happened, record_all
from apps.audit.verbs import Verb
from apps.budgets import accounts, outside, records
from apps.budgets.accounts import Booked
from apps.budgets.models import Domain, Placement, Pot, Release
from apps.budgets.pots import DEFAULT
from apps.budgets.pricing import Payer, Price, Question
from apps.budgets.records import Sealed
from apps.core.canonical import canonical
from apps.core.prepared import adapted, execute, execute_together, insert_if_new, insertion, of_many, places
from gridclient.wire.errors import BudgetExhaustedError, ConflictError, InternalError

_LOCK = (
    "SELECT h.seq, h.hash, r.user_id, r.key, r.id, r.digest, l.dataset_id, d.frozen,"
    " p.id, p.epsilon_nano, p.order_grid, p.cap, p.spent, p.uniform, p.per_year"
    " FROM budgets_ledgerhead h"
    " JOIN budgets_placement l ON l.dataset_id IN {} JOIN budgets_domain d ON d.id = l.domain_id"
    " JOIN budgets_pot p ON p.domain_id = d.id AND p.epoch = d.epoch AND p.block = l.block AND p.kind = 'queries'"
    " LEFT JOIN budgets_release r ON {}"
    " ORDER BY p.id"
)
_ASKED = "(r.user_id = %s AND r.key = %s)"
_OF_POT = ("id", "epsilon_nano", "order_grid", "cap", "spent", "uniform", "per_year")
WAIT_FOR_DISK = "SET LOCAL synchronous_commit TO on"
"""Whatever the server does elsewhere: a charge that a power cut takes back would be spent twice, and an answer that it
takes back drawn twice."""
_USED = "SELECT pot_id, payer, period, used FROM budgets_allowance WHERE pot_id IN {} AND payer IN {} AND period IN {}"
_USE = (
    "INSERT INTO budgets_allowance (pot_id, payer, period, used) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (pot_id, payer, period) DO UPDATE SET used = budgets_allowance.used + excluded.used"
)
_SPEND = "UPDATE budgets_pot SET spent = spent + %s, uniform = uniform + %s WHERE id = %s"
_CHARGE = "INSERT INTO budgets_charge (release_id, pot_id, amount) VALUES (%s, %s, %s)"
_STEP_HEAD = "UPDATE budgets_ledgerhead SET seq = %s, hash = %s WHERE id = 1"

_Payment = tuple[int, str, str]
"""From which allowance: pot, payer and period."""
_uuid: Any = UUIDField()


class Asking(NamedTuple):
    """Somebody pays for an answer: see `ledger.charge`."""

    user: User
    question: Question
    price: Price
    key: str
    sealed: Sealed | None = None
    failed: bool = False


class _New(NamedTuple):
    """A release that isn't written yet. `paid`: whose allowances, and how much."""

    release: Release
    asking: Asking
    paid: list[tuple[int, str, str, int]]
    booked: Booked


class Books:
    """What some who ask share: the head, and the pots of all their datasets, locked until the transaction ends."""

    def __init__(self, asking: Sequence[Asking], now: datetime) -> None:
        self._now = now
        self._new: list[_New] = []
        self._entered: dict[UUID, Release] = {}
        self._pots: dict[int, Pot] = {}
        self._frozen: dict[int, str] = {}
        self._pot_of: dict[str, int] = {}
        self._earlier: dict[tuple[UUID, str], tuple[UUID, str]] = {}
        for seq, value, user, key, release, digest, dataset, frozen, *values in _locked(asking):
            self._head = self._written = seq, value
            if release is not None:
                self._earlier[_uuid.to_python(user), key] = _uuid.to_python(release), digest
            pot = Pot.from_db(connection.alias, _OF_POT, values)
            self._pots[pot.pk] = pot
            self._frozen[pot.pk] = frozen
            self._pot_of[str(_uuid.to_python(dataset))] = pot.pk
        self._used = _used(asking, now)

    def charge(self, asking: Asking) -> Release:
        """Charge one, or find what was charged under its key. Raises as `ledger.charge`."""
        user, question, price, key, sealed, failed = asking
        if (user.pk, key) in self._earlier:
            release, digest = self._earlier[user.pk, key]
            if digest != price.digest:
                raise ConflictError("This key was used for another question: use a new one.")
            return self._entered.get(release) or Release.objects.get(pk=release)
        if not self._new:
            outside.check(*self._written)
        named = {self._pot_of[dataset] for dataset, _ in question.versions if dataset in self._pot_of}
        pots = {pot: self._pots[pot] for pot in sorted(named)}
        for pot in pots:
            if self._frozen[pot]:
                raise outside.frozen_error(self._frozen[pot])
        if list(pots) != [pot for pot, _ in price.charges]:
            raise ConflictError("The budget has changed since this was priced: ask again.")
        paid = self._paid(pots, price)
        if any(pot.uniform is not None for pot in pots.values()):
            # What these are booked as depends on what is written.
            self.write()
        booked = accounts.booked(user, pots, question, price, sealed, failed=failed, now=self._now)
        return self._enter(_New(self._release(asking, paid, booked), asking, paid, booked))

    def _paid(self, pots: dict[int, Pot], price: Price) -> list[tuple[int, str, str, int]]:
        """Which allowances pay, each once: pot, payer, period, amount. Raises BudgetExhaustedError."""
        amounts = dict(price.charges)
        chosen: dict[_Payment, int] = {}
        for candidates in price.payers:
            rooms = [(self._room(payer), payer) for payer in candidates]
            fitting = [payer for room, payer in rooms if room >= amounts[payer.pot]]
            if not fitting:
                room, payer = max(rooms)
                pot = pots[payer.pot]
                remaining = pot.as_epsilon(room)
                today = " today" if payer.daily and room < pot.room(self._now) else ""
                raise BudgetExhaustedError(
                    f"This answer costs {pot.as_epsilon(amounts[pot.id]):.4g} of the {pot.epsilon:g} that the budget "
                    f"was for all answers, and {remaining:.4g} is left for you{today}. Ask with a smaller epsilon, or "
                    "ask the owner for more.",
                    remaining=remaining,
                )
            payer = fitting[0]
            chosen[payer.pot, payer.key, payer.period(self._now)] = amounts[payer.pot]
        return [(*key, amount) for key, amount in sorted(chosen.items())]

    def _room(self, payer: Payer) -> int:
        used = self._used[payer.pot, payer.key, payer.period(self._now)]
        return max(0, min(payer.most - used, self._pots[payer.pot].room(self._now)))

    def _release(self, asking: Asking, paid: list[tuple[int, str, str, int]], booked: Booked) -> Release:
        seq, previous = self._head
        release = Release(
            id=uuid4(),
            seq=seq + 1,
            user=asking.user,
            key=asking.key,
            program=asking.question.program,
            question=asking.price.text,
            digest=asking.price.digest,
            paid=canonical(paid).decode(),
            at=self._now,
            record="" if booked.sealed is None else booked.sealed.digest,
            may_exclude=booked.may_exclude,
            previous=previous,
        )
        release.hash = release.computed_hash([list(each) for each in asking.price.charges])
        return release

    def _enter(self, new: _New) -> Release:
        release, asking, paid, booked = new
        self._new.append(new)
        self._entered[release.pk] = release
        self._head = release.seq, release.hash
        self._earlier[asking.user.pk, asking.key] = release.pk, release.digest
        for pot, amount in asking.price.charges:
            self._pots[pot].spent += amount
            if (uniform := self._pots[pot].uniform) is not None:
                self._pots[pot].uniform = uniform + booked.uniform
        self._used.update({(pot, payer, period): amount for pot, payer, period, amount in paid})
        return release

    def write(self) -> None:
        """Write what was charged since the last time, with its audit events."""
        if not self._new:
            return
        new, since = self._new, self._written
        events = record_all(
            Happened(
                Verb.BUDGET_CHARGED,
                asking.user,
                f"release:{release.id}",
                self._now,
                {
                    "program": asking.question.program,
                    "charges": asking.price.charges,
                    "epsilon": asking.price.epsilon,
                    "ledger": [release.seq, release.hash],
                },
            )
            for release, asking, _, _ in new
        )
        for each, event in zip(new, events, strict=True):
            each.release.event = event.seq
            if each.booked.sealed is not None:
                records.keep(each.asking.price.charges[0][0], each.booked.sealed)
        charges = [(each, pot, amount) for each in new for pot, amount in each.asking.price.charges]
        used = _summed(((pot, payer, period), amount) for each in new for pot, payer, period, amount in each.paid)
        spent = _summed((pot, amount) for _, pot, amount in charges)
        uniform = _summed((pot, each.booked.uniform) for each, pot, _ in charges)
        insertions = [insertion(each.release) for each in new]
        execute_together(
            [
                of_many(_USE, [(*allowance, amount) for allowance, amount in sorted(used.items())]),
                of_many(insertions[0][0], [values for _, values in insertions]),
                *((_SPEND, (amount, uniform[pot], pot)) for pot, amount in spent.items()),
                of_many(_CHARGE, [(adapted(each.release.id), pot, amount) for each, pot, amount in charges]),
                (_STEP_HEAD, self._head),
            ]
        )
        for each in new:
            each.release._state.adding = False
        self._new, self._written = [], self._head
        # Robust: what was committed is not reported as failed because a disk is full; `delivered` looks again.
        transaction.on_commit(partial(outside.publish, *self._head, since=since), robust=True)


def _locked(asking: Sequence[Asking]) -> list[Any]:
    """The ledger's head, what was asked with these keys, and the pots of the datasets, locked in their order.

    A dataset that is nowhere yet is in the default domain, from now on.
    """
    datasets = {UUID(dataset) for each in asking for dataset, _ in each.question.versions}
    keys = {(each.user.pk, each.key) for each in asking}
    sql = _LOCK.format(places(datasets), " OR ".join([_ASKED] * len(keys)))
    if connection.features.has_select_for_update:
        sql = f"{WAIT_FOR_DISK}; {sql} FOR UPDATE OF h, p, d"
    values = [*map(adapted, datasets), *(value for user, key in keys for value in (adapted(user), key))]
    rows: list[Any] = execute(sql, values).fetchall()
    if len({row[6] for row in rows}) < len(datasets):
        default = Domain.objects.get(slug=DEFAULT)
        for dataset in datasets:
            insert_if_new(Placement(dataset_id=dataset, domain=default))
        rows = execute(sql, values).fetchall()
        if not rows:
            raise InternalError("The ledger lost its head: nothing can be charged. Run `manage.py verify_ledger`.")
    return rows


def _used(asking: Sequence[Asking], now: datetime) -> Counter[_Payment]:
    """How much was used on the allowances that may pay."""
    payers = {payer for each in asking for candidates in each.price.payers for payer in candidates}
    columns = (
        {payer.pot for payer in payers}, {payer.key for payer in payers}, {payer.period(now) for payer in payers}
    )  # fmt: skip
    sql = _USED.format(*(places(column) for column in columns))
    rows = execute(sql, [value for column in columns for value in column]).fetchall()
    return Counter({(pot, payer, period): used for pot, payer, period, used in rows})


def _summed(amounts: Iterable[tuple[Any, int]]) -> Counter[Any]:
    sums: Counter[Any] = Counter()
    for key, amount in amounts:
        sums[key] += amount
    return sums
