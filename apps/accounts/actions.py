"""Verbs on accounts and teams. Each checks who asks, changes, and records, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F

from apps.accounts import lockout, names, policies
from apps.accounts.capabilities import ADMINISTRATOR
from apps.accounts.models import AccessToken, Role, Team, User
from apps.accounts.token_actions import create_token, revoke_all, revoke_token
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import clock
from apps.core.wake import wake
from gridclient.wire.errors import AuthenticationError, ConflictError, InvalidInputError, NotPermittedError

__all__ = [
    "change_password",
    "create_team",
    "create_token",
    "create_user",
    "deactivate",
    "federated_user",
    "reactivate",
    "revoke_token",
    "set_members",
    "set_password",
    "set_roles",
    "sign_in",
]

# Argon2 takes time in proportion to what it is given.
MAX_PASSWORD = 1024
# No password has this digest: comparing with it costs as much as comparing with a real one.
NOBODY = make_password(None)


def _password_problems(password: str, user: User) -> list[str]:
    if len(password) > MAX_PASSWORD:
        return [f"The password is longer than {MAX_PASSWORD} characters."]
    if names.encodable(password) != password:
        return ["The password is no valid text."]
    try:
        validate_password(password, user)
    except ValidationError as error:
        return list(error.messages)
    return []


def _roles(wanted: Iterable[str]) -> tuple[list[Role], list[str]]:
    """The roles of these names, and a problem for each name that is none."""
    known = {role.name: role for role in Role.objects.all()}
    asked = list(dict.fromkeys(wanted))
    allowed = ", ".join(sorted(known))
    problems = [f"There is no role {name!r}; the roles are {allowed}." for name in asked if name not in known]
    return [known[name] for name in asked if name in known], problems


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise InvalidInputError(f"{what}: {' '.join(problems)}", problems=list(problems))


@transaction.atomic
def create_user(*, username: str, password: str, roles: Iterable[str], by: User | None) -> User:
    """Make a local account. Raises InvalidInputError with every problem, ConflictError when the name was ever taken."""
    policies.check_can_manage_accounts(by)
    user = User(username=names.normal(username))
    given, problems = _roles(roles)
    _refuse("No account was made", names.problems_of(user.username) + _password_problems(password, user) + problems)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise ConflictError(
            f"There is an account {user.username!r} already, or there was: a name is given once. Choose another."
        ) from None
    user.roles.set(given)
    record(Verb.USER_CREATED, by=by, target=user.username, roles=[role.name for role in given])
    return user


@transaction.atomic
def set_roles(user: User, *, roles: Iterable[str], by: User | None) -> User:
    """Replace a user's roles. Raises ConflictError when no active administrator would be left."""
    policies.check_can_manage_accounts(by)
    given, problems = _roles(roles)
    _refuse("No role was changed", problems)
    if ADMINISTRATOR not in {role.name for role in given}:
        policies.check_keeps_an_administrator(user)
    before = sorted(user.roles.values_list("name", flat=True))
    after = sorted(role.name for role in given)
    if before != after:
        user.roles.set(given)
        record(Verb.ROLES_CHANGED, by=by, target=user.username, before=before, after=after)
        wake("tokens")
    return user


@transaction.atomic
def deactivate(user: User, *, by: User | None) -> User:
    """Close an account: its tokens are revoked, its console and data sessions end. The name stays taken."""
    policies.check_can_manage_accounts(by)
    policies.check_keeps_an_administrator(user)
    if not User.objects.filter(pk=user.pk, is_active=True).update(
        is_active=False, session_epoch=F("session_epoch") + 1
    ):
        raise ConflictError(f"{user.username} is not active any more.")
    user.refresh_from_db(fields=["is_active", "session_epoch"])
    revoked = revoke_all(user.tokens.all())
    record(Verb.USER_DEACTIVATED, by=by, target=user.username, tokens_revoked=revoked)
    return user


@transaction.atomic
def reactivate(user: User, *, by: User | None) -> User:
    """Open a closed account again. Revoked tokens and ended sessions stay so."""
    policies.check_can_manage_accounts(by)
    if not User.objects.filter(pk=user.pk, is_active=False).update(is_active=True):
        raise ConflictError(f"{user.username} is active already.")
    user.refresh_from_db(fields=["is_active"])
    record(Verb.USER_REACTIVATED, by=by, target=user.username)
    return user


@transaction.atomic
def set_password(user: User, *, password: str, by: User | None) -> User:
    """Give another's local account a new password: every sign-in ends, in the console and elsewhere.

    Named tokens stay. One's own is changed by `change_password`: NotPermittedError.
    """
    policies.check_can_act_for(by, user)
    if by is not None and by.pk == user.pk:
        raise NotPermittedError("Your own password is changed by whoever knows your present password.")
    return _store_password(user, password, by=by)


def change_password(
    user: User,
    *,
    old: str,
    password: str,
    address: str,
    keep: AccessToken | None = None,
    now: datetime | None = None,
) -> User:
    """Change one's own password: every sign-in but `keep` ends. Call it outside a transaction, as `sign_in`.

    A wrong `old` counts as a failed sign-in. Raises InvalidInputError (`details["field"]` is "old_password" for a
    wrong one), ConflictError for a network's user, LimitExceededError while the name or the address is locked out.
    """
    _check_local(user)
    now = now or clock.now()
    last = lockout.count(username=user.username, address=address, now=now)
    if not check_password(_typed(old), user.password):
        with transaction.atomic():
            record(Verb.SIGN_IN_REFUSED, by=user, target=user.username, at=now, address=address, locked_out=last)
        raise InvalidInputError("This is not your present password.", field="old_password")
    with transaction.atomic():
        lockout.give_back(username=user.username, address=address)
    with transaction.atomic():
        return _store_password(user, password, by=user, keep=keep)


