"""The network takes announcements in: versioned, idempotent, checked, and capped per node in number, size and rate.

The index holds what members announce that can be heard. A member that is silent for long is taken out of it, so that
searches need not step over datasets that nobody can reach, and put back where it was with its next heartbeat.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
from django.db import connection, transaction
from django.db.models import Count, Sum

from apps.network import witness
from apps.network.actions import TIME_TO_LIVE, unlist
from apps.network.messages import MAX_DATASETS, MAX_SIZE, WORD_SIZE, Push, Receipt, listed_metadata
from apps.network.models import KIND, Announcement, Node, State
from apps.network.once import check_rate
from apps.tags import index
from gridclient.wire.errors import GridError, LimitExceededError, NotFoundError

SIZE_PER_MINUTE = MAX_SIZE
"""Bytes, as `Announcement.size` counts them, that one member may change in a minute: once all that it may announce."""
SILENT = timedelta(minutes=10)
"""After so long without a heartbeat a member is taken out of the index. Until then searches filter it out."""


class _Offer(NamedTuple):
    """A dataset as a node announces it, checked."""

    metadata: dict[str, Any]
    document: index.Document
    size: int


def receive(push: Push, *, key: str, now: datetime) -> Receipt:
    """Take in what the node that holds `key` announces. Sent twice, it changes nothing the second time.

    A dataset that cannot be taken is left out and named in the receipt; the others are taken. Raises NotFoundError
    for a key that never asked to join, InvalidInputError for a head that the key did not sign, and LimitExceededError
    for a member that announces more in a minute than it may: nothing of that push is announced, but the member was
    heard.
    """
    shown = witness.checked(push.heads, key=key)
    offers: dict[UUID, _Offer] | None = None if push.put else {}
    refused: list[list[str]] = []
    too_fast = None
    # Before the transaction: reading a megabyte of words takes longer than writing it, and keeps nobody waiting here.
    if push.put and Node.objects.filter(public_key=key, state=State.APPROVED).exists():
        try:
            offers, refused = _checked(push.put, key=key, now=now)
        except LimitExceededError as error:
            too_fast = error
    with transaction.atomic():
        node = Node.objects.select_for_update(no_key=True).filter(public_key=key).first()
        if node is None:
            raise NotFoundError("This key has not asked to join.")
        node.last_seen = now
        if node.state != State.APPROVED:
            node.save(update_fields=["last_seen"])
            return Receipt(state=State(node.state), revision=node.revision, in_step=False)
        node.expires = now + TIME_TO_LIVE
        if not node.findable:
            index.show(KIND, node.announcements.values_list("pk", flat=True))
            node.findable = True
        in_step = push.base is None or push.base == node.revision
        if too_fast is None and offers is None:
            in_step = False  # let in at this very moment: it begins anew
        if in_step and offers is not None:
            refused += _take(node, push, offers, now)
            node.revision = push.revision
        node.save(update_fields=["last_seen", "expires", "revision", "findable"])
        heads = witness.see(node, shown, now=now)
        _let_go(now)
    if too_fast is not None:
        raise too_fast
    return Receipt(State(node.state), node.revision, in_step, refused=refused if in_step else [], heads=heads)


def _take(node: Node, push: Push, offers: dict[UUID, _Offer], now: datetime) -> list[list[str]]:
    if push.base is None:
        _forget(node, set(node.announcements.values_list("dataset_id", flat=True)) - set(push.keep))
    _forget(node, set(push.remove))
    return _keep(node, offers, push.revision, now) if offers else []


def _checked(put: list[msgspec.Raw], *, key: str, now: datetime) -> tuple[dict[UUID, _Offer], list[list[str]]]:
    """What can be taken, by dataset (the last of two that are the same), and what cannot, with the reason.

    Raises LimitExceededError for a member that announces too much in a minute.
    """

    def charge(size: int) -> None:
        check_rate("announced", key, per_minute=SIZE_PER_MINUTE, now=now, cost=size)

    charge(sum(memoryview(raw).nbytes for raw in put))
    offers: dict[UUID, _Offer] = {}
    refused = []
    for raw in put:
        try:
            metadata = listed_metadata(raw)
            words = f"{metadata['name']} {metadata['slug']}"
            document = index.document(uuid4(), name=words, description=metadata["description"], tags=metadata["tags"])
        except GridError as error:
            refused.append([_named(raw), error.message[:300]])
            continue
        size = memoryview(raw).nbytes + WORD_SIZE * len(document.tokens)
        offers[UUID(metadata["id"])] = _Offer(metadata, document, size)
    charge(sum(WORD_SIZE * len(offer.document.tokens) for offer in offers.values()))
    return offers, refused


def _keep(node: Node, offers: dict[UUID, _Offer], revision: int, now: datetime) -> list[list[str]]:
    """Write and index announcements; returns those for which there is no room."""
    there = node.announcements.aggregate(number=Count("pk"), size=Sum("size"))
    number, size = there["number"], there["size"] or 0
    known = {row.dataset_id: row for row in node.announcements.filter(dataset_id__in=offers)}
    rows, documents, refused = [], [], []
    for dataset, offer in offers.items():
        row = known.get(dataset) or Announcement(node=node, dataset_id=dataset, size=0, announced=now)
        more = offer.size - row.size
        if (dataset not in known and number >= MAX_DATASETS) or (more > 0 and size + more > MAX_SIZE):
            most = f"{MAX_DATASETS} datasets of a node, {MAX_SIZE} bytes in all"
            refused.append([str(dataset), f"The network keeps at most {most}."])
            continue
        number, size = number + (dataset not in known), size + more
        row.metadata, row.size, row.revision = offer.metadata, offer.size, revision
        rows.append(row)
        documents.append(index.Document(row.pk, offer.document.tokens))
    Announcement.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["id"], update_fields=["metadata", "size", "revision"]
    )
    index.put(KIND, documents)
    return refused


def _forget(node: Node, datasets: set[UUID]) -> None:
    rows = node.announcements.filter(dataset_id__in=datasets)
    index.remove(KIND, rows.values_list("pk", flat=True))
    rows.delete()


def _let_go(now: datetime) -> None:
    """Take one member out of the index that has been silent for long. Others' heartbeats are many and frequent."""
    skip = connection.features.has_select_for_update_skip_locked
    silent = Node.objects.filter(state=State.APPROVED, findable=True, expires__lt=now - SILENT)
    node = silent.select_for_update(skip_locked=skip).order_by("expires").first()
    if node is not None:
        unlist(node)
        node.save(update_fields=["findable"])


class _Named(msgspec.Struct):
    id: UUID


def _named(raw: msgspec.Raw) -> str:
    try:
        return str(msgspec.json.decode(raw, type=_Named).id)
    except (msgspec.DecodeError, RecursionError):
        return ""
