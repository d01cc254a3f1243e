"""Triggers that refuse: the database's own guard of tables that only grow.

Whoever holds the database's password can drop a trigger; then a chain of hashes tells. Triggers stop mistakes: a stray
`update()`, a page that edits, a hurried repair by hand.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper


class Guard(NamedTuple):
    """`rules`: name of the trigger, table, what it refuses, and under which condition ("": always)."""

    function: str
    message: str
    rules: tuple[tuple[str, str, str, str], ...]

    def install(self, connection: BaseDatabaseWrapper) -> None:
        """Create the triggers. Raises NotImplementedError for a database that is neither SQLite nor PostgreSQL."""
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                for name, table, event, condition in self.rules:
                    when = f"WHEN {condition} " if condition else ""
                    refuse = f"BEGIN SELECT RAISE(ABORT, '{self.message}'); END"
                    cursor.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}{refuse}")
            elif connection.vendor == "postgresql":
                cursor.execute(
                    f"CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger LANGUAGE plpgsql AS $$"
                    f" BEGIN RAISE EXCEPTION '{self.message}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
                )
                for name, table, event, condition in self.rules:
                    when = f"WHEN ({condition}) " if condition else ""
                    refuse = f"EXECUTE FUNCTION {self.function}()"
                    cursor.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {when}{refuse}")
                for table in sorted({rule[1] for rule in self.rules}):
                    cursor.execute(
                        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION"
                        f" {self.function}()"
                    )
            else:
                raise NotImplementedError(f"No append-only triggers for {connection.vendor}: use SQLite or PostgreSQL.")

    def remove(self, connection: BaseDatabaseWrapper) -> None:
        """Drop what `install` made."""
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                for name, *_ in self.rules:
                    cursor.execute(f"DROP TRIGGER IF EXISTS {name}")
            else:
                # Takes the triggers with it.
                cursor.execute(f"DROP FUNCTION IF EXISTS {self.function}() CASCADE")
