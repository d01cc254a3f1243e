"""The audit log in the console: to read, to search, never to write."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.audit.queries import events_visible_to
from apps.audit.verbs import Verb
from apps.console.base import GridAdmin, person
from apps.console.show import Panel, when


class ByVerb(admin.SimpleListFilter):
    """From the list of verbs: the distinct ones of a long log would cost a scan."""

    title = "what happened"
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(verb.value, _words(verb.value)) for verb in Verb]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(verb=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(GridAdmin):
    plural = "Audit log"
    list_display = ["number", "happened", "what", "actor", "target"]
    list_filter = ["at", ByVerb]
    search_fields = ["actor_name", "target"]
    search_help_text = "Search by who or on what"
    ordering = ["-seq"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        return events_visible_to(person(request))

    def heading(self, user: User, obj: AuditEvent) -> str:
        return f"{obj.seq}: {_words(obj.verb)}"

    def panels(self, user: User, obj: AuditEvent) -> list[Panel]:
        payload = obj.payload
        return [
            Panel(
                "What happened",
                [
                    ("Event", _words(obj.verb)),
                    ("When", f"{obj.at:%Y-%m-%d %H:%M:%S.%f} UTC"),
                    ("Who", self.actor(obj)),
                    ("Account", obj.actor_id),
                    ("On", obj.target),
                    ("In detail", payload if payload is not None else "erased; the digest below still binds it"),
                ],
            ),
            Panel(
                "Its place in the chain",
                [
                    ("Number", obj.seq),
                    ("Digest of the details", obj.payload_digest),
                    ("Event before", obj.previous),
                    ("This event", obj.hash),
                    ("Signature", obj.signature),
                ],
            ),
        ]

    @display(description="number", ordering="seq")
    def number(self, event: AuditEvent) -> int:
        return event.seq

    @display(description="when", ordering="at")
    def happened(self, event: AuditEvent) -> str:
        return when(event.at)

    @display(description="what", ordering="verb")
    def what(self, event: AuditEvent) -> str:
        return _words(event.verb)

    @display(description="who", ordering="actor_name")
    def actor(self, event: AuditEvent) -> str:
        return event.actor_name or "the system"


def _words(verb: str) -> str:
    return verb.replace("_", " ")
