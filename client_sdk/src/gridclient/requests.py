"""The queue, from the side of who asks and of who decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gridclient import html
from gridclient.progress import Waiting
from gridclient.wire import errors
from gridclient.wire.errors import GridError, InvalidInputError, RequestDeniedError, RequestPendingError

if TYPE_CHECKING:
    from gridclient.node import Node

_OPEN = ("submitted", "approved")
_SOONEST, _LATEST = 0.05, 2.0


def checked_reason(reason: Any) -> str:
    """Raise InvalidInputError unless it is a text that says something."""
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidInputError("reason says why you ask for this value; the people who decide read it.")
    return reason


class GetNotPermittedError(errors.GetNotPermittedError):
    """The value may not leave; `.request(reason=...)` puts it into the queue."""

    def __init__(self, refused: GridError, submit: Callable[[str], DataRequest]) -> None:
        super().__init__(refused.message, **refused.details)
        self._submit = submit

    def request(self, reason: str) -> DataRequest:
        """Ask the people who decide on this data for this one value."""
        return self._submit(reason)


class DataRequest:
    """One value that was asked for. `.state` is what this object knows, `.status` asks the node."""

    def __init__(self, node: Node, fields: dict[str, Any]) -> None:
        self._node = node
        self._fields = fields

    @property
    def id(self) -> str:
        return str(self._fields["id"])

    @property
    def state(self) -> str:
        """submitted, approved, denied, withdrawn or delivered, when last looked at."""
        return str(self._fields["state"])

    @property
    def status(self) -> str:
        """The state now."""
        return self.refresh().state

    @property
    def reason(self) -> str:
        """Why it was asked for."""
        return str(self._fields["reason"])

    @property
    def requester(self) -> str:
        return str(self._fields["requester"])

    @property
    def asked(self) -> str:
        """When it was asked for: ISO 8601."""
        return str(self._fields.get("created", ""))

    @property
    def decision_reason(self) -> str:
        """What the person who decided wrote; empty before."""
        return str(self._fields["decision_reason"])

    @property
    def words(self) -> str:
        """The program, as the person who decides reads it."""
        return str(self._fields["words"])

    @property
    def program_hash(self) -> str:
        """What names the program: an approval is for it alone, and a `train` grant may be."""
        return str(self._fields["program_hash"])

    @property
    def fields(self) -> dict[str, Any]:
        """All that the node told about it, when last looked at."""
        return dict(self._fields)

    @property
    def url(self) -> str:
        """Where people look at it in the node's console."""
        return f"{self._node.url}/admin/datarequests/datarequest/{self.id}/change/"

    def __repr__(self) -> str:
        where = f"on {html.plain(self._node.id)}"
        return (
            f"<DataRequest {html.plain(self.id[:8])} {html.plain(self.state)} {where}: {html.quoted(self.reason[:60])}>"
        )

    def _repr_html_(self) -> str:
        facts = {
            "state": html.text(self.state),
            "node": html.text(self._node.id),
            "requester": html.text(self.requester),
            "asked": html.text(self.asked),
            "reason": html.paragraphs(self.reason),
            "decision": html.paragraphs(self.decision_reason),
            "page": html.link(self.url),
        }
        program = f"<details><summary>program</summary>{html.paragraphs(self.words)}</details>" if self.words else ""
        return html.card("DataRequest", self.id[:8], facts, below=program)

    def refresh(self) -> DataRequest:
        """Look at it again."""
        self._fields = self._node.http.get(f"requests/{self.id}/")
        return self

    def wait(self, timeout: float | None = None) -> DataRequest:
        """Block until it is decided and, where approved, answered. RequestPendingError after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = _SOONEST
        with Waiting(f"waiting for request {self.id[:8]}") as waiting:
            while not self.refresh()._settled():
                left = pause if until is None else min(pause, until - time.monotonic())
                if left <= 0:
                    raise RequestPendingError(
                        f"Nobody has settled this request within {timeout:g} seconds; it is {self.state}."
                    )
                time.sleep(left)
                waiting.show()
                pause = min(pause * 1.5, _LATEST)
        return self

    def get(self) -> Any:
        """The stored answer, as often as asked; of a module's state the tensors by name. While approved, waits for it.

        Raises RequestPendingError before the decision, RequestDeniedError with the reason after a denial.
        """
        self.refresh()
        if self.state == "submitted":
            raise RequestPendingError(
                "Nobody has decided on this request yet; wait(timeout=...) blocks until somebody has."
            )
        if self.state == "denied":
            raise RequestDeniedError(f"This request was denied: {self.decision_reason}", reason=self.decision_reason)
        if self.state == "approved":
            self.wait()
        found = self._node.fetch(self.id)
        self.refresh()
        names = self._fields.get("names") or []
        return {name: found[name] for name in names} if names else found

    def withdraw(self) -> DataRequest:
        """Take it back, before anybody has decided."""
        self._fields = self._node.http.post(f"requests/{self.id}/withdraw/")
        return self

    def approve(self, reason: str) -> DataRequest:
        """Let the value leave. Returns at once; the node computes and stores the answer."""
        return self._decide("approve", reason)

    def deny(self, reason: str) -> DataRequest:
        """Refuse. The requester reads the reason."""
        return self._decide("deny", reason)

    def _decide(self, verb: str, reason: str) -> DataRequest:
        # `seen` lets the node refuse a decision on a page that is out of date.
        self._fields = self._node.http.post(
            f"requests/{self.id}/{verb}/", reason=reason, seen=self._fields.get("updated")
        )
        return self

    def _settled(self) -> bool:
        answered = self._fields.get("answered_at") is not None or bool(self._fields.get("failure"))
        return self.state not in _OPEN or (self.state == "approved" and answered)