def _check_local(user: User) -> None:
    if user.is_federated:
        raise ConflictError(f"{user.username} signs in through a network and has no password here.")


def _typed(password: str) -> str:
    """What a person typed, as what can be hashed in bounded time."""
    return names.encodable(password[: MAX_PASSWORD + 1])


def _store_password(user: User, password: str, *, by: User | None, keep: AccessToken | None = None) -> User:
    _check_local(user)
    _refuse("The password was not changed", _password_problems(password, user))
    user.set_password(password)
    user.save(update_fields=["password"])
    sessions = user.tokens.filter(kind=AccessToken.Kind.SESSION)
    revoked = revoke_all(sessions if keep is None else sessions.exclude(pk=keep.pk))
    record(Verb.PASSWORD_CHANGED, by=by, target=user.username, sessions_revoked=revoked)
    return user


@transaction.atomic
def create_team(*, slug: str, name: str, members: Iterable[User], by: User | None) -> Team:
    """Make a team. Raises InvalidInputError for a bad slug, ConflictError for one that is taken."""
    policies.check_can_manage_accounts(by)
    team = Team(slug=names.normal(slug), name=name.strip() or slug)
    problems = names.problems_of(team.slug)
    if not names.is_title(team.name, 150):
        problems.append("The team's title must have 1 to 150 printable characters.")
    _refuse("No team was made", problems)
    try:
        with transaction.atomic():
            team.save(force_insert=True)
    except IntegrityError:
        raise ConflictError(f"There is a team {team.slug!r} already. Choose another name.") from None
    people = list(members)
    team.members.set(people)
    record(Verb.TEAM_CREATED, by=by, target=f"team:{team.slug}", members=sorted(user.username for user in people))
    return team


@transaction.atomic
def set_members(team: Team, *, members: Iterable[User], by: User | None) -> Team:
    """Replace a team's members: who leaves loses what the team was given."""
    policies.check_can_manage_accounts(by)
    before = sorted(team.members.values_list("username", flat=True))
    people = list(members)
    after = sorted(user.username for user in people)
    if before != after:
        team.members.set(people)
        record(Verb.TEAM_CHANGED, by=by, target=f"team:{team.slug}", before=before, after=after)
    return team


def sign_in(
    *, username: str, password: str, address: str, now: datetime | None = None, needs: str | None = None
) -> User:
    """The user of this name and password. Call it outside a transaction: a refusal must stay counted.

    `needs` is a capability without which the password alone does not suffice. Raises AuthenticationError, the same
    in text and time for an unknown name, a wrong password, a closed account and a missing capability; and
    LimitExceededError, whatever the password, while the name or the address is locked out.
    """
    now, name = now or clock.now(), names.normal(username)
    last = lockout.count(username=name, address=address, now=now)
    user = User.objects.filter(username=name).first()
    # Hashed whether or not there is an account, and outside any transaction: it takes long.
    right = check_password(_typed(password), user.password if user is not None else NOBODY)
    if user is None or not right or not user.is_active or (needs is not None and not user.has(needs)):
        with transaction.atomic():
            # A name that nobody has may be a password in the wrong field: it is not written down.
            known = user.username if user is not None else ""
            record(Verb.SIGN_IN_REFUSED, by=None, target=known, at=now, address=address, locked_out=last)
        raise AuthenticationError("Username or password is wrong. After several failures, sign-in pauses for a while.")
    with transaction.atomic():
        lockout.give_back(username=name, address=address)
        User.objects.filter(pk=user.pk).update(last_login=now)
        user.last_login = now
        record(Verb.SIGNED_IN, by=user, target=user.username, at=now, address=address)
    return user


@transaction.atomic
def federated_user(*, network_key: str, user_id: str, display: str, now: datetime | None = None) -> User:
    """The account of a network's user, made at the first sign-in, without roles.

    Identity is (fingerprint of the network's key, user id there); `display` is only shown. Raises AuthenticationError
    when the account was closed here, InvalidInputError for an id that no account can hold.
    """
    if not names.is_title(user_id, 64):
        raise InvalidInputError("A network names its users by ids of 1 to 64 printable characters.")
    user = User.objects.filter(federated_key=network_key, federated_id=user_id).first()
    if user is None:
        user = _make_federated(network_key, user_id, names.federated(display, network_key), now or clock.now())
    if not user.is_active:
        raise AuthenticationError("Your account on this node is closed. Ask the node's administrator.")
    return user


def _make_federated(network_key: str, user_id: str, shown: str, now: datetime) -> User:
    person, _, network = shown.partition("@")
    taken = set(
        User.objects.filter(username__startswith=person, username__endswith=f"@{network}").values_list(
            "username", flat=True
        )
    )
    number = 1
    while shown in taken:
        number += 1
        shown = f"{person}-{number}@{network}"
    user = User(username=shown, federated_key=network_key, federated_id=user_id, created=now)
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        # Two first sign-ins at once: the other one made the account, or took the name.
        made = User.objects.filter(federated_key=network_key, federated_id=user_id).first()
        if made is None:
            raise ConflictError("Another account was made at the same moment. Sign in again.") from None
        return made
    record(Verb.USER_CREATED, by=None, target=user.username, at=now, roles=[], network=network_key)
    return user
