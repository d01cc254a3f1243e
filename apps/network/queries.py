"""What the network answers: from its own index, and never by asking nodes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection
from django.db.models import QuerySet

from apps.accounts.models import User
from apps.core import clock
from apps.core.prepared import execute, places
from apps.network.models import KIND, Membership, Node, State
from apps.network.policies import check_can_search, sees_all
from apps.tags import index, summaries
from apps.tags.index import Page
from apps.tags.summaries import Facets, Suggestion


def node_id() -> str:
    """This deployment's id at the network, or the name that it asks for."""
    known = Membership.objects.values_list("node_id", flat=True).first() if settings.GRID_ROLE == "node" else None
    return known or settings.GRID_NAME


def nodes_visible_to(user: User) -> QuerySet[Node]:
    """Members; for the operator and the auditor also those who wait, were rejected or removed."""
    nodes = Node.objects.select_related("decided_by")
    return nodes if sees_all(user) else nodes.filter(state=State.APPROVED)


def search(
    user: User | None, terms: Sequence[str], *, limit: int, before: int | None = None, now: datetime | None = None
) -> Page[dict[str, Any]]:
    """Listed datasets of living members that match every term, newest first: where each is, and its public metadata.

    `before`: the `next` of an earlier page; `None` is a guest. Raises AuthenticationError for guests where they may
    not search.
    """
    check_can_search(user)
    moment = now or clock.now()

    def living(keys: list[UUID]) -> dict[UUID, dict[str, Any]]:
        rows = _announced(keys, "metadata")
        nodes = _living({node for _, node, _ in rows}, moment)
        # The columns of a wide dataset are most of what a page costs.
        return {
            key: {"node": nodes[node], "dataset": msgspec.json.decode(said)}
            for key, node, said in rows
            if node in nodes
        }

    return index.page(KIND, terms, living, before=before, limit=limit)


def facets(user: User | None, terms: Sequence[str], *, now: datetime | None = None) -> Facets:
    """How many of the newest that match every term have which tags, and are on which node. Raises as `search`."""
    check_can_search(user)
    moment = now or clock.now()

    def nodes(keys: list[UUID]) -> dict[UUID, str]:
        rows = _announced(keys, "NULL")
        living = _living({node for _, node, _ in rows}, moment)
        return {key: node for key, node, _ in rows if node in living}

    return summaries.facets(KIND, terms, nodes, group=lambda node: node)


def suggest(user: User | None, prefix: str, *, limit: int) -> list[Suggestion]:
    """Tags ("#...") or words that begin with `prefix`, most frequent first. Raises as `search`.

    Whatever can be found here may be found by all who search, so that the index's own counts can be shown.
    """
    check_can_search(user)
    return summaries.popular(KIND, prefix, limit=limit)


# Two statements, each by primary key: asked to join, a database may begin with all nodes that live. By hand: with the
# ORM a page costs three times as much.


def _announced(keys: list[UUID], said: str) -> list[tuple[UUID, str, Any]]:
    """Key, node and the column `said` of these announcements."""
    sql = f"SELECT id, node_id, {said} FROM network_announcement WHERE id IN {places(keys)}"  # noqa: S608
    rows = execute(sql, [key.hex for key in keys]).fetchall()
    # SQLite has no type for UUIDs.
    return [(key if isinstance(key, UUID) else UUID(key), node, column) for key, node, column in rows]


def _living(ids: set[str], moment: datetime) -> dict[str, dict[str, str]]:
    """Those of these nodes that are members and were heard lately, as a search shows them."""
    if not ids:
        return {}
    # In the row and not in the condition: SQLite would walk all that live to find these.
    lives = "state = %s AND expires > %s"
    sql = f"SELECT id, name, url, public_key, {lives} FROM network_node WHERE id IN {places(ids)}"  # noqa: S608
    stamp = connection.ops.adapt_datetimefield_value(moment)
    rows = execute(sql, [str(State.APPROVED), stamp, *ids]).fetchall()
    return {id: {"id": id, "name": name, "url": url, "public_key": key} for id, name, url, key, lives in rows if lives}
