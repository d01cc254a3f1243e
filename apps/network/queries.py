"""What the network answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from apps.accounts.models import User
from apps.core import clock
from apps.network.models import Announcement, Membership, Node, State
from apps.network.policies import check_can_search, sees_all
from apps.tags import index


def node_id() -> str:
    """This deployment's id at the network, or the name that it asks for."""
    known = Membership.objects.values_list("node_id", flat=True).first() if settings.GRID_ROLE == "node" else None
    return known or settings.GRID_NAME


def nodes_visible_to(user: User) -> QuerySet[Node]:
    """Members; for the operator and the auditor also those who wait, were rejected or removed."""
    nodes = Node.objects.select_related("decided_by")
    return nodes if sees_all(user) else nodes.filter(state=State.APPROVED)


def search(user: User | None, terms: Sequence[str], *, now: datetime | None = None) -> QuerySet[Announcement]:
    """Announcements of living members that match every term, newest first. `None` is a guest.

    Answered from the network's own index. Raises AuthenticationError for guests where they may not search.
    """
    check_can_search(user)
    found = Announcement.objects.filter(node__state=State.APPROVED, node__expires__gt=now or clock.now())
    if terms:
        found = found.filter(pk__in=index.matching("announcement", terms))
    return found.select_related("node")


def found(announcement: Announcement) -> dict[str, Any]:
    """A search result as JSON: where the dataset is, and its public metadata."""
    node = announcement.node
    return {
        "node": {"id": node.id, "name": node.name, "url": node.url, "public_key": node.public_key},
        "dataset": announcement.metadata,
    }
