"""The database's own guard: events are only added, texts only added or erased, the head only steps forward.

Whoever holds the database's password can drop a trigger; then the chain tells (`manage.py verify_audit`). The
triggers stop mistakes: a stray `update()`, a page that edits, a hurried repair by hand.
"""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

# Name of the trigger, table, what it refuses, and the condition under which it does ("" means always).
RULES = (
    ("audit_event_no_update", "audit_auditevent", "UPDATE", ""),
    ("audit_event_no_delete", "audit_auditevent", "DELETE", ""),
    ("audit_text_no_update", "audit_audittext", "UPDATE", ""),
    ("audit_head_no_delete", "audit_audithead", "DELETE", ""),
    ("audit_head_steps", "audit_audithead", "UPDATE", "NEW.seq <> OLD.seq + 1"),
)
MESSAGE = "the audit log is append-only"

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '{MESSAGE}' USING ERRCODE = 'integrity_constraint_violation'; END $$
"""


def install(connection: BaseDatabaseWrapper) -> None:
    """Create the triggers. Raises NotImplementedError for a database that is neither SQLite nor PostgreSQL."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            for name, table, event, condition in RULES:
                when = f"WHEN {condition} " if condition else ""
                refuse = f"BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END"
                cursor.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}{refuse}")
        elif connection.vendor == "postgresql":
            cursor.execute(_FUNCTION)
            for name, table, event, condition in RULES:
                when = f"WHEN ({condition}) " if condition else ""
                refuse = "EXECUTE FUNCTION audit_refuse()"
                cursor.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}{refuse}")
            for table in sorted({rule[1] for rule in RULES}):
                cursor.execute(
                    f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION audit_refuse()"
                )
        else:
            raise NotImplementedError(f"No append-only triggers for {connection.vendor}: use SQLite or PostgreSQL.")


def remove(connection: BaseDatabaseWrapper) -> None:
    """Drop what `install` made."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            for name, *_ in RULES:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")
        else:
            # Takes the triggers with it.
            cursor.execute("DROP FUNCTION IF EXISTS audit_refuse() CASCADE")
