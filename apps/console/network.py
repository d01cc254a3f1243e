"""The network's nodes (to approve, reject, remove), what they announce, and a node's membership."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from unfold.decorators import action, display

from apps.console.base import GridAdmin, attempt, person
from apps.network import actions as verbs
from apps.network.models import Announcement, Membership, Node
from apps.network.queries import nodes_visible_to


@admin.register(Node)
class NodeAdmin(GridAdmin):
    list_display = ["name", "id", "url", "status", "last_seen", "joined"]
    list_filter = ["state"]
    search_fields = ["id", "name", "url"]
    fields = ["id", "name", "url", "fingerprint", "address", "state", "asked", "joined", "last_seen", "expires",
              "decided_by", "decided_at", "reason"]  # fmt: skip
    actions_detail = ["approve", "reject", "remove"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        return nodes_visible_to(person(request))

    def has_operate_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return person(request).has("network.operate")

    @display(
        description="state",
        label={"pending": "warning", "approved": "success", "rejected": "danger", "removed": "danger"},
    )
    def status(self, node: Node) -> str:
        return node.state

    @action(description="Approve", url_path="approve", permissions=["operate"])
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return self._decide(request, object_id, verbs.approve, "is a member; its datasets can be found now.")

    @action(description="Reject", url_path="reject", permissions=["operate"])
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return self._decide(request, object_id, verbs.reject, "was rejected.")

    @action(description="Remove", url_path="remove", permissions=["operate"])
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return self._decide(request, object_id, verbs.remove, "was removed; its datasets are found no longer.")

    def _decide(self, request: HttpRequest, object_id: str, verb: Any, done: str) -> HttpResponseRedirect:
        node = get_object_or_404(nodes_visible_to(person(request)), pk=object_id)
        attempt(request, lambda: verb(node, by=person(request)), f"{node.name} {done}")
        return redirect("admin:network_node_change", object_id)


@admin.register(Announcement)
class AnnouncementAdmin(GridAdmin):
    list_display = ["name", "node", "revision", "announced"]
    list_filter = ["node"]
    list_select_related = ["node"]
    fields = ["node", "name", "description", "revision", "announced"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return person(request).has("network.operate") or person(request).has("everything.read")

    @display(description="name")
    def name(self, announcement: Announcement) -> str:
        return str(announcement.metadata.get("name", ""))

    @display(description="description")
    def description(self, announcement: Announcement) -> str:
        return str(announcement.metadata.get("description", ""))


@admin.register(Membership)
class MembershipAdmin(GridAdmin):
    list_display = ["url", "node_id", "state", "frozen", "pinned"]
    fields = ["url", "node_id", "state", "problem", "fingerprint", "pinned", "frozen", "acked_revision"]
