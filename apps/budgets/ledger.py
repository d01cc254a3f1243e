"""Charge before release: the one way in which a private answer is paid for, kept and handed over.

charge      in the caller's transaction: nothing is drawn before it is committed; where each entity is charged what it
            contributes, that is computed before, into a sealed record, and nothing else is
attempt     a worker begins; of several, one alone can store its draw
answered    the draw is kept: a second one is never made
delivered   the outside head is on the disk first; from then on as often as asked
void        there will be no answer; what was charged stays charged. So ends, some days later, whatever was lost
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import QuerySet

from apps.accounts.models import User
from apps.accounts.once import checked_key
from apps.audit.actions import lock_log, record
from apps.audit.verbs import Verb
from apps.budgets import lease, outside
from apps.budgets.accounts import Unsealed
from apps.budgets.books import WAIT_FOR_DISK, Asking, Books
from apps.budgets.models import Release
from apps.budgets.pricing import Price, Question, text_of
from apps.budgets.records import Sealed
from apps.budgets.states import State
from apps.core import clock
from apps.core.prepared import execute
from gridclient.wire.errors import ConflictError, GridError, InternalError

AGAIN_FOR = timedelta(days=7)
"""For so long after its charge, an answer that got lost on its way can be drawn under its key."""
VOID_AFTER = AGAIN_FOR + timedelta(days=2)
"""After its charge. In between ends the last draw that was begun in time: none may take longer than a day."""


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
    (found,) = charge_all([Asking(user, question, price, key, sealed, failed)], now=now)
    if isinstance(found, Exception):
        raise found
    return found


def charge_all(asking: Sequence[Asking], *, now: datetime | None = None) -> list[Release | GridError | Unsealed]:
    """As `charge`, for several: one after the other, but written together. The release of each, or its refusal."""
    refused = [_refusal(each) for each in asking]
    fine = [each for each, refusal in zip(asking, refused, strict=True) if refusal is None]
    if not fine:
        return [*filter(None, refused)]
    lease.hold()
    # First, as everywhere: the log's head is locked at the end of every change, and no two orders may meet.
    lock_log()
    books = Books(fine, now or clock.now())
    found = [refusal or _charged(books, each) for each, refusal in zip(asking, refused, strict=True)]
    books.write()
    return found


def _charged(books: Books, asking: Asking) -> Release | GridError | Unsealed:
    try:
        return books.charge(asking)
    except (GridError, Unsealed) as refusal:
        return refusal


def _refusal(asking: Asking) -> GridError | None:
    """Why this is not to be charged, whatever is left: the key, or the price of another question."""
    try:
        checked_key(asking.key)
    except GridError as error:
        return error
    question, price = asking.question, asking.price
    sigmas = tuple(clip * price.unit for clip in question.clips)
    fits = price.sigmas == sigmas and price.text == text_of(question, sigmas, price.epsilon)
    if not fits or not price.charges or any(amount < 1 for _, amount in price.charges):
        return InternalError("A question was to be charged at the price of another.")
    return None


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
            execute(WAIT_FOR_DISK, ())
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
