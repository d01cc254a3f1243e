"""What must hold for this deployment to serve: one list, read by `/readyz` and by `manage.py doctor`.

Each check raises `Problem` with what is wrong and what to do. `/readyz` is for strangers too: it shows the checks'
names and whether they hold, and nothing of the words.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from functools import cache, partial
from pathlib import Path

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from apps.audit.queries import head_problem
from apps.budgets.outside import problem as ledger_problem
from apps.compute.workers import Workers
from apps.core.database import in_database
from gridclient.wire.errors import InternalError

logger = logging.getLogger(__name__)
PATIENCE = 2.0
"""Seconds that a check gets."""


class Problem(Exception):
    """What is wrong, in words for the operator, and what to do about it."""

    def __init__(self, words: str, advice: str) -> None:
        super().__init__(words)
        self.words = words
        self.advice = advice


def database() -> str:
    """It answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        raise Problem(
            f"The database does not answer ({type(error).__name__}).",
            "See that it runs, and that GRID_DATABASE_URL (or GRID_DIR, for SQLite) names it.",
        ) from None
    return connection.vendor


@cache
def _migrations() -> frozenset[tuple[str, str]]:
    """The migrations of this program. It does not change while it runs."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def migrations() -> str:
    """The database has the tables of this program."""
    database()
    try:
        missing = _migrations() - set(MigrationRecorder(connection).applied_migrations())
    except DatabaseError as error:
        raise Problem(f"The database's tables cannot be read ({type(error).__name__}).", "Look at its log.") from None
    if missing:
        raise Problem(
            f"{len(missing)} migrations are not applied.",
            "Stop the web processes, make a backup, and run: python manage.py migrate",
        )
    return f"{len(_migrations())} applied"


def writable() -> str:
    """Files can be written where values and keys are kept."""
    for name, folder in _folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            raise Problem(
                f"{name} cannot be written: {error.strerror}.",
                f"See that {folder} is on a disk that can be written, and belongs to this account.",
            ) from None
    return "yes"


def disk() -> str:
    """There is room for what comes next."""
    least = 2**62
    for name, folder in _folders():
        place = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(place).free
        least = min(least, free)
        if free < settings.GRID_DISK_FLOOR:
            raise Problem(
                f"The disk of {name} has {free // 2**20} MiB left; GRID_DISK_FLOOR asks for "
                f"{settings.GRID_DISK_FLOOR // 2**20}.",
                "Make room: old backups, other programs' files. Values of datasets are not removed by hand.",
            )
    return f"{least // 2**20} MiB free"


def _folders() -> Iterator[tuple[str, Path]]:
    yield "GRID_STORAGE_DIR", Path(settings.GRID_STORAGE_DIR)
    yield "GRID_KEYS_DIR", Path(settings.GRID_KEYS_DIR)
    if connection.vendor == "sqlite":
        yield "GRID_DIR", Path(settings.GRID_DIR)


def audit_head() -> str:
    """The log contains the head that is kept outside the database: it was not set back."""
    database()
    try:
        problem = head_problem()
    except DatabaseError as error:
        raise Problem(f"The audit log cannot be read ({type(error).__name__}).", "Look at its log.") from None
    if problem:
        raise Problem(
            f"The audit log was set back or changed: {problem}.",
            "Run: python manage.py verify_audit. After a restore, see docs/how-to/operate.md.",
        )
    return "on the chain"


def ledger() -> str:
    """The privacy ledger contains the head that is kept outside the database."""
    database()
    try:
        problem = ledger_problem()
    except DatabaseError as error:
        raise Problem(f"The privacy ledger cannot be read ({type(error).__name__}).", "Look at its log.") from None
    if problem:
        raise Problem(
            f"The privacy ledger was set back or changed: {problem}.",
            "Run: python manage.py verify_ledger. After a restore, two people open new epochs.",
        )
    return "on the chain"


Outcome = Problem | str
IN_DATABASE = {"database": database, "migrations": migrations, "audit": audit_head, "ledger": ledger}
ON_DISK = {"storage": writable, "disk": disk}


def _outcomes(checks: dict[str, Callable[[], str]]) -> dict[str, Outcome]:
    """Run checks one after the other."""
    found: dict[str, Outcome] = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except Problem as problem:
            found[name] = problem
        except Exception as error:
            logger.exception("The check %r failed itself.", name)
            found[name] = Problem(f"It cannot be looked at ({type(error).__name__}).", "The log says more.")
    return found


class Health:
    """Runs the checks of one process. `workers` None: a process that has none, like that of a network."""

    def __init__(self, workers: Workers | None) -> None:
        self._workers = workers
        self._channel: str | None = None
        self._open: dict[str, asyncio.Task[dict[str, Outcome]]] = {}

    async def examine(self) -> dict[str, Outcome]:
        """Every check by its name: a word about what was found, or the problem. Takes `PATIENCE` seconds at most."""
        looks = [
            self._patiently(list(IN_DATABASE), partial(in_database, _outcomes, IN_DATABASE)),
            self._patiently(list(ON_DISK), partial(asyncio.to_thread, _outcomes, ON_DISK)),
            self._patiently(["channel_layer"], self._channel_layer),
        ]
        if self._workers is not None:
            looks.append(self._patiently(["workers"], self._workers_up))
        found: dict[str, Outcome] = {}
        for outcomes in await asyncio.gather(*looks):
            found |= outcomes
        return found

    async def _patiently(
        self, names: list[str], look: Callable[[], Awaitable[dict[str, Outcome]]]
    ) -> dict[str, Outcome]:
        """What `look` finds. One that does not come back is not started a second time beside itself."""
        task = self._open.get(names[0])
        if task is None or task.done():
            task = self._open[names[0]] = asyncio.ensure_future(look())
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(task)
        except TimeoutError:
            late = Problem(f"It does not answer within {PATIENCE:g} seconds.", "See what keeps it busy, in its log.")
            return dict.fromkeys(names, late)

    async def _workers_up(self) -> dict[str, Outcome]:
        """A forkserver runs. One that has gone is started again here: while we are not ready, nobody else asks."""
        assert self._workers is not None
        try:
            if not self._workers.up:
                await self._workers.start()
        except (OSError, InternalError):
            return {"workers": Problem("Workers cannot be started.", "The log says why; often it is memory.")}
        return {"workers": f"{len(self._workers.alive)} at work"}

    async def _channel_layer(self) -> dict[str, Outcome]:
        """A message that a process sends arrives."""
        layer = get_channel_layer()
        if layer is None:
            return {"channel_layer": "none is configured"}
        try:
            # One channel for the process's life: some layers keep a subscription for each.
            channel, self._channel = self._channel or await layer.new_channel(), None
            async with asyncio.timeout(PATIENCE):
                await layer.send(channel, {"type": "health.check"})
                await layer.receive(channel)
        except Exception as error:  # whatever its client library raises
            problem = Problem(
                f"The channel layer does not answer ({type(error).__name__}).",
                "See that its server runs and that its address in the settings is right.",
            )
            return {"channel_layer": problem}
        self._channel = channel
        return {"channel_layer": "a message came back"}
