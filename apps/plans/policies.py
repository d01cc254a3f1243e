"""Who may do what with plans."""

from __future__ import annotations

from django.conf import settings

from apps.accounts.capabilities import ACCOUNTS_MANAGE, COMPUTE_USE
from apps.accounts.models import User
from apps.plans.models import Plan
from gridclient.wire.errors import NotPermittedError


def can_run(user: User) -> bool:
    """Whether the account may call plans, its own and those of others: whoever may compute."""
    return user.is_active and user.has(COMPUTE_USE)


def check_can_send(user: User) -> None:
    """Raise NotPermittedError unless this is a node and the account may compute."""
    if settings.GRID_ROLE != "node":
        raise NotPermittedError("A network keeps no plans: send them to a node.")
    if not can_run(user):
        raise NotPermittedError("Plans are sent by accounts that may compute; an administrator can give a role for it.")


def can_download(user: User, plan: Plan) -> bool:
    """Whether `check_can_download` passes."""
    return user.is_active and (plan.allow_download or plan.owner_id == user.pk)


def check_can_download(user: User, plan: Plan) -> None:
    """Raise NotPermittedError unless the plan's bytes may be copied from here by `user`, who may see it."""
    if not can_download(user, plan):
        raise NotPermittedError(
            f"The owner of {plan.name} does not let others copy it. You can run it here: "
            f"node.plan({plan.name!r}, download=False)."
        )


def can_delete(user: User, plan: Plan) -> bool:
    """Whether the plan is the user's own, or the user manages accounts: those that are closed delete nothing."""
    return user.is_active and (plan.owner_id == user.pk or user.has(ACCOUNTS_MANAGE))


def check_can_delete(user: User, plan: Plan) -> None:
    """Raise NotPermittedError unless `can_delete`."""
    if not can_delete(user, plan):
        raise NotPermittedError(f"{plan.name} is deleted by its owner, or by who manages accounts on this node.")
