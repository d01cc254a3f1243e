"""Verbs on access tokens."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from apps.accounts import names, policies, tokens
from apps.accounts.models import AccessToken, User
from apps.accounts.scopes import chosen
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import clock
from apps.core.wake import wake
from gridclient.wire.errors import InvalidInputError

# How long a token lives when nobody says: a sign-in for a working day, a named token for a quarter.
LIVES = {AccessToken.Kind.SESSION: timedelta(hours=12), AccessToken.Kind.TOKEN: timedelta(days=90)}
LONGEST = {AccessToken.Kind.SESSION: timedelta(hours=12), AccessToken.Kind.TOKEN: timedelta(days=366)}


@transaction.atomic
def create_token(
    *,
    user: User,
    name: str,
    expires: datetime | None,
    by: User | None,
    kind: str = "token",
    scopes: Iterable[str] | None = None,
    now: datetime | None = None,
) -> tuple[AccessToken, str]:
    """Make a token; its text is returned here and never again. `expires` None: 12 hours or 90 days, by kind.

    `scopes` None: for all that the account may do. Raises InvalidInputError for a closed account, an empty name, an
    unknown scope, or an expiry that is past or too far away (12 hours, or a year); NotPermittedError for a named token
    of a network's user, or by an account that only looks.
    """
    policies.check_can_act_for(by, user)
    if kind == AccessToken.Kind.TOKEN:
        policies.check_can_name_token(by, user)
    now = now or clock.now()
    expires = expires or now + LIVES[AccessToken.Kind(kind)]
    problems = []
    if not user.is_active:
        problems.append(f"{user.username} is not active.")
    if not names.is_title(name.strip(), 100):
        problems.append("A token needs a name of 1 to 100 printable characters, so that it can be told from others.")
    if not now < expires <= now + LONGEST[AccessToken.Kind(kind)]:
        problems.append("A token expires in the future: a sign-in within 12 hours, a named one within 366 days.")
    if problems:
        raise InvalidInputError(f"No token was made: {' '.join(problems)}", problems=problems)
    may = chosen(scopes)
    prefix, text = tokens.fresh()
    token = AccessToken.objects.create(
        user=user,
        name=name.strip(),
        kind=kind,
        prefix=prefix,
        digest=tokens.digest(text),
        scopes=may,
        created=now,
        expires=expires,
    )
    record(
        Verb.TOKEN_CREATED,
        by=by,
        target=user.username,
        prefix=prefix,
        name=token.name,
        kind=kind,
        scopes=may,
        expires=expires.isoformat(),
    )
    return token, text


@transaction.atomic
def revoke_token(token: AccessToken, *, by: User | None) -> AccessToken:
    """End a token now; sockets that were opened with it close. Revoking it again changes nothing."""
    policies.check_can_act_for(by, token.user)
    if revoke_all(AccessToken.objects.filter(pk=token.pk)):
        record(Verb.TOKEN_REVOKED, by=by, target=token.user.username, prefix=token.prefix, name=token.name)
    token.refresh_from_db(fields=["revoked_at"])
    return token


def revoke_all(found: QuerySet[AccessToken]) -> int:
    """Revoke those that still live, wake who watches them, and say how many. The caller records."""
    wake("tokens")
    return found.filter(revoked_at=None).update(revoked_at=clock.now())
