"""What is alive in this process, told to the other processes and to the console through the database.

Sessions enter themselves here; one task writes them down, with the load of the process, every `BEAT` seconds and soon
after one came, went or changed its socket. Nothing here is on the path of an ask. The same task reads which sessions
somebody wants stopped, and stops them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID, uuid4

from django.db import DatabaseError, transaction

from apps.compute.models import LiveSession, WebProcess
from apps.compute.queries import SILENT_AFTER
from apps.compute.usage import ELSEWHERE, usage_of
from apps.compute.workers import Worker, Workers
from apps.core import clock
from apps.core.database import delete_unlocked, in_database, waiting
from apps.core.recent import recent_errors
from apps.core.wake import forget, listen
from gridclient.wire.errors import SessionStoppedError

logger = logging.getLogger(__name__)
BEAT = 10.0
GATHER = 0.25
"""Seconds between two writings at the least: what many sessions do at a time is written once."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a session stands."""

    user: UUID
    client: str
    opened: datetime
    waits_since: datetime | None
    asks: int
    last_error: tuple[str, datetime] | None
    worker: Worker | None


class Living(Protocol):
    """A session, as its conversation has it."""

    id: str

    def look(self) -> Look: ...

    async def stop(self, error: SessionStoppedError) -> None:
        """End it, and let whoever comes back for it know why."""


_here: dict[UUID, Living] = {}
_news: set[asyncio.Event] = set()
_stopping: dict[UUID, asyncio.Task[None]] = {}


@contextmanager
def session(living: Living) -> Iterator[None]:
    """Show a session for as long as it lives."""
    key = UUID(living.id)
    _here[key] = living
    changed()
    try:
        yield
    finally:
        del _here[key]
        changed()


def changed() -> None:
    """A session came, went, or changed its socket: it is written soon."""
    for event in _news:
        event.set()


async def run(workers: Workers) -> None:
    """Tell what is alive here, and stop what shall stop, until cancelled; then nothing is alive here any more."""
    process = WebProcess(id=uuid4(), host=socket.gethostname()[:64], pid=os.getpid(), started=clock.now())
    news = listen("sessions")
    _news.add(news)
    try:
        measured = -BEAT
        while True:
            news.clear()
            try:
                await _stop_those_to_stop(process)
                if time.monotonic() - measured >= BEAT:
                    measured, process.report = time.monotonic(), await _report(workers)
                process.seen = clock.now()
                await in_database(write, process, [_row(key, process, one.look()) for key, one in _here.items()])
            except Exception as error:
                # Whatever it is: without this task nobody could stop a session.
                known = isinstance(error, DatabaseError)
                logger.error("What is alive here could not be told (%s).", type(error).__name__, exc_info=not known)
                await asyncio.sleep(BEAT)
            await asyncio.sleep(GATHER)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, BEAT - (time.monotonic() - measured))):
                    await news.wait()
    finally:
        _news.discard(news)
        forget("sessions", news)
        with suppress(DatabaseError):
            await in_database(_leave, process.pk)


async def _stop_those_to_stop(process: WebProcess) -> None:
    """Side by side: a client that does not read is waited for, and nobody else waits with it."""
    if not _here:
        return
    for row in await in_database(_to_stop, process.pk):
        living = _here.get(row.pk)
        if living is not None and row.pk not in _stopping:
            task = _stopping[row.pk] = asyncio.create_task(living.stop(_reason_of(row)))
            task.add_done_callback(partial(_stopped, row.pk))


def _stopped(key: UUID, task: asyncio.Task[None]) -> None:
    del _stopping[key]


def _reason_of(row: LiveSession) -> SessionStoppedError:
    who = (
        "You ended this session from elsewhere"
        if row.stopped_by_id == row.user_id
        else ("An administrator of this node ended this session")
    )
    return SessionStoppedError(f"{who}: {row.stop_reason}")


def _row(key: UUID, process: WebProcess, look: Look) -> LiveSession:
    error, at = look.last_error or ("", None)
    return LiveSession(
        id=key,
        process=process,
        user_id=look.user,
        client=look.client,
        opened=look.opened,
        waits_since=look.waits_since,
        asks=look.asks,
        last_error=error,
        last_error_at=at,
    )


# --- load ---------------------------------------------------------------------------------------------------------


async def _report(workers: Workers) -> dict[str, Any]:
    """The load of this process. Whole numbers: bytes and milliseconds."""
    asked = time.monotonic()
    behind = waiting()
    await in_database(lambda: None)
    turn = time.monotonic() - asked
    owners = {look.worker: str(key) for key, look in ((key, one.look()) for key, one in _here.items())}
    alive = [(owners.get(worker), worker) for worker in workers.alive]
    return {
        "database": {"waiting": behind, "turn": round(turn * 1000)},
        "isolated": workers.isolated,
        **await asyncio.to_thread(_measure, workers.forkserver, alive),
        "errors": recent_errors(),
    }


def _measure(forkserver: int | None, alive: Iterable[tuple[str | None, Worker]]) -> dict[str, Any]:
    found = []
    for session, worker in alive:
        # What one on another machine takes is that machine's to tell.
        usage = ELSEWHERE if worker.pid is None else usage_of(worker.pid)
        if usage is not None:
            found.append({"pid": worker.pid, "session": session, "isolated": worker.isolated, **asdict(usage)})
    return {
        "own": _usage(os.getpid()),
        "forkserver": None if forkserver is None else _usage(forkserver),
        "workers": found,
    }


def _usage(pid: int) -> dict[str, Any] | None:
    usage = usage_of(pid)
    return None if usage is None else {"pid": pid, **asdict(usage)}


# --- the database -------------------------------------------------------------------------------------------------

_WRITTEN = ["waits_since", "asks", "last_error", "last_error_at"]


@transaction.atomic
def write(process: WebProcess, sessions: list[LiveSession]) -> None:
    """Write a process and all of its sessions, and clear away processes that have fallen silent."""
    WebProcess.objects.bulk_create(
        [process], update_conflicts=True, unique_fields=["id"], update_fields=["seen", "report"]
    )
    # All of them each time: whatever another process thought of this one meanwhile, it is right again now. What
    # somebody wrote who wants one stopped stays.
    LiveSession.objects.bulk_create(sessions, update_conflicts=True, unique_fields=["id"], update_fields=_WRITTEN)
    LiveSession.objects.filter(process=process).exclude(pk__in=[row.pk for row in sessions]).delete()
    delete_unlocked(WebProcess.objects.filter(seen__lte=process.seen - 2 * SILENT_AFTER))


def _leave(key: UUID) -> None:
    WebProcess.objects.filter(pk=key).delete()


def _to_stop(key: UUID) -> list[LiveSession]:
    return list(LiveSession.objects.filter(process=key, stopped_at__isnull=False))
