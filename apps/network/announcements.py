"""The network takes announcements in: versioned, idempotent, checked, and capped per node."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db import transaction

from apps.network.actions import TIME_TO_LIVE
from apps.network.messages import MAX_DATASETS, Push, Receipt, listed_metadata
from apps.network.models import Announcement, Node, State
from apps.tags import index
from gridclient.wire.errors import GridError, NotFoundError

KIND = "announcement"


def receive(push: Push, *, key: str, now: datetime) -> Receipt:
    """Take in what the node that holds `key` announces. Sent twice, it changes nothing the second time.

    A dataset that cannot be taken is left out and named in the receipt; the others are taken. Raises NotFoundError
    for a key that never asked to join.
    """
    with transaction.atomic():
        node = Node.objects.select_for_update(no_key=True).filter(public_key=key).first()
        if node is None:
            raise NotFoundError("This key has not asked to join.")
        node.last_seen = now
        if node.state != State.APPROVED:
            node.save(update_fields=["last_seen"])
            return Receipt(state=State(node.state), revision=node.revision, in_step=False)
        node.expires = now + TIME_TO_LIVE
        in_step = push.base is None or push.base == node.revision
        refused: list[list[str]] = []
        if in_step:
            refused = _take(node, push, now)
            node.revision = push.revision
        node.save(update_fields=["last_seen", "expires", "revision"])
        return Receipt(state=State(node.state), revision=node.revision, in_step=in_step, refused=refused)


def _take(node: Node, push: Push, now: datetime) -> list[list[str]]:
    if push.base is None:
        _forget(node, set(node.announcements.values_list("dataset_id", flat=True)) - set(push.keep))
    _forget(node, set(push.remove))
    if not push.put:
        return []
    room = MAX_DATASETS - node.announcements.count()
    refused = []
    for raw in push.put:
        try:
            metadata = listed_metadata(raw)
            # A dataset that cannot be indexed leaves no half of itself behind.
            with transaction.atomic():
                room -= _put(node, metadata, push.revision, room=room, now=now)
        except GridError as error:
            refused.append([_named(raw), error.message[:300]])
    return refused


def _put(node: Node, metadata: dict[str, Any], revision: int, *, room: int, now: datetime) -> bool:
    """Write one announcement; whether it is a new one."""
    known = Announcement.objects.filter(node=node, dataset_id=metadata["id"]).first()
    if known is None and room <= 0:
        raise NotFoundError(f"The network keeps at most {MAX_DATASETS} datasets of a node.")
    row = known or Announcement(node=node, dataset_id=UUID(metadata["id"]), announced=now)
    row.metadata, row.revision = metadata, revision
    row.save()
    words = f"{metadata['name']} {metadata['slug']}"
    index.put(KIND, row.pk, name=words, description=metadata["description"], tags=metadata["tags"])
    return known is None


def _forget(node: Node, datasets: set[UUID]) -> None:
    rows = node.announcements.filter(dataset_id__in=datasets)
    for key in rows.values_list("pk", flat=True):
        index.remove(KIND, key)
    rows.delete()


class _Named(msgspec.Struct):
    id: UUID


def _named(raw: msgspec.Raw) -> str:
    try:
        return str(msgspec.json.decode(raw, type=_Named).id)
    except (msgspec.DecodeError, RecursionError):
        return ""
