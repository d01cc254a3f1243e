"""Who may run the network, who may search it, and which role answers what."""

from __future__ import annotations

from django.conf import settings

from apps.accounts.models import User
from gridclient.wire.errors import AuthenticationError, NotFoundError, NotPermittedError


def check_role(role: str) -> None:
    """Raises NotFoundError when this deployment has the other role."""
    if role != settings.GRID_ROLE:
        raise NotFoundError(f"This deployment is not a {role}.")


def check_can_operate(user: User) -> None:
    """Raises NotPermittedError unless the user runs this deployment's side of the network."""
    if not user.has("network.operate"):
        raise NotPermittedError("Only the operator of the network may do this.")


def check_can_search(user: User | None) -> None:
    """Raises AuthenticationError for a guest where guests may not search."""
    if user is None and not settings.GRID_GUEST_SEARCH:
        raise AuthenticationError("This network answers searches of its accounts only; sign in.")


def sees_all(user: User) -> bool:
    """Whether the user sees every node and all of its row: who runs the network, and who audits it."""
    return user.has("network.operate") or user.has("everything.read")
