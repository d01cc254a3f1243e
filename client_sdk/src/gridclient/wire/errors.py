"""The one tree of errors, the same classes on both ends of the wire.

    GridError
    ├── AuthenticationError          who you are could not be established
    ├── VersionMismatchError         the two ends speak different protocols
    ├── ConnectionLostError          the peer is not there (any more)
    ├── SessionStoppedError          somebody who may do so has ended the session: it does not go on
    ├── NotFoundError                absent, or not for you: the two look alike
    ├── NotPermittedError            you may see it, but not do this
    │   ├── GetNotPermittedError     ... take this value (carries `.request(reason=...)` in the SDK)
    │   └── PublishNotPermittedError ... publish here
    ├── UnboundedError               no bound is known for what one person contributes
    ├── TooNoisyError                the noise would drown the answer: nothing was charged (with the estimate)
    ├── BudgetExhaustedError         the budget does not allow it: nothing was charged (with what remains)
    ├── RequestPendingError          nobody has decided yet
    ├── RequestDeniedError           decided: no (with the reason)
    ├── RemoteValueError             a value was asked of a pointer without `.get()`
    ├── OperationNotAllowedError     not in the table of operations
    ├── ShapeError                   the operands do not fit together
    ├── DifferentNodesError          the operands live on two nodes
    ├── LimitExceededError           a stated cap was reached
    ├── InvalidInputError            an argument is wrong; says what is allowed
    ├── ConflictError                the thing changed or exists already
    └── InternalError                ours, not yours; says nothing about data

Each has a stable `code`; over the wire travel the code, the message and `details` (public values only).
`status` is the HTTP status, `close` the websocket close code for errors that end a session.
"""

from __future__ import annotations

from typing import Any


class GridError(Exception):
    """Base of all errors. `details` holds what a program may want to read, as plain JSON values."""

    code = "error"
    status = 400
    close: int | None = None

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class AuthenticationError(GridError):
    """Who you are could not be established."""

    code, status, close = "authentication", 401, 4401


class VersionMismatchError(GridError):
    """The two ends speak different protocols."""

    code, status, close = "version_mismatch", 426, 4426


class ConnectionLostError(GridError):
    """The other end is not there, or not any more."""

    code, status = "connection_lost", 503


class SessionStoppedError(GridError):
    """Somebody who may do so has ended the session, and says why: it does not go on, and no client opens it again."""

    code, status, close = "session_stopped", 409, 4410


class NotFoundError(GridError):
    """Absent, or not for you: the two look alike."""

    code, status = "not_found", 404


class NotPermittedError(GridError):
    """You may see it, but not do this."""

    code, status = "not_permitted", 403


class GetNotPermittedError(NotPermittedError):
    """The value may not leave. `details["possible"]` lists, in words, what is possible instead."""

    code = "get_not_permitted"


class PublishNotPermittedError(NotPermittedError):
    """You may not publish here."""

    code = "publish_not_permitted"


class UnboundedError(GridError):
    """No bound is known for what one person contributes. `details["operation"]` is where it was lost."""

    code, status = "unbounded", 400


class TooNoisyError(GridError):
    """The noise would drown the answer: refused before anything is charged. `details["estimate"]` says how much."""

    code, status = "too_noisy", 409

    @property
    def estimate(self) -> dict[str, Any]:
        """What `.estimate(...)` would have said."""
        return dict(self.details.get("estimate", {}))


class BudgetExhaustedError(GridError):
    """The budget does not allow this answer; nothing was charged."""

    code, status, close = "budget_exhausted", 409, 4409

    @property
    def remaining(self) -> float:
        """What is left, as a part of the epsilon that all answers together may take."""
        return float(self.details.get("remaining", 0.0))


class RequestPendingError(GridError):
    """Nobody has decided on the request yet."""

    code, status = "request_pending", 409


class RequestDeniedError(GridError):
    """The request was decided: no. The message has the reason."""

    code, status = "request_denied", 403


class RemoteValueError(GridError, RuntimeError):
    """The value of a pointer was needed without `.get()`."""

    code = "remote_value"


class OperationNotAllowedError(GridError, RuntimeError):
    """Not in the table of operations. `details["operation"]` is its name."""

    code = "operation_not_allowed"


class ShapeError(GridError, RuntimeError):
    """The operands do not fit together."""

    code = "shape"


class DifferentNodesError(GridError):
    """The operands live on two nodes."""

    code = "different_nodes"


class LimitExceededError(GridError):
    """A stated cap was reached: `details["limit"]`."""

    code, status = "limit_exceeded", 429


class InvalidInputError(GridError, ValueError):
    """An argument is wrong. `details["problems"]`, where there are several, lists every one of them."""

    code, status = "invalid_input", 400


class ConflictError(GridError):
    """The thing changed meanwhile, or exists already."""

    code, status = "conflict", 409


class InternalError(GridError):
    """Our fault, not yours. Says nothing about data."""

    code, status = "internal", 500


def _tree(root: type[GridError]) -> list[type[GridError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


BY_CODE: dict[str, type[GridError]] = {cls.code: cls for cls in _tree(GridError)}


def from_code(code: str, message: str, details: dict[str, Any]) -> GridError:
    """Rebuild an error that the other end sent; an unknown code becomes a plain `GridError`."""
    error = BY_CODE.get(code, GridError)(message)
    error.details = dict(details)
    return error
