"""Typed environment variables that refuse nonsense.

Every variable can be given as `NAME` or, for secrets in files, as `NAME_FILE`. Each read is remembered with its help
text: `docs/reference/settings.md` is generated from that list.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")
# Inside the class, `str` and the like are its methods.
Text = str
Flag = bool
Number = int
Texts = list[str]
Database = dict[str, Any]
# What libpq is told besides where the database is.
DATABASE_OPTIONS = ("sslmode", "sslrootcert", "connect_timeout", "application_name", "options")


@dataclass(frozen=True)
class Variable:
    name: str
    kind: str
    default: str
    help: str


class Env:
    """Reads variables from `source`; `variables` lists what was read."""

    def __init__(self, source: Mapping[str, str] = os.environ) -> None:
        self.source = source
        self.variables: list[Variable] = []

    def _read(self, name: str, kind: str, default: T, help: str, parse: Callable[[str], T]) -> T:
        shown = (
            ",".join(default) if isinstance(default, list) else str(default) if not isinstance(default, dict) else ""
        )
        self.variables.append(Variable(name, kind, shown, help))
        raw, file = self.source.get(name), self.source.get(f"{name}_FILE")
        if raw is not None and file is not None:
            raise ImproperlyConfigured(f"{name} and {name}_FILE are both set; keep one.")
        if file is not None:
            try:
                raw = Path(file).read_text().strip()
            except OSError as error:
                raise ImproperlyConfigured(
                    f"{name}_FILE names {file}, which cannot be read: {error.strerror}."
                ) from None
        if raw is None:
            return default
        try:
            return parse(raw)
        except ValueError as error:
            # The value may be a secret: the message never repeats it.
            raise ImproperlyConfigured(f"{name} is not valid: {error}.") from None

    def str(self, name: Text, default: Text = "", *, help: Text, choices: tuple[Text, ...] = ()) -> Text:
        def parse(raw: Text) -> Text:
            if choices and raw not in choices:
                raise ValueError(f"it must be one of {', '.join(choices)}")
            return raw

        return self._read(name, " or ".join(choices) or "text", default, help, parse)

    def bool(self, name: Text, default: Flag, *, help: Text) -> Flag:
        def parse(raw: Text) -> Flag:
            known = {
                "1": True,
                "true": True,
                "yes": True,
                "on": True,
                "0": False,
                "false": False,
                "no": False,
                "off": False,
            }
            if raw.lower() not in known:
                raise ValueError("it must be true or false")
            return known[raw.lower()]

        return self._read(name, "true or false", default, help, parse)

    def int(self, name: Text, default: Number, *, help: Text, low: Number = 0, high: Number = 2**62) -> Number:
        def parse(raw: Text) -> Number:
            try:
                value = Number(raw)
            except ValueError:
                raise ValueError("it must be a whole number") from None
            if not low <= value <= high:
                raise ValueError(f"it must lie between {low} and {high}")
            return value

        return self._read(name, "whole number", default, help, parse)

    def list(self, name: Text, default: tuple[Text, ...] = (), *, help: Text) -> Texts:
        return self._read(
            name, "comma-separated", list(default), help, lambda raw: [p.strip() for p in raw.split(",") if p.strip()]
        )

    def path(self, name: Text, default: Path, *, help: Text) -> Path:
        def parse(raw: Text) -> Path:
            if not raw:
                raise ValueError("it must name a folder")
            return Path(raw).resolve()

        return self._read(name, "folder", default, help, parse)

    def url(self, name: Text, default: Text = "", *, help: Text) -> Text:
        def parse(raw: Text) -> Text:
            if raw and (urlsplit(raw).scheme not in ("http", "https") or not urlsplit(raw).hostname):
                raise ValueError("it must begin with http:// or https:// and name a host")
            return raw.rstrip("/")

        return self._read(name, "URL", default, help, parse)

    def address(self, name: Text, *, help: Text) -> Text:
        """`host:port`, an IPv6 address in brackets; unset: empty."""

        def parse(raw: Text) -> Text:
            parts = urlsplit(f"//{raw}")
            if not parts.hostname or not _port(parts) or parts.netloc != raw or "@" in raw:
                raise ValueError("it must be host:port")
            return raw

        return self._read(name, "host:port", "", help, parse)

    def database(self, name: Text, default: Database, *, help: Text) -> Database:
        """`postgres://user:password@host:port/name?sslmode=require`; unset means the embedded SQLite."""
        return self._read(name, "postgres://...", default, help, _postgres)

    def redis(self, name: Text, *, help: Text) -> Text:
        """`redis://:password@host:port/number`, `rediss://...` with TLS, or `unix:///path?db=number`; unset: empty."""
        return self._read(name, "redis://...", "", help, _redis)


def _postgres(raw: str) -> Database:
    """Django's form of an address of PostgreSQL. Raises ValueError, also for an option that would have no effect."""
    parts = urlsplit(raw)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("it must begin with postgres://")
    if len(parts.path) < 2:
        raise ValueError("it must end with the name of a database")
    options: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in (*DATABASE_OPTIONS, "host"):
            raise ValueError(f"its option {key} is not known; known are {', '.join((*DATABASE_OPTIONS, 'host'))}")
        if not value or key in options:
            raise ValueError(f"its option {key} is empty or given twice")
        options[key] = value
    host = unquote(parts.hostname or "")
    if host and "host" in options:
        raise ValueError("it names two hosts, one before the path and one as an option")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", host),
        "PORT": _port(parts),
        "CONN_MAX_AGE": None,
        # A server that was restarted costs no request.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


def _port(parts: SplitResult) -> str:
    try:
        return str(parts.port or "")
    except ValueError:
        # Its text would repeat what stands there: part of a password that was not percent-encoded.
        raise ValueError("its port is no number; a password with / # ? or @ is percent-encoded") from None


def _redis(raw: str) -> str:
    """An address of Redis as it is. Raises ValueError."""
    parts = urlsplit(raw)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("it must begin with redis://, rediss:// or unix://")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("it must name a host, or the path of a socket after unix://")
    _port(parts)
    return raw
