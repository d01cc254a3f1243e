"""What ends a question or a session, as errors to raise."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from gridclient import settings
from gridclient.wire.errors import ConnectionLostError, GridError, from_code
from gridclient.wire.messages import Refused


def refusal(refused: Refused) -> GridError:
    """The error that a refusal stands for; it names the line of the operation at fault."""
    error = from_code(refused.code, with_line(refused.message, refused.line), refused.details)
    if refused.line:
        error.details["line"] = refused.line
    return error


def with_line(message: str, line: object) -> str:
    """The message with where the operation was recorded."""
    return f"{message} (recorded at {line})" if line and str(line) not in message else message


def again(error: GridError) -> GridError:
    """The same error, fresh: an exception that is raised twice keeps growing its traceback."""
    return from_code(error.code, error.message, error.details)


def end(waiting: Future[Any], error: GridError) -> None:
    """Tell whoever waits, unless they know already."""
    if not waiting.done():
        waiting.set_exception(error)


def silent() -> GridError:
    """The node said nothing for too long."""
    return ConnectionLostError(
        f"The node did not answer within {settings.timeout:g} seconds (grid.settings.timeout). "
        "Ask again, or connect again."
    )
