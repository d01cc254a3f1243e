"""What REST answers, as objects: attributes are the fields, the repr shows the few that tell one from another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

from gridclient import html
from gridclient.http import Http
from gridclient.listings import Listing


class Record:
    """A row of the other end, as it was when it was asked for."""

    shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def __getattr__(self, name: str) -> Any:
        # Only called for what is no attribute; `_fields` itself is missing while a copy is being made.
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}; it has {', '.join(self.__dict__.get('_fields', ()))}"
            )
        return self._fields[name]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Record) and other._fields == self._fields

    __hash__ = None  # type: ignore[assignment]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._fields})

    def __repr__(self) -> str:
        shown = " ".join(f"{name}={html.quoted(self._fields[name])}" for name in self.shown if name in self._fields)
        return f"<{type(self).__name__} {shown}>"

    def _repr_html_(self) -> str:
        facts = {name: html.text(self._fields.get(name)) for name in self.shown[1:]}
        return html.card(type(self).__name__, html.plain(self._fields.get(self.shown[0])), facts)

    @classmethod
    def listed(cls, rows: Iterable[Mapping[str, Any]], **beside: Any) -> Listing[Self]:
        """The rows of an answer, shown as a table. `beside`: what each of them is made with."""
        return Listing((cls(row, **beside) for row in rows), {name: _field(name) for name in cls.shown})


def _field(name: str) -> Callable[[Record], Any]:
    return lambda record: record._fields.get(name)


class Account(Record):
    """`username`, `roles`, `active`, `federated`, `created`, `id`."""

    shown = ("username", "roles", "active")


class Team(Record):
    """`slug`, `name`, `members`."""

    shown = ("slug", "members")


class Token(Record):
    """`prefix`, `name`, `user`, `kind`, `scopes`, `expires`, `revoked`; `.token` is the text, once, when just made."""

    shown = ("prefix", "name", "user", "expires")


class Grant(Record):
    """`id`, `dataset`, `to`, `right`, `columns`, `programs`, `epsilon`, `expires`, `reason`, `given_by`, `revoked`,
    `request`."""

    shown = ("id", "dataset", "to", "right", "expires", "revoked")


class Budget(Record):
    """The epsilon of a dataset's people: `epsilon` and `delta` of the pot, `allowance` (mine), `spent` (by me),
    `remaining` (for me), `per_answer`, `epoch`."""

    shown = ("dataset", "allowance", "spent", "remaining", "epsilon", "delta")


class Domain(Record):
    """A privacy domain: `name`, `statement` (why its people are in no other), `entities`, `accounting`, `epoch`,
    `frozen` (why, or ""), and of its pot for questions `epsilon`, `delta`, `left`."""

    shown = ("name", "epsilon", "left", "epoch", "entities", "frozen")


class Event(Record):
    """One line of the audit log: `seq`, `at`, `verb`, `actor`, `target`, `payload`."""

    shown = ("seq", "verb", "actor", "target")


class OpenSession(Record):
    """A session on a node, as it stood a few seconds ago: `id`, `user`, `client`, `opened`, `state` (connected, waiting
    for its client, or stopping), `waits_since`, `open_asks`, `last_error`, `worker` (`pid`; `rss` and `pss` in bytes,
    `cpu` in milliseconds; `isolated` from the network; of one on another machine, only that is known)."""

    shown = ("id", "user", "state", "opened", "client", "open_asks", "last_error")

    def __init__(self, fields: Mapping[str, Any], http: Http) -> None:
        super().__init__(fields)
        self._http = http

    def stop(self, *, reason: str) -> None:
        """End it. Its client is told who did, and the reason, and its values are gone. Raises NotPermittedError;
        NotFoundError or ConflictError when it has ended already."""
        self._fields |= self._http.post(f"sessions/{self.id}/stop/", reason=reason)


class Member(Record):
    """A node as the network knows it: `id`, `name`, `url`, `public_key`, `state`."""

    shown = ("id", "url", "state")
