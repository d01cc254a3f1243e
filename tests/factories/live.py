"""Sessions that are open, without sockets: as the process that has them writes them down."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

from apps.accounts.models import User
from apps.compute.live import write
from apps.compute.models import LiveSession, WebProcess
from apps.core import clock

MIB = 2**20


def serving(*, seen: datetime | None = None, **report: Any) -> WebProcess:
    """A process that serves, as it wrote itself down last."""
    usage = {"pid": 4711, "rss": 90 * MIB, "pss": 60 * MIB, "cpu": 1500}
    quiet = {"database": {"waiting": 0, "turn": 1}, "own": usage, "forkserver": usage, "workers": [], "errors": []}
    seen = seen or clock.now()
    return WebProcess(
        id=uuid4(), host="ward-1", pid=4711, started=seen, seen=seen, report=quiet | {"isolated": True} | report
    )


def session_of(user: User, process: WebProcess, **fields: Any) -> LiveSession:
    """One session, not written yet."""
    given = {"id": uuid4(), "client": "gridclient 0.1.0", "opened": process.seen}
    return LiveSession(**{**given, **fields}, process=process, user=user)


def open_session(user: User, *, seen: datetime | None = None, **fields: Any) -> LiveSession:
    """One session in a process of its own, written down."""
    process = serving(seen=seen)
    session = session_of(user, process, **fields)
    write(process, [session])
    return session


def worker_of(session: LiveSession, *, isolated: bool = True) -> dict[str, Any]:
    """Its worker, as a report has it."""
    return {
        "pid": 4712, "session": str(session.pk), "isolated": isolated, "rss": 300 * MIB, "pss": 40 * MIB, "cpu": 2500,
    }  # fmt: skip
