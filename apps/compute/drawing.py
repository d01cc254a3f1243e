"""From a charge to its answer: a worker draws, the ledger keeps it, and it is taken at a time that tells nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from apps.budgets import ledger
from apps.budgets.models import Release
from apps.budgets.states import State
from apps.compute import spending
from apps.compute.messages import Draw, Value
from apps.compute.workers import Worker
from apps.core.database import in_database
from gridclient.wire.errors import ConflictError, GridError, InternalError

MOST_LOOKS, LOOK_AGAIN = 20, 0.25
"""How often, and after how many seconds, an answer is looked for that another attempt draws."""


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
