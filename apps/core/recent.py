"""The last errors of this process's log, for the people who look after it: what happened and where, never a message.

Messages and arguments may hold anything; the class of an exception and a place in the source hold nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MOST = 20


@dataclass(frozen=True, slots=True)
class Recent:
    """One line of the log."""

    at: str
    error: str
    """The class of the exception; empty where none was logged."""
    place: str
    """Module, line and function: where it was raised, or else logged."""
    logger: str


_kept: deque[Recent] = deque(maxlen=MOST)


class RecentErrors(logging.Handler):
    """Keeps the last errors in memory."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        error, trace = record.exc_info[1:] if isinstance(record.exc_info, tuple) else (None, None)
        place = _raised_at(trace) or _place(record.pathname, record.lineno, record.funcName)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat()
        _kept.append(Recent(moment, type(error).__name__ if error is not None else "", place, record.name))


def recent_errors() -> list[dict[str, Any]]:
    """The last errors, the newest first."""
    return [asdict(each) for each in reversed(_kept)]


def _raised_at(trace: TracebackType | None) -> str:
    """The innermost place in our own source; in a library's where there is none."""
    found = ""
    ours = False
    while trace is not None:
        code = trace.tb_frame.f_code
        here = _is_ours(code.co_filename)
        if here or not ours:
            found, ours = _place(code.co_filename, trace.tb_lineno, code.co_name), here
        trace = trace.tb_next
    return found


def _is_ours(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("apps", "gridsite", "client_sdk")


def _place(file: str, line: int, function: str | None) -> str:
    """No folder of this machine is in it."""
    path = Path(file)
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts) if _is_ours(file) else path.name
    return f"{module}:{line} {function or ''}".rstrip()
