"""Reading what is alive: processes that still write, and the sessions in them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import QuerySet

from apps.accounts.models import User
from apps.compute.models import LiveSession, WebProcess
from apps.compute.policies import can_see_node
from apps.core import clock

SILENT_AFTER = timedelta(seconds=25)
"""A process that has written nothing for so long (it writes every ten seconds) has ended, whatever its rows say."""


def live_processes(*, now: datetime | None = None) -> QuerySet[WebProcess]:
    """The processes that serve this node, the oldest first."""
    return WebProcess.objects.filter(seen__gt=(now or clock.now()) - SILENT_AFTER)


def sessions_visible_to(user: User, *, now: datetime | None = None) -> QuerySet[LiveSession]:
    """Sessions that are open in a live process: everybody's for who looks after the node, one's own for others."""
    live = LiveSession.objects.filter(process__in=live_processes(now=now)).select_related("user", "process")
    return live if can_see_node(user) else live.filter(user=user)
