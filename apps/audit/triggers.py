"""The log's guard in the database: events are only added, texts only added or erased, the head only steps forward."""

from __future__ import annotations

from apps.core.triggers import Guard


def _guard(step: str) -> Guard:
    """`step`: which changes of the head are refused."""
    return Guard(
        "audit_refuse",
        "the audit log is append-only",
        (
            ("audit_event_no_update", "audit_auditevent", "UPDATE", ""),
            ("audit_event_no_delete", "audit_auditevent", "DELETE", ""),
            ("audit_text_no_update", "audit_audittext", "UPDATE", ""),
            ("audit_head_no_delete", "audit_audithead", "DELETE", ""),
            ("audit_head_steps", "audit_audithead", "UPDATE", step),
        ),
    )


FIRST = _guard("NEW.seq <> OLD.seq + 1")
"""Before several events were written together: for migrations."""
GUARD = _guard("NEW.seq <= OLD.seq")
