"""Where tokens are kept: FTS5 on SQLite, text[] with GIN on PostgreSQL."""

from django.db import migrations

FORWARDS = {
    # detail=none: only whole documents are asked for, never positions.
    "sqlite": ["CREATE VIRTUAL TABLE tags_tokens USING fts5(tokens, tokenize='ascii', detail='none')"],
    "postgresql": [
        "ALTER TABLE tags_entry ADD COLUMN tokens text[] NOT NULL DEFAULT '{}'",
        "CREATE INDEX tags_entry_tokens ON tags_entry USING gin (tokens)",
    ],
}
BACKWARDS = {
    "sqlite": ["DROP TABLE tags_tokens"],
    "postgresql": ["ALTER TABLE tags_entry DROP COLUMN tokens"],
}


def forwards(apps, schema_editor):
    for statement in FORWARDS[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    for statement in BACKWARDS[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("tags", "0001_initial")]
    operations = [migrations.RunPython(forwards, backwards)]
