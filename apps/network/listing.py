"""What a node announces: its listed datasets, read by revision."""

from __future__ import annotations

import msgspec

from apps.datasets.models import Dataset, Visibility
from apps.datasets.queries import public_metadata
from apps.network.messages import MAX_BATCH, MAX_BODY, MAX_DATASETS, MAX_METADATA, Push


def next_push(after: int | None) -> tuple[Push, bool]:
    """What a node announces after revision `after` (None: from the beginning), and whether there is more."""
    later = Dataset.objects.filter(revision__gt=after or 0).order_by("revision")
    changed = list(later.prefetch_related("versions", "tags")[:MAX_BATCH])
    push = Push(base=after, revision=after or 0)
    if after is None:
        push.keep = list(
            Dataset.objects.filter(visibility=Visibility.LISTED)
            .order_by("-revision")
            .values_list("pk", flat=True)[:MAX_DATASETS]
        )
    room = MAX_BODY // 2
    taken = 0
    for dataset in changed:
        version = dataset.current if dataset.visibility == Visibility.LISTED else None
        raw = msgspec.json.encode(public_metadata(version)) if version is not None else b""
        if len(raw) > room:
            break
        if raw and len(raw) <= MAX_METADATA:
            push.put.append(msgspec.Raw(raw))
        else:
            push.remove.append(dataset.pk)
        push.revision = dataset.revision
        room -= len(raw)
        taken += 1
    return push, taken < len(changed) or len(changed) == MAX_BATCH
