"""What a token may be used for. A token without scopes may be used for all that its account may do; any may look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from gridclient.wire.errors import InvalidInputError, NotPermittedError


class Scope(StrEnum):
    """Beyond looking at what the account may see, which every token may be used for."""

    READ = "read"
    COMPUTE = "compute"
    PUBLISH = "publish"
    GOVERN = "govern"


WORDS = {
    Scope.READ: "look only",
    Scope.COMPUTE: "compute, ask for values, take them",
    Scope.PUBLISH: "publish datasets, change them, give rights on them",
    Scope.GOVERN: "accounts, tokens, decisions about requests and nodes",
}
"""What each adds, for people."""


def chosen(scopes: Iterable[str] | None) -> list[str] | None:
    """These scopes in their order, each once; None stays None: all. Raises InvalidInputError for others, or none."""
    if scopes is None:
        return None
    given = list(scopes)
    unknown = [scope for scope in given if scope not in list(Scope)]
    if unknown or not given:
        what = f"There is no scope {', '.join(map(repr, unknown))}" if unknown else "A token needs a scope"
        raise InvalidInputError(f"{what}: choose among {', '.join(Scope)}, or give none for all.", field="scopes")
    return [scope.value for scope in Scope if scope in given]


def narrowed(asked: Iterable[str] | None, own: Sequence[str] | None) -> list[str] | None:
    """The scopes of a token that is made with another: at most its own. Raises NotPermittedError for more."""
    if own is None:
        return chosen(asked)
    found = chosen(own if asked is None else asked) or []
    beyond = [scope for scope in found if scope not in own]
    if beyond:
        raise NotPermittedError(
            f"A token that was made for {' and '.join(own)} makes none for {' and '.join(beyond)}.", scope=beyond[0]
        )
    return found


def check_scope(scopes: Sequence[str] | None, needed: Scope) -> None:
    """Raise NotPermittedError where a token with these scopes may not be used for this."""
    if scopes is not None and needed != Scope.READ and needed not in scopes:
        raise NotPermittedError(
            f"This token was made for {' and '.join(scopes)} only. Sign in with your password, or make a token for "
            f"{needed} too ({WORDS[needed]}).",
            scope=needed.value,
        )
