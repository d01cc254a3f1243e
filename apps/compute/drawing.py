"""From a price to its answer: what people are charged by themselves is sealed, a worker draws, the ledger keeps it, and
it is taken at a time that tells nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from apps.budgets import ledger, records
from apps.budgets.models import Release
from apps.budgets.states import State
from apps.compute import spending
from apps.compute.messages import Draw, Seal, Sealed, Value, Weighed
from apps.compute.spending import Bill, Demand, Order, Wanted
from apps.compute.workers import Worker
from apps.core.database import in_database
from apps.core.durable import sync
from gridclient.program.graph import Ref
from gridclient.wire.errors import ConflictError, GridError, InternalError

MOST_SEALS = 50
"""How often people's charges are computed anew because another answer about them came first."""
MOST_LOOKS, LOOK_AGAIN = 20, 0.25
"""How often, and after how many seconds, an answer is looked for that another attempt draws."""


async def paid(
    worker: Worker, value: Ref, weighed: Weighed, wanted: Wanted, *, token: int, key: str, path: Path, begun: float
) -> Bill:
    """Charge an answer. Where each person is charged by itself, the worker seals first what, as often as another answer
    about them came first.

    Raises as `spending.charge_all` refuses; once a worker was asked not before a time that follows from public
    metadata, and for whatever went wrong there with one text, charged.
    """
    sealed, people = None, 0
    try:
        for _ in range(MOST_SEALS):
            bill = await spending.charged(Demand(token, weighed, wanted, key, sealed))
            if isinstance(bill, Bill):
                return bill
            people = bill.people
            sealed = await _sealed(worker, Seal(0, value, bill.unit, weighed.clips, bill.account, str(path)), bill)
            if sealed is None:
                await in_database(spending.fail, token, weighed, wanted, key)
                raise InternalError(spending.FAILED)
        raise ConflictError("Other answers about these people were given meanwhile, again and again: ask once more.")
    except GridError:
        if people:
            await not_before(begun, spending.expected(weighed, people))
        raise


async def _sealed(worker: Worker, question: Seal, order: Order) -> records.Sealed | None:
    """What the worker wrote, on the disk; None where it failed."""
    try:
        reply = await worker.ask(question)
    except GridError:
        return None
    if not isinstance(reply, Sealed):
        return None
    file = Path(question.path)
    # Before the transaction of the charge, which others wait for.
    await asyncio.to_thread(sync, file)
    account = order.account
    return records.Sealed(reply.record, file, order.pot, account.worst, order.header, account.tested, reply.alone)


async def draw(worker: Worker, question: Draw, charged: Release) -> None:
    """Let the worker draw, and keep what it drew, unless another attempt was faster or it is too late.

    Raises InternalError with one text for whatever happened: it may depend on values.
    """
    try:
        number = await in_database(ledger.attempt, charged)
    except ConflictError:
        return  # it was answered or given up meanwhile: `taken` finds which
    try:
        reply = await worker.ask(question)
        if not isinstance(reply, Value):
            raise InternalError(spending.FAILED)
    except GridError:
        await in_database(spending.give_up, charged)
        raise InternalError(spending.FAILED) from None
    data = reply.data if reply.data is not None else await asyncio.to_thread(Path(question.path).read_bytes)
    header = reply.header
    with suppress(ConflictError):
        await in_database(ledger.answered, charged, number, data=data, dtype=header.dtype, shape=header.shape)


async def not_before(begun: float, seconds: float) -> None:
    """Wait until `seconds` after `begun`, or twice as long, or four times ... : how long it took is not to be seen."""
    passed = asyncio.get_running_loop().time() - begun
    while seconds < passed:
        seconds *= 2
    await asyncio.sleep(seconds - passed)


async def taken(charged: Release) -> Release:
    """The release with the answer that the ledger keeps, once its head is safe outside.

    Where the same question was asked again meanwhile, the later attempt's answer counts: it is waited for. Raises
    ConflictError where that takes too long, InternalError with the one text where there will be none.
    """
    looks = 0
    while True:
        try:
            return await in_database(ledger.delivered, charged)
        except ConflictError as error:
            looks += 1
            if error.details.get("state") == State.VOID:
                raise InternalError(spending.FAILED) from None
            if looks > MOST_LOOKS:
                raise
        await asyncio.sleep(LOOK_AGAIN)
