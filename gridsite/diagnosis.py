"""What `manage.py doctor` looks at: the checks of settings and of readiness, and what only its operator may know."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from django.conf import settings
from django.core.checks import run_checks
from django.db import DatabaseError, connection

from apps.audit.models import AuditHead
from apps.audit.queries import verify
from apps.compute.sessions import limits, pool
from apps.core import clock
from apps.core.database import in_database
from apps.network import membership, outbound
from apps.network.identity import PATH
from apps.network.models import State
from gridclient.wire.errors import GridError, InternalError
from gridsite.health import Health, Outcome, Problem

MOST_SKEW = timedelta(seconds=5)
"""Of clocks: beyond it, sign-ins through the network fail (`network/assertions.py`)."""
FILES_OF_SESSION, SPARE_FILES = 6, 256
"""A client's socket, its worker's socket and process, transfers; and what database, libraries and strangers take."""
LEFT_BEHIND = timedelta(days=1)
Look = Callable[[], Awaitable[Outcome]]


async def diagnose() -> dict[str, Outcome]:
    """Everything by its name: a word about what was found, or the problem. Independent of whether a server runs."""
    complaints = run_checks(tags=["grid"], include_deployment_checks=True)
    found: dict[str, Outcome] = {
        f"settings {each.id}": Problem(each.msg, each.hint or "See docs/reference/settings.md.") for each in complaints
    }
    if not complaints:
        found["settings"] = "no complaint"
    # Without workers: this process has a pool of its own for one look, below.
    found |= await Health(None).examine()
    for name, look in _looks().items():
        try:
            found[name] = await look()
        except Problem as problem:
            found[name] = problem
        except DatabaseError as error:
            found[name] = Problem(f"The database does not answer ({type(error).__name__}).", "See 'database' above.")
    return found


def _looks() -> dict[str, Look]:
    found: dict[str, Look] = {
        "key files": _in_thread(key_files),
        "database settings": _in_database(database_settings),
        "audit log": _in_database(audit_log),
        "open files": _in_thread(open_files),
        "socket limits": _in_thread(socket_limits),
    }
    if settings.GRID_ROLE == "node":
        found |= {"worker processes": workers, "session folders": _in_thread(session_folders)}
        if settings.GRID_NETWORK_URL:
            found |= {"network": network_clock, "membership": _in_database(network_membership)}
    return found


def _in_thread(look: Callable[[], str]) -> Look:
    return lambda: asyncio.to_thread(look)


def _in_database(look: Callable[[], str]) -> Look:
    return lambda: in_database(look)


def key_files() -> str:
    """Nobody else reads the keys."""
    folder = Path(settings.GRID_KEYS_DIR)
    if not folder.exists():
        return "none yet; they are made at the first start"
    open_to_others = [path.name for path in folder.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_to_others:
        raise Problem(
            f"Other accounts of this machine may read keys: {', '.join(sorted(open_to_others))}.",
            f"chmod 600 {folder}/*",
        )
    if foreign := [path.name for path in folder.iterdir() if path.stat().st_uid != os.getuid()]:
        raise Problem(
            f"Keys belong to another account than this one: {', '.join(sorted(foreign))}.",
            "Run this command, and the server, as the account that owns them; or chown them.",
        )
    return "for this account only"


def database_settings() -> str:
    """What was acknowledged survives a power cut."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA journal_mode")
            journal = str(cursor.fetchone()[0])
            cursor.execute("PRAGMA synchronous")
            synchronous = int(cursor.fetchone()[0])
            if journal != "wal" or synchronous < 2:
                raise Problem(
                    f"SQLite runs with journal_mode={journal}, synchronous={synchronous}: a power cut may lose what "
                    "was acknowledged.",
                    "Keep the database on a local disk: network file systems refuse a write-ahead log.",
                )
            return "write-ahead log, synchronous"
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            cursor.execute(f"SHOW {name}")
            if (value := str(cursor.fetchone()[0])) == "off":
                raise Problem(
                    f"PostgreSQL runs with {name}={value}: a power cut may lose what was acknowledged.",
                    f"Set {name} = on in postgresql.conf.",
                )
        return "commits are durable"


