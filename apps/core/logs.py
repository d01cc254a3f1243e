"""How this deployment logs: plain lines or JSON, with whose session it is about, and with secrets taken out.

The filter stands on the one handler, in front of everything that is written: messages, arguments, tracebacks. It knows
this deployment's own secrets by heart, and those of its users by their form.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

REMOVED = "[removed]"
LONGEST = 32_768
"""Characters of a text that are looked through; the rest is cut off, not written unseen."""
SHORTEST = 8
"""A shorter secret of our own would be found in words."""
KEY_FILES = ("signing.key", "entity.key", "secret.key")

# Bounded on both sides: the time to look through a line must not grow with the square of a word's length.
_NAME = (
    r"\b\w{0,24}(?:passw(?:or)?d|passphrase|secret|token|credential|assertion|signature|cookie|csrf|session_?key|resume"
    r"|private_?key|signing_?key|entity_?key|api_?key|challenge|proof)\w{0,24}\b"
)
_FORMS = re.compile(
    "|".join(
        [
            # A header in a dict, in a list of pairs, or as it travels.
            r"authorization['\"]?\s*[:=,]\s*(?:b?'[^'\n]*'?|b?\"[^\"\n]*\"?|[^\n]*)",
            r"\b(?:bearer|basic)\s+[\w~+/.=-]{6,}",
            r"grd_[\w-]*",
            # A name that promises a secret, and the value that follows it.
            rf"(?P<name>{_NAME}['\")]?\s*[:=]\s*)"
            r"(?:b?'(?:[^'\\\n]|\\.)*'?|b?\"(?:[^\"\\\n]|\\.)*\"?|\[[^\]\n]*\]?|\([^)\n]*\)?|\{[^}\n]*\}?|[^\s,;&)}\]]+)",
            # User and password in an address.
            r"(?<=://)[^\s/@'\"]{1,300}@",
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY-----|\Z)",
            r"\$argon2[^\s'\"]+",
            # 32 bytes or more: a resume token, a key, a signature. A digest of 32 bytes looks the same, and goes too.
            r"(?<![0-9a-f])[0-9a-f]{64,}",
        ]
    ),
    re.IGNORECASE | re.DOTALL,
)
# 256 random bits in base64 for addresses: small letters, capitals and digits in one long word.
_RANDOM = re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{43,}")


@lru_cache(8)
def _in_files(folder: Path, present: tuple[str, ...]) -> tuple[str, ...]:
    """The keys in `folder`, in every way in which a program shows bytes."""
    found: list[str] = []
    for name in present:
        data = (folder / name).read_bytes()
        found += [data.hex(), base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()]
        found += [repr(data)[2:-1], str(list(data))[1:-1], data.decode("ascii", "ignore").strip()]
    return tuple(found)


def _own_secrets() -> list[str]:
    folder = Path(settings.GRID_KEYS_DIR)
    try:
        found = list(_in_files(folder, tuple(name for name in KEY_FILES if (folder / name).exists())))
    except OSError:  # not ours to read: then nothing that we write holds it
        found = []
    with suppress(ImproperlyConfigured):  # empty: `manage.py check --deploy` says so
        found.append(settings.SECRET_KEY)
    found += [settings.GRID_METRICS_TOKEN, settings.DATABASES["default"].get("PASSWORD", "")]
    return [secret for secret in found if len(secret) >= SHORTEST]


def clean(text: str) -> str:
    """The text without secrets."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + f"... ({len(text)} characters)"
    for secret in _own_secrets():
        text = text.replace(secret, REMOVED)
    text = _FORMS.sub(lambda found: (found["name"] or "") + REMOVED, text)
    return _RANDOM.sub(REMOVED, text)


class SecretFilter(logging.Filter):
    """Takes secrets out of a record, before any formatter sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:
            # The handler would print the arguments as they are.
            message = f"{record.msg} (its arguments do not fit it)"
        record.msg, record.args = clean(message), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = clean(record.exc_text)
        if record.stack_info:
            record.stack_info = clean(record.stack_info)
        return True


_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Lines of JSON that are written within, or by tasks that were started within, have these fields."""
    before = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        # What one task began another may end: the fields are gone with the context of the first.
        with suppress(ValueError):
            _about.reset(before)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message; session and user where there are any; error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(_about.get() or {}),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["error"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False)


def log_all() -> None:
    """Send to the log what Python would write on standard error by itself: warnings, and errors that nobody caught."""
    logging.captureWarnings(True)
    logger = logging.getLogger("python")

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, Exception):
            logger.critical("An error that nobody caught.", exc_info=(kind, error, trace))

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            uncaught(found.exc_type, found.exc_value, found.exc_traceback)

    def unraisable(found: Any) -> None:
        if found.exc_value is not None:
            uncaught(found.exc_type, found.exc_value, found.exc_traceback)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, uncaught_in_thread, unraisable


class OnceAMinute(logging.Filter):
    """Lets each text through once a minute, without its traceback: what repeats as long as a server is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = record.getMessage(), time.monotonic()
        if now - self._said.get(text, float("-inf")) < 60:
            return False
        self._said[text] = now
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = "%s (%s)", (text, record.exc_info[0].__name__)
        record.exc_info = record.exc_text = None
        return True
