"""The node itself: who is connected, what its processes take, what waits, what went wrong; and ending a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils.dateparse import parse_datetime
from unfold.decorators import display

from apps.accounts.models import User
from apps.compute import actions as verbs
from apps.compute.models import LiveSession, WebProcess
from apps.compute.policies import can_see_node, can_stop
from apps.compute.queries import live_processes, sessions_visible_to
from apps.compute.usage import disk, memory, size_of
from apps.console.acts import Act, reason_field
from apps.console.base import GridAdmin, person
from apps.console.show import Panel, link, page_of, size, when
from apps.datarequests.models import DataRequest
from apps.datarequests.transitions import State
from apps.plans.models import Plan

STATES = {"connected": "connected", "waiting": "waits for its client", "stopping": "being stopped"}
TONES = {"connected": "success", "waits for its client": "warning", "being stopped": "danger"}
MOST_ERRORS = 20


class Stop(Act):
    label = "Stop this session"
    note = (
        "Its client is told that an administrator ended it, and why, and does not come back by itself. Values that "
        "were computed in it are gone; datasets, requests and their answers stay. This cannot be taken back."
    )
    tone = "danger"
    ends = True
    reason = reason_field("The person whose session it is reads it, and it is kept in the audit log.")

    @classmethod
    def allowed(cls, user: User, obj: LiveSession) -> bool:
        return can_stop(user, obj)

    @classmethod
    def possible(cls, user: User, obj: LiveSession) -> bool:
        return obj.stopped_at is None

    def run(self) -> str:
        session = verbs.stop_session(self.obj, by=self.user, reason=self.cleaned_data["reason"])
        return f"The session of {session.user.username} is being stopped: within a second, as a rule."


@admin.register(LiveSession)
class LiveSessionAdmin(GridAdmin):
    plural = "Node"
    empty = "Nobody is connected. A session appears here as soon as somebody uses this node from Python."
    role = "node"
    acts = (Stop,)
    change_list_template = "console/node.html"
    list_display = ["whose", "client", "since", "status", "open_asks", "worker_memory", "error"]
    list_display_links = ["whose"]
    search_fields = ["user__username", "client"]
    search_help_text = "Search by account or client"
    ordering = ["-opened"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user = person(request)
        return self.role == settings.GRID_ROLE and user.is_staff and can_see_node(user)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LiveSession]:
        return sessions_visible_to(person(request))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            return super().changelist_view(request)  # which refuses
        return super().changelist_view(request, state_of_node())

    def heading(self, user: User, obj: LiveSession) -> str:
        return f"Session {obj}"

    def panels(self, user: User, obj: LiveSession) -> list[Panel]:
        facts = [
            ("Account", link(user, obj.user)),
            ("Client", obj.client or "it did not say"),
            ("Opened", obj.opened),
            ("State", STATES[obj.state]),
            ("Without its client since", obj.waits_since),
            ("Open asks", obj.asks),
            ("Last error it was told", obj.last_error),
            ("That was", obj.last_error_at),
            ("In", str(obj.process)),
            ("Stopped by", obj.stopped_by and link(user, obj.stopped_by)),
            ("Reason", obj.stop_reason),
        ]
        worker = obj.worker
        load = [("Worker", "none yet: it begins with the first operation")]
        if worker is not None:
            load = [
                ("Worker", "on another machine" if worker["pid"] is None else f"process {worker['pid']}"),
                ("Memory", _memory(worker)),
                ("Processor time", _seconds(worker["cpu"])),
                ("Network", _network(worker)),
            ]
        return [Panel("Session", facts), Panel("Its worker", load)]

    @display(description="account", ordering="user__username")
    def whose(self, session: LiveSession) -> str:
        return session.user.username

    @display(description="since", ordering="opened")
    def since(self, session: LiveSession) -> str:
        return when(session.opened)

    @display(description="state", label=TONES)
    def status(self, session: LiveSession) -> str:
        return STATES[session.state]

    @display(description="open asks", ordering="asks")
    def open_asks(self, session: LiveSession) -> int:
        return session.asks

    @display(description="worker's memory")
    def worker_memory(self, session: LiveSession) -> str:
        return _memory(session.worker) if session.worker else "no worker yet"

    @display(description="last error", ordering="last_error_at", empty_value="none")
    def error(self, session: LiveSession) -> str | None:
        return session.last_error.replace("_", " ") or None


# --- the page below the sessions ----------------------------------------------------------------------------------


def state_of_node() -> dict[str, Any]:
    """What the page tells beside the sessions."""
    processes = list(live_processes().annotate(number=Count("sessions")))
    workers = [each for process in processes for each in process.report["workers"]]
    storage, machine = disk(Path(settings.GRID_STORAGE_DIR)), memory()
    queue = _queue()
    return {
        "cards": [
            ("Sessions", sum(process.number for process in processes)),
            ("Workers", len(workers)),
            ("Requests waiting", queue[State.SUBMITTED.label]),
            ("Memory free", size(machine.free)),
            ("Disk free", size(storage.free)),
        ],
        "processes": [_process(process) for process in processes],
        "workers": _workers(workers),
        "storage": _storage(storage.free, storage.total, machine.free, machine.total),
        "queue": Panel("Requests", list(queue.items())),
        "errors": _errors(processes),
        # Whoever has just stopped one wants to see it go.
        "pause": "2s" if LiveSession.objects.filter(stopped_at__isnull=False).exists() else "10s",
        "exposed": any(not each["isolated"] for each in workers),
    }


def _process(process: WebProcess) -> dict[str, Any]:
    report = process.report
    return {
        "name": str(process),
        "started": when(process.started),
        "seen": when(process.seen),
        "sessions": process.number,  # type: ignore[attr-defined]
        "memory": _memory(report["own"]),
        "forkserver": _memory(report["forkserver"]),
        "cpu": _seconds(report["own"]["cpu"]),
        "database": f"{report['database']['waiting']} waiting; a turn comes after {report['database']['turn']} ms",
    }


def _workers(workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    sessions = {
        str(session.pk): session
        for session in LiveSession.objects.filter(
            pk__in=[each["session"] for each in workers if each["session"]]
        ).select_related("user")
    }
    return [
        {
            "pid": each["pid"] or "on another machine",
            "session": sessions.get(each["session"]),
            "url": page_of(sessions[each["session"]]) if each["session"] in sessions else "",
            "memory": _memory(each),
            "cpu": _seconds(each["cpu"]),
            "network": _network(each),
        }
        for each in sorted(workers, key=lambda each: -(each["rss"] or 0))
    ]


def _storage(free: int, total: int, memory_free: int, memory_total: int) -> Panel:
    folder = Path(settings.GRID_STORAGE_DIR)
    plans = Plan.objects.aggregate(number=Count("pk"), bytes=Sum("nbytes", default=0))
    return Panel(
        "Storage and memory",
        [
            ("Datasets", size(size_of(folder / "datasets"))),
            ("Requests and answers", size(size_of(folder / "requests"))),
            ("Open sessions", size(size_of(folder / "sessions"))),
            (f"Plans ({plans['number']})", size(plans["bytes"])),
            ("Free disk", f"{size(free)} of {size(total)}"),
            ("Free memory", f"{size(memory_free)} of {size(memory_total)}"),
        ],
    )


def _queue() -> dict[str, int]:
    """How many requests are in each state, by its label."""
    found = dict(DataRequest.objects.order_by("state").values_list("state").annotate(Count("pk")))
    return {state.label: found.get(state.value, 0) for state in State}


def _errors(processes: Iterable[WebProcess]) -> list[dict[str, Any]]:
    """The newest first, of all processes."""
    found = [each for process in processes for each in process.report["errors"]]
    newest = sorted(found, key=lambda each: each["at"], reverse=True)[:MOST_ERRORS]
    return [{**each, "at": when(parse_datetime(each["at"]))} for each in newest]


def _memory(usage: dict[str, Any] | None) -> str:
    """Its own share, which is what ending it frees, and all that it maps."""
    if usage is None or usage["rss"] is None:
        return "not known"
    return size(usage["rss"]) if usage["pss"] is None else f"{size(usage['pss'])} ({size(usage['rss'])} mapped)"


def _seconds(milliseconds: int | None) -> str:
    return "not known" if milliseconds is None else f"{milliseconds / 1000:.1f} s"


def _network(worker: dict[str, Any]) -> str:
    return "cut off" if worker["isolated"] else "not cut off"
