"""Charge before release: the one way in which a private answer is paid for, kept and handed over.

charge      in the caller's transaction: nothing is drawn before it is committed; where each entity is charged what it
            contributes, that is computed before, into a sealed record, and nothing else is
attempt     a worker begins; of several, one alone can store its draw
answered    the draw is kept: a second one is never made
delivered   the outside head is on the disk first; from then on as often as asked
void        there will be no answer; what was charged stays charged. So ends, some days later, whatever was lost
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import QuerySet, UUIDField

from apps.accounts.models import User
from apps.accounts.once import checked_key
from apps.audit.actions import lock_log, record
from apps.audit.verbs import Verb
from apps.budgets import accounts, lease, outside, records
from apps.budgets.accounts import Booked
from apps.budgets.models import Domain, Placement, Pot, Release
from apps.budgets.pots import DEFAULT
from apps.budgets.pricing import Payer, Price, Question, text_of
from apps.budgets.records import Sealed
from apps.budgets.states import State
from apps.core import clock
from apps.core.canonical import canonical
from apps.core.prepared import execute, execute_together, insert_if_new, insertion, places
from gridclient.wire.errors import BudgetExhaustedError, ConflictError, InternalError

AGAIN_FOR = timedelta(days=7)
"""For so long after its charge, an answer that got lost on its way can be drawn under its key."""
VOID_AFTER = AGAIN_FOR + timedelta(days=2)
"""After its charge. In between ends the last draw that was begun in time: none may take longer than a day."""
_uuid: Any = UUIDField()

# By hand: these statements are on the path of every private answer, and keep the pots from all others meanwhile.
_LOCK = (
    "SELECT h.seq, h.hash, r.id, r.digest, d.frozen,"
    " p.id, p.epsilon_nano, p.order_grid, p.cap, p.spent, p.uniform, p.per_year"
    " FROM budgets_ledgerhead h"
    " JOIN budgets_placement l ON l.dataset_id IN {} JOIN budgets_domain d ON d.id = l.domain_id"
    " JOIN budgets_pot p ON p.domain_id = d.id AND p.epoch = d.epoch AND p.block = l.block AND p.kind = 'queries'"
    " LEFT JOIN budgets_release r ON r.user_id = %s AND r.key = %s"
    " ORDER BY p.id"
)
_OF_POT = ("id", "epsilon_nano", "order_grid", "cap", "spent", "uniform", "per_year")
# Whatever the server does elsewhere: a charge that a power cut takes back would be spent twice, and an answer that it
# takes back drawn twice.
_WAIT_FOR_DISK = "SET LOCAL synchronous_commit TO on"
_USED = "SELECT used FROM budgets_allowance WHERE pot_id = %s AND payer = %s AND period = %s"
_USE = (
    "INSERT INTO budgets_allowance (pot_id, payer, period, used) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (pot_id, payer, period) DO UPDATE SET used = budgets_allowance.used + excluded.used"
)
_SPEND = "UPDATE budgets_pot SET spent = spent + %s, uniform = uniform + %s WHERE id = %s"
_CHARGE = "INSERT INTO budgets_charge (release_id, pot_id, amount) VALUES (%s, %s, %s)"
_STEP_HEAD = "UPDATE budgets_ledgerhead SET seq = %s, hash = %s WHERE id = 1"


def charge(
    user: User, question: Question, price: Price, *, key: str, sealed: Sealed | None = None, failed: bool = False,
    now: datetime | None = None,
) -> Release:  # fmt: skip
    """Pay for an answer, in the transaction of the caller, who draws it after the commit and not before.

    The same key with the same question gives the same release, whatever has become of it; `key` is the caller's own, in
    the form of `accounts.once`. `sealed`: what it costs each entity, where that is charged; `failed`: it could not be
    computed, and will be void. Raises `Unsealed` where it must be computed, or anew, before it can be charged,
    BudgetExhaustedError before anything is written, ConflictError for a key of another question, a frozen budget, pots
    that aren't those of the price any more, or a copy of the database.
    """
    now = now or clock.now()
    checked_key(key)
    if not price.charges or any(amount < 1 for _, amount in price.charges) or not _fits(question, price):
        raise InternalError("A question was to be charged at the price of another.")
    lease.hold()
    # First, as everywhere: the log's head is locked at the end of every change, and no two orders may meet.
    lock_log()
    rows = _lock({UUID(dataset) for dataset, _ in question.versions}, user, key)
    seq, previous, earlier, digest, *_ = rows[0]
    if earlier is not None:
        if digest != price.digest:
            raise ConflictError("This key was used for another question: use a new one.")
        return Release.objects.get(pk=earlier)
    outside.check(seq, previous)
    pots = _pots(rows)
    if list(pots) != [pot for pot, _ in price.charges]:
        raise ConflictError("The budget has changed since this was priced: ask again.")
    paid = _paid(pots, price, now)
    booked = accounts.booked(user, pots, question, price, sealed, failed=failed, now=now)
    return _write(user, price, paid, booked, key, now, seq + 1, previous, question.program)


def _fits(question: Question, price: Price) -> bool:
    """Whether this is the price of this question."""
    sigmas = tuple(clip * price.unit for clip in question.clips)
    return price.sigmas == sigmas and price.text == text_of(question, sigmas, price.epsilon)


def _lock(datasets: set[UUID], user: User, key: str) -> list[Any]:
    """The ledger's head, what this user asked with this key, and the pots of these datasets, locked in their order.

    A dataset that is nowhere yet is in the default domain, from now on.
    """
    sql = _LOCK.format(places(datasets))
    if connection.features.has_select_for_update:
        sql = f"{_WAIT_FOR_DISK}; {sql} FOR UPDATE OF h, p, d"
    values = [*map(_adapted, datasets), _adapted(user.pk), key]
    rows: list[Any] = execute(sql, values).fetchall()
    if len(rows) < len(datasets):
        default = Domain.objects.get(slug=DEFAULT)
        for dataset in datasets:
            insert_if_new(Placement(dataset_id=dataset, domain=default))
        rows = execute(sql, values).fetchall()
        if not rows:
            raise InternalError("The ledger lost its head: nothing can be charged. Run `manage.py verify_ledger`.")
    return rows


def _pots(rows: list[Any]) -> dict[int, Pot]:
    """The pots, by id, with what is needed of them. Raises ConflictError where one of them is frozen."""
    pots: dict[int, Pot] = {}
    for _, _, _, _, frozen, *values in rows:
        if frozen:
            raise outside.frozen_error(frozen)
        pot = Pot.from_db(connection.alias, _OF_POT, values)
        pots[pot.pk] = pot
    return pots


def _paid(pots: dict[int, Pot], price: Price, now: datetime) -> list[tuple[int, str, str, int]]:
    """Which allowances pay, each once: pot, payer, period, amount. Raises BudgetExhaustedError."""
    amounts = dict(price.charges)
    chosen: dict[tuple[int, str, str], int] = {}
    for candidates in price.payers:
        rooms = [(_room(pots[payer.pot], payer, now), payer) for payer in candidates]
        fitting = [payer for room, payer in rooms if room >= amounts[payer.pot]]
        if not fitting:
            room, payer = max(rooms)
            pot = pots[payer.pot]
            remaining = pot.as_epsilon(room)
            today = " today" if payer.daily and room < pot.room(now) else ""
            raise BudgetExhaustedError(
                f"This answer costs {pot.as_epsilon(amounts[pot.id]):.4g} of the {pot.epsilon:g} that the budget was "
                f"for all answers, and {remaining:.4g} is left for you{today}. Ask with a smaller epsilon, or ask the "
                "owner for more.",
                remaining=remaining,
            )
        payer = fitting[0]
        chosen[payer.pot, payer.key, payer.period(now)] = amounts[payer.pot]
    return [(*key, amount) for key, amount in sorted(chosen.items())]


def _room(pot: Pot, payer: Payer, now: datetime) -> int:
    used = execute(_USED, (payer.pot, payer.key, payer.period(now))).fetchone()
    return max(0, min(payer.most - (used[0] if used else 0), pot.room(now)))


def _write(
    user: User, price: Price, paid: list[tuple[int, str, str, int]], booked: Booked, key: str, now: datetime, seq: int,
    previous: str, program: str,
) -> Release:  # fmt: skip
    release = Release(
        id=uuid4(),
        seq=seq,
        user=user,
        key=key,
        program=program,
        question=price.text,
        digest=price.digest,
        paid=canonical(paid).decode(),
        at=now,
        record="" if booked.sealed is None else booked.sealed.digest,
        may_exclude=booked.may_exclude,
        previous=previous,
    )
    release.hash = release.computed_hash([list(each) for each in price.charges])
    release.event = record(
        Verb.BUDGET_CHARGED,
        by=user,
        target=f"release:{release.id}",
        at=now,
        program=program,
        charges=price.charges,
        epsilon=price.epsilon,
        ledger=[seq, release.hash],
    ).seq
    if booked.sealed is not None:
        records.keep(price.charges[0][0], booked.sealed)
    execute_together(
        [
            *((_USE, each) for each in paid),
            insertion(release),
            *((_SPEND, (amount, booked.uniform, pot)) for pot, amount in price.charges),
            *((_CHARGE, (_adapted(release.id), pot, amount)) for pot, amount in price.charges),
            (_STEP_HEAD, (seq, release.hash)),
        ]
    )
    release._state.adding = False
    # Robust: what was committed is not reported as failed because a disk is full; `delivered` looks again.
    transaction.on_commit(partial(outside.publish, seq, release.hash, since=(seq - 1, previous)), robust=True)
    return release


def _adapted(key: UUID) -> Any:
    return _uuid.get_db_prep_value(key, connection)


def stored(question: Question, price: Price) -> Release | None:
    """An answer to the very same question with the very same noise, whoever asked: handing it out costs nothing.

    That the reader may have it is for the caller to see to, and that it is `delivered`.
    """
    return Release.objects.filter(digest=price.digest, data__isnull=False).order_by("seq").first()


def attempt(release: Release, *, now: datetime | None = None) -> int:
    """Begin an attempt at the answer; its number. Earlier attempts can store nothing any more.

    Raises ConflictError where there is nothing to answer, or AGAIN_FOR has passed since the charge.
    """
    with transaction.atomic():
        found = Release.objects.select_for_update(no_key=True).get(pk=release.pk)
        _check(found, State.CHARGED)
        if (now or clock.now()) - found.at >= AGAIN_FOR:
            raise ConflictError("This answer was charged too long ago to be drawn.", state=found.state)
        found.attempt += 1
        found.save(update_fields=["attempt"])
    return found.attempt


def answered(release: Release, attempt: int, *, data: bytes, dtype: str, shape: Iterable[int]) -> Release:
    """Keep the draw of an attempt: it is on the disk when this returns, or it would be drawn a second time after it
    left. Raises ConflictError where a later one began, or one is kept: drop this one."""
    given = {"data": data, "dtype": dtype, "shape": list(shape), "state": State.ANSWERED}
    with transaction.atomic():
        if connection.features.has_select_for_update:
            execute(_WAIT_FOR_DISK, ())
        if not Release.objects.filter(pk=release.pk, state=State.CHARGED, attempt=attempt).update(**given):
            raise ConflictError("This answer came too late: another one counts.")
    return Release.objects.get(pk=release.pk)


def delivered(release: Release) -> Release:
    """Let the kept answer go. Asked before each delivery: the outside head is on the disk when this returns.

    Raises ConflictError without an answer, or where the ledger doesn't contain the outside head.
    """
    found = Release.objects.get(pk=release.pk)
    _check(found, State.ANSWERED, State.DELIVERED)
    outside.make_durable(found.seq, found.hash)
    if found.state == State.ANSWERED:
        Release.objects.filter(pk=found.pk, state=State.ANSWERED).update(state=State.DELIVERED)
        found.state = State.DELIVERED
    return found


@transaction.atomic
def void(release: Release, reason: str) -> Release:
    """Give up an answer that was charged: it stays charged. `reason` says nothing of values. Raises ConflictError."""
    lock_log()
    given = {"state": State.VOID, "reason": reason[:300] or "It failed."}
    if not Release.objects.filter(pk=release.pk, state=State.CHARGED).update(**given):
        raise ConflictError("This answer is there, or was given up before.")
    record(Verb.RELEASE_VOIDED, by=None, target=f"release:{release.pk}", reason=given["reason"])
    return Release.objects.get(pk=release.pk)


def unanswered() -> QuerySet[Release]:
    """What was charged and has neither answer nor end: asked again, it runs again. Oldest first."""
    return Release.objects.select_related("user").filter(state=State.CHARGED).order_by("seq")


def give_up_unanswered(*, now: datetime | None = None) -> int:
    """Make void what was charged VOID_AFTER ago and has no answer; how many those were.

    A client that is lost, or a process that ends, between charge and answer leaves such a one behind. None of them is
    being drawn: see `attempt`. Several processes may do it at a time.
    """
    count = 0
    for release in unanswered().filter(at__lte=(now or clock.now()) - VOID_AFTER):
        with suppress(ConflictError):  # another process was faster
            void(release, "It was not drawn, and nobody came back for it in time.")
            count += 1
    return count


def _check(release: Release, *states: State) -> None:
    if release.state not in states:
        raise ConflictError(f"This answer is {State(release.state).label}.", state=release.state)
