"""What people with more rights do: accounts, teams, tokens, the queue, the audit log. Mixed into nodes and networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, overload
from urllib.parse import quote

from gridclient.http import Http
from gridclient.listings import Listing
from gridclient.records import Account, Event, Team, Token
from gridclient.wire.errors import InvalidInputError


@dataclass(frozen=True)
class AuditReport:
    """Whether the log's chain of hashes and signatures holds. True in a condition when it does."""

    ok: bool
    events: int
    first_bad: int | None
    problem: str

    def __bool__(self) -> bool:
        return self.ok


class Administration:
    """Calls that need a role; without it they raise NotPermittedError."""

    @property
    def http(self) -> Http:
        """The REST interface, signed in."""
        raise NotImplementedError

    def users(self) -> Listing[Account]:
        """The accounts that I may see."""
        return Account.listed(self.http.pages("users/"))

    def create_user(self, username: str, *, password: str, roles: Sequence[str] = ()) -> Account:
        """Make an account. `roles`: owner, scientist, reviewer, auditor, administrator."""
        return Account(self.http.post("users/", username=username, password=password, roles=_texts(roles, "roles")))

    def set_roles(self, username: str, roles: Sequence[str]) -> Account:
        """Give an account exactly these roles."""
        return Account(self.http.patch(_user(username), roles=_texts(roles, "roles")))

    def set_password(self, username: str, password: str, *, old: str | None = None) -> Account:
        """Give an account another password; its (other) sign-ins end. One's own needs the `old` one."""
        if old is not None:
            return Account(self.http.once("PATCH", _user(username), password=password, old_password=old))
        return Account(self.http.patch(_user(username), password=password))

    def deactivate_user(self, username: str) -> Account:
        """Close an account. Its tokens die, its history stays, and its name is never given away."""
        return Account(self.http.patch(_user(username), active=False))

    def reactivate_user(self, username: str) -> Account:
        """Open a closed account again."""
        return Account(self.http.patch(_user(username), active=True))

    def teams(self) -> Listing[Team]:
        """The teams that I may see."""
        return Team.listed(self.http.pages("teams/"))

    def create_team(self, slug: str, *, name: str = "", members: Sequence[str] = ()) -> Team:
        """Make a team; grants name it "team:<slug>"."""
        return Team(self.http.post("teams/", slug=slug, name=name, members=_texts(members, "members")))

    def set_members(self, slug: str, members: Sequence[str]) -> Team:
        """Give a team exactly these members."""
        return Team(self.http.patch(f"teams/{quote(slug, safe='')}/", members=_texts(members, "members")))

    def tokens(self) -> Listing[Token]:
        """The access tokens that I may see; never their text."""
        return Token.listed(self.http.pages("tokens/"))

    def create_token(
        self,
        username: str | None = None,
        *,
        name: str,
        expires: date | datetime | str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> Token:
        """Make an access token, for myself without a username. `.token` is its text, which is shown this once.

        `scopes` among "read" (look only), "compute", "publish" and "govern"; None: all that the account may do.
        """
        may = None if scopes is None else _texts(scopes, "scopes")
        return Token(self.http.once("POST", "tokens/", user=username, name=name, expires=iso(expires), scopes=may))

    def revoke_token(self, token: Token | str) -> None:
        """End a token, by its prefix; connections that are open on it are closed."""
        prefix = token if isinstance(token, str) else str(token.prefix)
        # The text of a token is accepted too, and only its public part is sent on.
        prefix = prefix.split("_")[1] if prefix.startswith("grd_") else prefix
        self.http.delete(f"tokens/{quote(prefix, safe='')}/")

    @overload
    def audit(self, *, verify: Literal[True]) -> AuditReport: ...

    @overload
    def audit(self, *, verify: Literal[False] = False, limit: int = 500) -> Listing[Event]: ...

    def audit(self, *, verify: bool = False, limit: int = 500) -> AuditReport | Listing[Event]:
        """The newest `limit` events of the log; or, with `verify`, whether its chain holds."""
        if verify:
            return AuditReport(**self.http.get("audit/verify/"))
        return Event.listed(self.http.pages("audit/", most=limit))


def iso(moment: date | datetime | str | None) -> str | None:
    """A date or time as ISO 8601 text. Raises InvalidInputError."""
    if moment is None or isinstance(moment, str):
        return moment
    if isinstance(moment, date):
        return moment.isoformat()
    raise InvalidInputError(f"expires is a date, a time or ISO text like '2027-01-31', not {type(moment).__name__}.")


def _user(username: str) -> str:
    return f"users/{quote(username, safe='')}/"


def _texts(values: Sequence[str], argument: str) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{argument} is a list of names, like ['scientist'].")
    return list(values)
