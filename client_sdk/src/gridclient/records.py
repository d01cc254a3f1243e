"""What REST answers, as objects: attributes are the fields, the repr shows the few that tell one from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


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
        shown = " ".join(f"{name}={self._fields[name]!r}" for name in self.shown if name in self._fields)
        return f"<{type(self).__name__} {shown}>"


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
    """`id`, `dataset`, `to`, `right`, `columns`, `expires`, `reason`, `given_by`, `revoked`, `request`."""

    shown = ("id", "dataset", "to", "right", "expires", "revoked")


class Event(Record):
    """One line of the audit log: `seq`, `at`, `verb`, `actor`, `target`, `payload`."""

    shown = ("seq", "verb", "actor", "target")


class Member(Record):
    """A node as the network knows it: `id`, `name`, `url`, `public_key`, `state`."""

    shown = ("id", "url", "state")
