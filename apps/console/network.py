"""The network's nodes (to approve, reject, remove), what they announce, and a node's membership."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.widgets import UnfoldAdminRadioSelectWidget

from apps.accounts.models import User
from apps.console.acts import Act, reason_field
from apps.console.base import GridAdmin, person
from apps.console.filters import ByNode
from apps.console.lists import IndexedAdmin
from apps.console.show import Panel, column, link, times, when
from apps.core import clock, keys
from apps.network import actions as verbs
from apps.network import membership
from apps.network.models import KIND, NEXT, Announcement, Membership, Node, NodeHead, State
from apps.network.policies import sees_all
from apps.network.queries import nodes_visible_to
from apps.network.witness import seen

STATUS = {"pending": "warning", "approved": "success", "rejected": "danger", "removed": "danger"}


class _ByOperator(Act):
    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        return user.has("network.operate")


class Approve(_ByOperator):
    label = "Approve"
    note = "The network calls the node's address first, to see that it holds the key that asked."
    tone = "good"
    reason = reason_field("The node's administrator reads it. May be empty.", required=False)

    @classmethod
    def possible(cls, user: User, obj: Node) -> bool:
        return State.APPROVED in NEXT[State(obj.state)]

    def run(self) -> str:
        verbs.approve(self.obj, by=self.user, reason=self.cleaned_data["reason"])
        return f"{self.obj.name} is a member; its datasets can be found now."


class Reject(_ByOperator):
    label = "Reject"
    note = "It isn't let in, and the name it asked for is free again."
    tone = "danger"
    reason = reason_field("The node's administrator reads it.")

    @classmethod
    def possible(cls, user: User, obj: Node) -> bool:
        return State.REJECTED in NEXT[State(obj.state)] and obj.joined is None

    def run(self) -> str:
        verbs.reject(self.obj, by=self.user, reason=self.cleaned_data["reason"])
        return f"{self.obj.name} is rejected."


class Remove(_ByOperator):
    label = "Remove"
    note = "What it announced is forgotten and found no longer. Its name stays reserved for its key."
    tone = "danger"
    reason = reason_field("The node's administrator reads it.")

    @classmethod
    def possible(cls, user: User, obj: Node) -> bool:
        return State.REMOVED in NEXT[State(obj.state)] and obj.joined is not None

    def run(self) -> str:
        verbs.remove(self.obj, by=self.user, reason=self.cleaned_data["reason"])
        return f"{self.obj.name} is removed; its datasets are found no longer."


@admin.register(Node)
class NodeAdmin(GridAdmin):
    plural = "Nodes"
    empty = "A node asks to join when its GRID_NETWORK_URL names this network; it then waits here for your approval."
    role = "network"
    acts = (Approve, Reject, Remove)
    list_display = ["name", "id", "url", "status", "alive", "seen", "since"]
    list_filter = ["state"]
    search_fields = ["id", "name", "url"]
    search_help_text = "Search by name or address"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        return nodes_visible_to(person(request))

    def panels(self, user: User, obj: Node) -> list[Panel]:
        asked = [
            ("Name", obj.name),
            ("Id", obj.id),
            ("Address", obj.url),
            ("Fingerprint of its key", obj.fingerprint),
            ("State", obj.get_state_display()),
            ("Asked", obj.asked),
            ("Asked from", obj.address),
        ]
        member = [
            ("Decided by", link(user, obj.decided_by) if obj.decided_by else ""),
            ("Decided", obj.decided_at),
            ("Reason", obj.reason),
            ("First approved", obj.joined),
            ("Alive", self.alive(obj) if obj.state == State.APPROVED else ""),
            ("Last seen", obj.last_seen),
            ("Datasets announced", self.announced(obj) if obj.joined else ""),
        ]
        panels = [Panel("Node", asked), Panel("Membership", member)]
        if heads := list(seen(obj)):
            alarms = sum(head.alarm for head in heads)
            shown = [("Set back", f"{alarms} times seen" if alarms else "never seen"), *map(self.head, heads)]
            panels.append(Panel("How far its logs were seen, counter-signed", shown))
        return panels

    def head(self, head: NodeHead) -> tuple[str, SafeString]:
        """An alarm stays here for ever: only the node knows whether its log contains the others."""
        words = "{}, {} {}" if not head.alarm else "{}, {} {}: SET BACK to here, from what stands above"
        return f"{head.log} {head.number}", format_html(words, head.hash[:16], "seen", when(head.seen))

    def announced(self, node: Node) -> SafeString:
        where = reverse("admin:network_announcement_changelist")
        return format_html('<a class="console-link" href="{}?at={}">{}</a>', where, node.pk, node.announcements.count())

    @display(description="state", ordering="state", label=STATUS)
    def status(self, node: Node) -> str:
        return node.state

    @display(description="alive", ordering="expires")
    def alive(self, node: Node) -> str:
        return "yes" if node.expires is not None and clock.now() < node.expires else "no: searches leave it out"

    @display(description="last seen", ordering="last_seen")
    def seen(self, node: Node) -> str:
        return when(node.last_seen)

    @display(description="member since", ordering="joined")
    def since(self, node: Node) -> str:
        return when(node.joined)


@admin.register(Announcement)
class AnnouncementAdmin(IndexedAdmin):
    indexed = KIND
    plural = "Announcements"
    empty = "What approved nodes announce about their listed datasets appears here within seconds."
    role = "network"
    list_display = ["name", "at", "tag_names", "shape", "announced_at"]
    list_filter = [ByNode]
    list_select_related = ["node"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Announcement]:
        announced = super().get_queryset(request)
        # Asked to look at every announcement's node, a database would sort them all.
        return announced if sees_all(person(request)) else announced.filter(node__state=State.APPROVED)

    def heading(self, user: User, obj: Announcement) -> str:
        return self.name(obj)

    def panels(self, user: User, obj: Announcement) -> list[Panel]:
        said = obj.metadata
        facts = [
            ("Name", self.name(obj)),
            ("Node", link(user, obj.node)),
            ("In programs", said.get("slug")),
            ("Description", said.get("description")),
            ("Tags", self.tag_names(obj)),
            ("Kind", said.get("kind")),
            ("Shape", self.shape(obj)),
            ("Columns", [column(each) for each in said.get("columns") or []]),
            ("Version", said.get("version")),
            ("First announced", obj.announced),
        ]
        return [Panel("Announcement", facts)]

    @display(description="name")
    def name(self, announcement: Announcement) -> str:
        return str(announcement.metadata.get("name", ""))

    @display(description="node", ordering="node__name")
    def at(self, announcement: Announcement) -> str:
        return announcement.node.name

    @display(description="tags")
    def tag_names(self, announcement: Announcement) -> str:
        return " ".join(str(tag) for tag in announcement.metadata.get("tags") or [])

    @display(description="shape")
    def shape(self, announcement: Announcement) -> str:
        return times(announcement.metadata.get("shape") or [])

    @display(description="first announced", ordering="announced")
    def announced_at(self, announcement: Announcement) -> str:
        return when(announcement.announced)


class Pin(_ByOperator):
    label = "Decide on the network's key"
    note = (
        "Ask the network's operator, in another way than over the network, which fingerprint is theirs. Accounts that "
        "the old key vouched for stay; a new key cannot speak for them."
    )
    tone = "danger"
    key = forms.ChoiceField(label="The network's key", widget=UnfoldAdminRadioSelectWidget)
    reason = reason_field("Kept in the audit log.")

    def __init__(self, *args: Any, obj: Membership, **kwargs: Any) -> None:
        super().__init__(*args, obj=obj, **kwargs)
        self.fields["key"].choices = [  # type: ignore[attr-defined]
            (obj.public_key, f"{keys.fingerprint(obj.public_key)} (pinned)"),
            (obj.offered_key, f"{_offered(obj)} (shown now)"),
        ]

    @classmethod
    def possible(cls, user: User, obj: Membership) -> bool:
        return obj.frozen

    def run(self) -> str:
        membership.pin(self.cleaned_data["key"], by=self.user, reason=self.cleaned_data["reason"])
        return "The key is pinned, and people may sign in from the network again."


@admin.register(Membership)
class MembershipAdmin(GridAdmin):
    plural = "Membership"
    empty = "This node belongs to no network, or hasn't reached it yet. The setting GRID_NETWORK_URL names it."
    role = "node"
    acts = (Pin,)
    list_display = ["url", "node_id", "status", "key", "pinned_at"]

    def panels(self, user: User, obj: Membership) -> list[Panel]:
        facts = [
            ("Network", obj.url),
            ("Our id there", obj.node_id),
            ("State", obj.get_state_display()),
            ("Problem", obj.problem),
            ("Fingerprint of its key", obj.fingerprint),
            ("Pinned", obj.pinned),
            ("Fingerprint shown now", _offered(obj)),
            ("Sign-ins from there", "stopped, until an administrator decides" if obj.frozen else "open"),
            ("Acknowledged revision", obj.acked_revision),
        ]
        return [Panel("Membership", facts)]

    @display(description="state", ordering="state", label={**STATUS, "key changed": "danger"})
    def status(self, obj: Membership) -> str:
        return "key changed" if obj.frozen else obj.state or "asking"

    @display(description="key")
    def key(self, obj: Membership) -> str:
        return obj.fingerprint

    @display(description="pinned", ordering="pinned")
    def pinned_at(self, obj: Membership) -> str:
        return when(obj.pinned)


def _offered(obj: Membership) -> str:
    return keys.fingerprint(obj.offered_key) if obj.offered_key else ""
