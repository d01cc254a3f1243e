"""What ends a question or a session, as errors to raise."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from gridclient import settings
from gridclient.wire.errors import BY_CODE, ConnectionLostError, GridError, LimitExceededError, from_code
from gridclient.wire.frames import MAX_BATCH
from gridclient.wire.messages import Refused

_BY_CLOSE = {cls.close: cls for cls in BY_CODE.values() if cls.close is not None}


class RestartedError(Exception):
    """The session that this ask or transfer belonged to is gone. Never reaches the user: it is asked again."""


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


def end(waiting: Future[Any], error: Exception) -> None:
    """Tell whoever waits, unless they know already."""
    if not waiting.done():
        waiting.set_exception(error)


def silent() -> GridError:
    """The node said nothing for too long."""
    return ConnectionLostError(
        f"The node did not answer within {settings.timeout:g} seconds (grid.settings.timeout). "
        "Ask again, or connect again."
    )


def cut_off(code: int | None, reason: str) -> GridError:
    """The socket was closed with this code.

    A node says goodbye first; this is for who stands in between, and for a node that could not.
    """
    kind = _BY_CLOSE.get(code or 0, ConnectionLostError)
    return kind(reason or "The connection to the node was lost. Check that it runs, then connect again.")


def given_up(url: str, seconds: float, attempts: int, last: str) -> GridError:
    """The connection did not come back."""
    return ConnectionLostError(
        f"The connection to {url} was lost and did not come back within {seconds:.0f} seconds and {attempts} attempts "
        f"(grid.settings.reconnect_for). The last one: {last} Check that the node runs, then connect again.",
        attempts=attempts,
    )


def cannot_be_replayed(url: str) -> GridError:
    """The node lost the session, and the client has not kept what its values are made from."""
    return ConnectionLostError(
        f"The node at {url} has lost this session, and its values cannot be computed again: what they are made from is "
        f"more than {settings.replay_memory} bytes (grid.settings.replay_memory). Connect again for a new session."
    )


def too_long(nbytes: int) -> GridError:
    """One command is longer than any batch."""
    return LimitExceededError(
        f"One command would take {nbytes} bytes; a batch has at most {MAX_BATCH}. Long lists belong into a tensor.",
        limit=MAX_BATCH,
    )
