"""The figures that `/metrics` gives out: those that this process counted, and those that are looked up when asked."""

from __future__ import annotations

import resource
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count
from prometheus_client import generate_latest

from apps.audit.models import AuditHead
from apps.compute.workers import Workers
from apps.core import metrics
from apps.core.database import in_database
from apps.datarequests.models import DataRequest
from apps.datarequests.transitions import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def scrape(workers: Workers | None) -> bytes:
    """All figures in Prometheus's text format."""
    sizes = [_resident(pid) for pid in workers.pids] if workers is not None else []
    metrics.WORKER_BYTES.set(sum(sizes))
    metrics.LARGEST_WORKER_BYTES.set(max(sizes, default=0))
    try:
        requests, events = await in_database(_of_the_deployment)
    except DatabaseError:
        # The other figures are the ones that tell why.
        return generate_latest(metrics.REGISTRY)
    metrics.AUDIT_EVENTS.set(events)
    if settings.GRID_ROLE == "node":
        for state in State:
            metrics.REQUESTS.labels(state.value).set(requests.get(state.value, 0))
    return generate_latest(metrics.REGISTRY)


def _of_the_deployment() -> tuple[dict[str, int], int]:
    counted = DataRequest.objects.order_by().values_list("state").annotate(number=Count("pk"))
    head = AuditHead.objects.first()
    return dict(counted), head.seq if head else 0


def _resident(pid: int) -> int:
    """Bytes of memory of a process; 0 when it has gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()
