"""Who may do what to accounts. `by` None is the system: a management command on the machine itself."""

from __future__ import annotations

from apps.accounts.capabilities import ACCOUNTS_MANAGE, ADMINISTRATOR, COMPUTE_USE
from apps.accounts.models import Role, User
from gridclient.wire.errors import ConflictError, NotPermittedError


def check_can_manage_accounts(by: User | None) -> None:
    """Raises NotPermittedError unless `by` may create, change and deactivate accounts and teams."""
    if not can_manage_accounts(by):
        raise NotPermittedError("Accounts and teams are managed by an administrator of this deployment. Ask one.")


def can_manage_accounts(by: User | None) -> bool:
    """Whether `check_can_manage_accounts` passes."""
    return by is None or by.has(ACCOUNTS_MANAGE)


def check_can_act_for(by: User | None, user: User) -> None:
    """Raises NotPermittedError unless `by` is `user` (and active), or manages accounts: passwords and tokens."""
    if not can_act_for(by, user):
        raise NotPermittedError("Passwords and tokens are managed by the account's own user, or by an administrator.")


def can_act_for(by: User | None, user: User) -> bool:
    """Whether `check_can_act_for` passes."""
    return by is None or (by.pk == user.pk and by.is_active) or can_manage_accounts(by)


def check_can_name_token(by: User | None, user: User) -> None:
    """Raises NotPermittedError unless `by` may make a named token, which outlives a sign-in, for `user`.

    An account that only looks (an auditor's) makes none, and a network's user has none: the network could close that
    account and its access would go on here.
    """
    if user.is_federated:
        raise NotPermittedError(f"{user.username} has no named tokens here: sign in through the network.")
    if by is not None and not by.has(COMPUTE_USE):
        raise NotPermittedError("Named tokens are made by accounts that may compute. Sign in instead.")


def check_keeps_an_administrator(user: User) -> None:
    """Raises ConflictError when `user` is the last active administrator. Call it in the change's transaction."""
    # The role's row is the lock, taken before looking: two administrators who demote each other cannot both pass.
    Role.objects.select_for_update(no_key=True).get(name=ADMINISTRATOR)
    if list(User.objects.filter(is_active=True, roles=ADMINISTRATOR).values_list("pk", flat=True)) == [user.pk]:
        raise ConflictError(
            f"{user.username} is the last active administrator. Make somebody else administrator first."
        )
