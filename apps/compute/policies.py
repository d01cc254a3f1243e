"""Who may look after the node itself."""

from __future__ import annotations

from apps.accounts.capabilities import EVERYTHING_READ, NODE_OPERATE
from apps.accounts.models import User
from apps.compute.models import LiveSession
from gridclient.wire.errors import NotPermittedError


def can_see_node(user: User) -> bool:
    """Whether the user may see everybody's sessions, and the load of the node."""
    return bool({NODE_OPERATE, EVERYTHING_READ} & user.capabilities)


def check_can_stop(by: User, session: LiveSession) -> None:
    """Raises NotPermittedError unless `by` looks after this node, or the session is their own."""
    if not can_stop(by, session):
        raise NotPermittedError("Sessions are stopped by an administrator of this node, or by their own account.")


def can_stop(by: User, session: LiveSession) -> bool:
    """Whether `check_can_stop` passes."""
    return by.has(NODE_OPERATE) or (by.pk == session.user_id and by.is_active)
