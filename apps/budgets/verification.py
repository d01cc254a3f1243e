"""Is the ledger whole? Chain, books, prices, records, states, audit events, and the head kept outside the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

from django.db import connection, transaction

from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.budgets import accountant, outside, records
from apps.budgets.accountant import ARGMAX
from apps.budgets.chain import DOMAIN, GENESIS, question_digest
from apps.budgets.models import Allowance, Domain, LedgerHead, Pot, Release
from apps.budgets.pots import ATTO, NANO
from apps.budgets.states import State
from apps.core import keys

CHUNK = 500


@dataclass(frozen=True)
class LedgerReport:
    """What `verify` found; true when the ledger is whole. `frozen`: domains that wait for a new epoch."""

    releases: int
    problem: str
    frozen: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.problem


class _Broken(Exception):
    pass


def verify() -> LedgerReport:
    """Recompute the whole ledger. Streams it: memory grows with pots and allowances, and charges go on meanwhile."""
    # Before the snapshot: the ledger may grow meanwhile, the outside head not beyond it.
    kept = outside.FILE.read()
    with _snapshot():
        frozen = tuple(Domain.objects.exclude(frozen="").values_list("slug", flat=True))
        count = 0
        try:
            if kept is not None and not keys.verify(keys.public_key(), DOMAIN, kept.hash.encode(), kept.signature):
                raise _Broken("the head kept outside the database is not signed by this deployment's key")
            pots = {pot.pk: pot for pot in Pot.objects.all()}
            _check_promises(pots)
            spent: Counter[int] = Counter()
            uniform: Counter[int] = Counter()
            used: Counter[tuple[int, str, str]] = Counter()
            for release in _chained():
                count = release.seq
                _check_event(release)
                _check_record(release, pots, spent, uniform)
                _check_books(release, pots, spent, used)
            _check_sums(pots, spent, uniform, used)
            if problem := outside.problem():
                raise _Broken(problem)
        except _Broken as broken:
            return LedgerReport(count, str(broken), frozen)
    return LedgerReport(count, "", frozen)


@contextmanager
def _snapshot() -> Iterator[None]:
    """All queries see the ledger as it was at one moment, and nobody waits for them."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
    else:
        # `atomic` would keep writers out.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def _check_promises(pots: dict[int, Pot]) -> None:
    for pot in pots.values():
        if pot.cap != accountant.cap(Fraction(pot.epsilon_nano, NANO), Fraction(pot.delta_atto, ATTO), pot.order):
            raise _Broken(f"the cap of pot {pot.pk} is not that of its epsilon, delta and order")


def _chained() -> Iterator[Release]:
    """Each release in turn, once it is on the chain."""
    seq, previous = 0, GENESIS
    rows = Release.objects.defer("data").order_by("seq").prefetch_related("charges")
    for release in rows.iterator(chunk_size=CHUNK):
        seq += 1
        if release.seq != seq or release.previous != previous:
            raise _Broken(f"release {seq} is missing, or release {release.seq} doesn't follow it")
        charges = sorted([charge.pot_id, charge.amount] for charge in release.charges.all())
        if question_digest(release.question) != release.digest or release.computed_hash(charges) != release.hash:
            raise _Broken(f"release {seq} was changed: its hash does not fit")
        previous = release.hash
        yield release
    last = LedgerHead.objects.first()
    if last is None or (last.seq, last.hash) != (seq, previous):
        raise _Broken(f"the ledger ends at release {seq}, which the head row does not name as the last")


def _check_event(release: Release) -> None:
    known = AuditEvent.objects.filter(
        seq=release.event, verb=Verb.BUDGET_CHARGED, target=f"release:{release.pk}", actor_id=str(release.user_id)
    )
    if not known.exists():
        raise _Broken(f"the audit log does not tell of release {release.seq}")


def _check_books(
    release: Release, pots: dict[int, Pot], spent: Counter[int], used: Counter[tuple[int, str, str]]
) -> None:
    """What was charged is no less than what the noise lets through, and somebody's allowance paid it."""
    asked = json.loads(release.question)
    if asked["program"] != release.program:
        raise _Broken(f"release {release.seq} was changed: it names another program than its question")
    charges = {charge.pot_id: charge.amount for charge in release.charges.all()}
    if not charges:
        raise _Broken(f"release {release.seq} was charged to no pot")
    for key, amount in charges.items():
        order = pots[key].order
        if asked["mechanism"] == ARGMAX:
            due = accountant.argmax(order, Fraction(asked["epsilon"]))
        else:
            due = accountant.charge(order, accountant.ratio(asked["clips"], asked["sigmas"]))
        if amount < due:
            raise _Broken(f"release {release.seq} was charged {amount} to pot {key}, and its noise costs {due}")
        spent[key] += amount
    paid = json.loads(release.paid)
    if {pot: amount for pot, _, _, amount in paid} != charges:
        raise _Broken(f"release {release.seq} was not paid by the allowances that it names")
    for pot, payer, period, amount in paid:
        used[pot, payer, period] += amount


def _check_record(release: Release, pots: dict[int, Pot], spent: Counter[int], uniform: Counter[int]) -> None:
    """Each entity was charged by a record that is there, or all of them alike; and what may exclude somebody says so.

    `spent` is that before this release.
    """
    accounts = [charge for charge in release.charges.all() if pots[charge.pot_id].uniform is not None]
    if not accounts:
        if release.record or release.may_exclude:
            raise _Broken(f"release {release.seq} names accounts of people who have none")
        return
    if len(release.charges.all()) > 1:
        raise _Broken(f"release {release.seq} was charged to accounts of people and to another pot")
    key, amount = accounts[0].pot_id, accounts[0].amount
    choice = json.loads(release.question)["mechanism"] == ARGMAX
    beyond = spent[key] + amount > pots[key].available(release.at)
    if beyond and (choice or not release.may_exclude):
        raise _Broken(f"release {release.seq} may exclude people, and does not say so")
    if release.record and (choice or not records.fits(key, release.record)):
        raise _Broken(f"the record of what release {release.seq} cost each person is missing, or was changed")
    if not (release.record or choice or release.state == State.VOID):
        raise _Broken(f"release {release.seq} was answered and has no record of what it cost each person")
    if not release.record and not release.may_exclude:
        uniform[key] += amount


def _check_sums(
    pots: dict[int, Pot], spent: Counter[int], uniform: Counter[int], used: Counter[tuple[int, str, str]]
) -> None:
    for key, pot in pots.items():
        if pot.spent != spent[key]:
            raise _Broken(f"pot {key} says that {pot.spent} was spent, and its charges add up to {spent[key]}")
        if pot.uniform is not None and pot.uniform != uniform[key]:
            raise _Broken(f"pot {key} says that everybody was charged {pot.uniform}, and it was {uniform[key]}")
    rows = {(row.pot_id, row.payer, row.period): row.used for row in Allowance.objects.all()}
    if rows != dict(used):
        raise _Broken("the allowances do not add up to what the releases name")
