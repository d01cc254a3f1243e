"""The audit log in the console: to read, to search, never to write."""

from __future__ import annotations

import json

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.audit.models import AuditEvent
from apps.audit.queries import events_visible_to
from apps.console.base import GridAdmin, person


@admin.register(AuditEvent)
class AuditEventAdmin(GridAdmin):
    list_display = ["seq", "at", "verb", "actor_name", "target"]
    list_filter = ["verb"]
    search_fields = ["actor_name", "target"]
    ordering = ["-seq"]
    fields = ["seq", "at", "verb", "actor_name", "actor_id", "target", "what", "payload_digest", "previous", "hash"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        return events_visible_to(person(request))

    @display(description="what")
    def what(self, event: AuditEvent) -> str:
        text = getattr(event, "text", None)
        return json.dumps(text.payload, indent=1, ensure_ascii=False) if text else "(erased)"
