"""What a call may carry: one struct for each body, checked while decoding. An unknown field is an error."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from rest_framework.request import Request

from apps.budgets.pots import ENTITIES
from gridclient.wire.errors import InvalidInputError

T = TypeVar("T")
_FIELD = re.compile(r"(?:field `|`\$\.)([a-z_]+)")


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all bodies."""


class SignIn(Body, frozen=True):
    username: str
    password: str


class NewUser(Body, frozen=True):
    username: str
    password: str
    roles: list[str] = []


class UserChange(Body, frozen=True):
    roles: list[str] | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    password: str | UnsetType = UNSET
    old_password: str | UnsetType = UNSET


class NewTeam(Body, frozen=True):
    slug: str
    name: str = ""
    members: list[str] = []


class TeamChange(Body, frozen=True):
    members: list[str]


class NewToken(Body, frozen=True):
    """`user` None: for the caller. `expires`: a date or a time, ISO 8601. `scopes` None: all."""

    name: str
    user: str | None = None
    expires: str | None = None
    scopes: list[str] | None = None


class DatasetChange(Body, frozen=True):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    visibility: str | UnsetType = UNSET
    accounts_may_compute: bool | UnsetType = UNSET


class NewGrant(Body, frozen=True):
    """`to`: a username, or "team:" and a slug. `columns` None: all of them.

    `programs`: hashes of the programs that a `train` grant is for; None: any. `epsilon`: the allowance of a `release`
    grant; None: what every analyst has by default.
    """

    to: str
    right: str
    columns: list[str] | None = None
    programs: list[str] | None = None
    epsilon: float | None = None
    expires: str | None = None
    reason: str = ""


class NewDomain(Body, frozen=True):
    """A privacy domain. `statement`: why nobody in it is in another one; `entities`: the most there can be;
    `accounting`: "uniform", or "individual" where each of them is charged what it contributed."""

    slug: str
    statement: str
    entities: int = ENTITIES
    accounting: str = "uniform"


class Judgement(Body, frozen=True):
    """A decision on a request. `seen`: the request's `updated` that the person looked at."""

    reason: str = ""
    seen: str | None = None


class NewBudgetRequest(Body, frozen=True):
    """What somebody would have of a dataset's budget, and why."""

    epsilon: float
    reason: str


class BudgetApproval(Body, frozen=True):
    """`epsilon` None: what was asked for."""

    reason: str = ""
    epsilon: float | None = None


class BudgetDenial(Body, frozen=True):
    reason: str = ""


class Stop(Body, frozen=True):
    """Why a session is stopped, for its user to read."""

    reason: str


def read(request: Request, kind: type[T]) -> T:
    """Decode the body. Raises InvalidInputError that names the field at fault."""
    body = request.body or b"{}"
    if b"\\u0000" in body:
        # PostgreSQL has no such character, and no text here needs one.
        raise InvalidInputError("The body holds the character U+0000.", field="")
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise InvalidInputError("The body is nested too deeply.", field="") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        found = _FIELD.search(str(error))
        raise InvalidInputError(
            f"The body is not as this route expects it: {error}.", field=found.group(1) if found else ""
        ) from None


def moment(text: str | None, field: str) -> datetime | None:
    """A time from ISO 8601; a date is its first moment in UTC. Raises InvalidInputError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"{field} is a date or time like 2027-01-31 or 2027-01-31T12:00:00Z.", field=field
        ) from None


def changes(body: Body) -> dict[str, object]:
    """The fields that a change names; the others stay as they are."""
    named = {name: getattr(body, name) for name in body.__struct_fields__}
    found = {name: value for name, value in named.items() if value is not UNSET}
    if not found:
        raise InvalidInputError(f"Name something to change: {', '.join(named)}.")
    return found
