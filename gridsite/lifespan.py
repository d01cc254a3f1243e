"""What lives as long as the process: the worker pool, the node's announcements, the runner of approved requests, the
account of what is alive, and what is done once a day.

Announcing and running are for one process of a deployment: the others wait for their turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError

from apps.accounts.once import forget_old
from apps.audit import countersigned as audit_log
from apps.budgets import countersigned as ledger
from apps.budgets import outside as ledger_head
from apps.budgets import records
from apps.budgets.ledger import give_up_unanswered
from apps.compute import live
from apps.compute.sessions import pool
from apps.core import countersigned, metrics, wake
from apps.core.database import in_database
from apps.core.locks import alone, remove_left, turn
from apps.datarequests import runner, tidy
from apps.datasets.actions import remove_orphans
from apps.network import announcer
from apps.wire import parked
from gridclient.wire.errors import GridError

logger = logging.getLogger(__name__)
DAY = 86_400.0
LOGS = (audit_log.LOG, ledger.LOG)
"""For which a node's network is a witness."""
DAILY = (
    (forget_old, "Old replies could not be removed"),
    (give_up_unanswered, "Private answers that nobody came back for could not be given up"),
)
"""What is done once a day, and what is said where it fails."""


class Lifespan:
    """The ASGI lifespan protocol. `state["workers"]` reaches every connection through its scope."""

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await receive()
        tasks: list[asyncio.Task[None]] = [_task(metrics.watch_loop(), "loop")]
        workers = pool()
        scope["state"]["workers"] = workers
        tasks.append(_task(daily(), "daily"))
        tasks.append(_task(wake.hear(), "signals"))
        if settings.GRID_ROLE == "node":
            await in_database(_tidy)
            await in_database(_look_at_logs)
            await workers.start()
            tasks.append(_task(_by_turns("requests", partial(runner.run, workers)), "requests"))
            tasks.append(_task(live.run(workers), "sessions"))
            if settings.GRID_NETWORK_URL:
                tasks.append(_task(_by_turns("announcer", partial(announcer.run, LOGS)), "announcer"))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parked.end_all()
        await workers.close()
        await send({"type": "lifespan.shutdown.complete"})


async def daily() -> None:
    """Forget the replies that were kept long enough, and give up private answers that nobody came back for: at the
    start, then once a day."""
    while True:
        for work, failed in DAILY:
            try:
                await in_database(work)
            except (DatabaseError, GridError) as error:
                logger.warning("%s (%s); tomorrow again.", failed, type(error).__name__)
        await asyncio.sleep(DAY)


def _tidy() -> None:
    """Remove what an ended process left of sessions, publications and requests that did not end: it is nobody's."""
    storage = Path(settings.GRID_STORAGE_DIR)
    with alone("tidy"):
        for left in (*storage.glob("sessions/*"), *storage.glob("datasets/incoming-*")):
            remove_left(left)
        remove_orphans()
        tidy.remove_orphans()


def _look_at_logs() -> None:
    """A ledger that lacks its head is frozen before anybody can spend from it a second time."""
    for log in LOGS:
        countersigned.heed_kept(log)
    problem = ledger_head.at_start()
    if not problem:  # a ledger that was set back doesn't name the records of what it lost
        records.remove_orphans()
    if not problem and not settings.GRID_DEVELOPMENT:
        problem = ledger_head.undurable()
    if problem:
        logger.critical("The privacy ledger: %s. Run `manage.py verify_ledger`.", problem)


async def _by_turns(name: str, work: Callable[[], Awaitable[None]]) -> None:
    async with turn(name):
        await work()


def _task(work: Any, name: str) -> asyncio.Task[None]:
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)

    def report(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.error("The background task %r ended.", name, exc_info=error)

    task.add_done_callback(report)
    return task