def audit_log() -> str:
    """The whole chain holds."""
    if not (Path(settings.GRID_KEYS_DIR) / "signing.key").exists():
        # To look at the log would make a new key.
        if AuditHead.objects.exists():
            raise Problem(
                "The signing key is missing: this deployment cannot show who it is, nor that its log is its own.",
                "Put the keys back from their copy before you start it: a start makes others.",
            )
        return "not begun"
    report = verify()
    if not report:
        raise Problem(
            f"The audit log is not whole: {report.problem}.",
            "Run: python manage.py verify_audit. If nobody restored a backup, keep disk and keys as evidence.",
        )
    return f"{report.events} events, all whole. {report.problem}".strip()


def open_files() -> str:
    """There are descriptors for all sessions."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SPARE_FILES + FILES_OF_SESSION * settings.GRID_MAX_SESSIONS
    if soft < wanted:
        raise Problem(
            f"A process may open {soft} files; {settings.GRID_MAX_SESSIONS} sessions need {wanted}.",
            "Raise it: LimitNOFILE= in systemd, ulimits in compose, or ulimit -n; or lower GRID_MAX_SESSIONS.",
        )
    return f"{soft}"


def socket_limits() -> str:
    """The kernel keeps as many waiting connections as the server asks for."""
    try:
        backlog = int(Path("/proc/sys/net/core/somaxconn").read_text())
    except OSError:
        return "not known here"
    if backlog < 1024:
        raise Problem(
            f"The kernel keeps {backlog} waiting connections, the server asks for 1024: a crowd would be turned away.",
            "sysctl net.core.somaxconn=1024",
        )
    return f"backlog {backlog}"


async def workers() -> Outcome:
    """A worker starts, and has no network."""
    found = pool()
    try:
        with tempfile.TemporaryDirectory() as folder:
            await found.start()
            (await found.open("doctor", limits(), Path(folder))).kill()
    except InternalError as error:
        raise Problem(error.message, "Often it is memory, or a broken torch; see docs/how-to/operate.md.") from None
    except OSError:
        raise Problem("No worker could be started.", "What workers come from does not answer.") from None
    finally:
        await found.close()
    # Whether they keep the network is a check of the settings, grid.W001.
    return "one started" + (", without network" if found.isolated else "")


def session_folders() -> str:
    """No session left its files behind."""
    folder = Path(settings.GRID_STORAGE_DIR) / "sessions"
    before = (clock.now() - LEFT_BEHIND).timestamp()
    old = [path for path in folder.glob("*") if path.stat().st_mtime < before]
    if old:
        raise Problem(
            f"{len(old)} folders of sessions are older than {LEFT_BEHIND.days} day.",
            "If nobody is connected for that long: restart the node, which removes what sessions left.",
        )
    return "none left behind"


async def network_clock() -> Outcome:
    """The network answers, and its clock and ours agree."""
    url = settings.GRID_NETWORK_URL
    began = clock.now()
    try:
        reply = await outbound.call("HEAD", f"{url}{PATH}", cap=2**16)
    except GridError as error:
        raise Problem(
            f"The network cannot be reached: {error.message}", "See GRID_NETWORK_URL and GRID_OUTBOUND_ALLOW."
        ) from None
    skew = _skew(reply.date, began, clock.now())
    if skew > MOST_SKEW:
        raise Problem(
            f"The clocks of this machine and of the network differ by {skew.total_seconds():.0f} seconds.",
            "Set both by NTP: sign-ins through the network and announcements are refused.",
        )
    return f"answers; clocks within {max(skew.total_seconds(), 1):.0f} s"


def _skew(told: str, began: datetime, ended: datetime) -> timedelta:
    """How far the clock that wrote `told`, to whole seconds, must at least have been from ours in between."""
    try:
        theirs = parsedate_to_datetime(told)
    except ValueError:
        return timedelta(0)  # it tells no time
    return max(began - theirs - timedelta(seconds=1), theirs - ended, timedelta(0))


def network_membership() -> str:
    """This node belongs to its network."""
    own = membership.current()
    if own is None:
        raise Problem("The network has not been reached yet.", "Start the node, and see 'network' above.")
    if own.frozen or own.problem:
        raise Problem(f"The network: {own.problem}", "In the console under Network, or: node.membership() from Python.")
    if own.state != State.APPROVED:
        raise Problem(
            f"The network's operator has not let this node in: {State(own.state).label}.",
            "Ask the operator of the network to approve it.",
        )
    return f"a member, as {own.node_id}"
