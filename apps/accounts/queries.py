"""Reading accounts: who a token stands for, and who sees whom."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from hmac import compare_digest

from django.db.models import QuerySet

from apps.accounts import names, tokens
from apps.accounts.capabilities import ACCOUNTS_MANAGE, DATASETS_PUBLISH, EVERYTHING_READ
from apps.accounts.models import AccessToken, Team, User
from apps.core import clock
from apps.core.prepared import Prepared
from gridclient.wire.errors import AuthenticationError, InvalidInputError

# `last_used` is for people: to this precision it costs next to no writes.
USED_WITHIN = timedelta(minutes=10)


def user_of_token(text: str, *, now: datetime | None = None) -> tuple[User, AccessToken]:
    """The user that a token stands for. Raises AuthenticationError, alike for every reason why it stands for none."""
    now = now or clock.now()
    prefix = tokens.prefix_of(text)
    token = AccessToken.objects.select_related("user").filter(prefix=prefix).first() if prefix else None
    given = tokens.digest(text) if prefix else ""
    right = compare_digest(given, token.digest if token is not None else "-")
    if token is None or not right or not _is_live(token, now):
        raise AuthenticationError("This token is not valid, or not any more. Sign in again, or ask for a new token.")
    if token.last_used is None or now - token.last_used >= USED_WITHIN:
        AccessToken.objects.filter(pk=token.pk).update(last_used=now)
        token.last_used = now
    return token.user, token


def _is_live(token: AccessToken, now: datetime) -> bool:
    return token.revoked_at is None and now < token.expires and token.user.is_active


@Prepared
def _live_user(token: int, now: datetime) -> QuerySet[User]:
    return User.objects.filter(
        is_active=True, tokens__pk=token, tokens__revoked_at=None, tokens__expires__gt=now
    ).order_by()


def user_of_live_token(token_id: int, *, now: datetime | None = None) -> User:
    """The user of a token that was valid before. Raises AuthenticationError when it is not any more."""
    found = _live_user(token_id, now or clock.now())
    if not found:
        raise AuthenticationError(
            "This session's token was revoked or has expired, or the account was closed; sign in again."
        )
    return found[0]


def resolve_users(wanted: Iterable[str]) -> list[User]:
    """The active users of these names, in order, each once; a network's users by their full `name@network`.

    Raises InvalidInputError that lists every name that is nobody's (`details["unknown"]`).
    """
    asked = list(dict.fromkeys(names.normal(name) for name in wanted))
    found = {user.username: user for user in User.objects.filter(username__in=asked, is_active=True)}
    unknown = [name for name in asked if name not in found]
    if unknown:
        shown = ", ".join(unknown)
        raise InvalidInputError(
            f"No active account here is called: {shown}. Check the spelling; a network's users are named name@network; "
            "they have an account here once they have used this node.",
            unknown=unknown,
            problems=[f"no active account is called {name}" for name in unknown],
        )
    return [found[name] for name in asked]


def _sees_everybody(user: User) -> bool:
    return user.has(ACCOUNTS_MANAGE) or user.has(EVERYTHING_READ)


def users_visible_to(user: User | None) -> QuerySet[User]:
    """Everybody for administrators and auditors; oneself for others."""
    if user is None:
        return User.objects.none()
    everybody = User.objects.prefetch_related("roles")
    return everybody if _sees_everybody(user) else everybody.filter(pk=user.pk)


def tokens_visible_to(user: User | None) -> QuerySet[AccessToken]:
    """Everybody's for administrators and auditors; one's own for others. Newest first."""
    if user is None:
        return AccessToken.objects.none()
    every = AccessToken.objects.select_related("user")
    return every if _sees_everybody(user) else every.filter(user=user)


def teams_visible_to(user: User | None) -> QuerySet[Team]:
    """All teams for administrators, auditors, and owners of data, who give rights to them; one's own for others."""
    if user is None:
        return Team.objects.none()
    every = Team.objects.prefetch_related("members")
    return every if _sees_everybody(user) or user.has(DATASETS_PUBLISH) else every.filter(members=user)
