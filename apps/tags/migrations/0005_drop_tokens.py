"""The old form of the index goes: FTS5 on SQLite, text[] with GIN on PostgreSQL."""

from django.db import migrations

FORWARDS = {
    "sqlite": ["DROP TABLE tags_tokens"],
    "postgresql": ["ALTER TABLE tags_entry DROP COLUMN tokens"],
}
BACKWARDS = {
    "sqlite": ["CREATE VIRTUAL TABLE tags_tokens USING fts5(tokens, tokenize='ascii', detail='none')"],
    "postgresql": [
        "ALTER TABLE tags_entry ADD COLUMN tokens text[] NOT NULL DEFAULT '{}'",
        "CREATE INDEX tags_entry_tokens ON tags_entry USING gin (tokens)",
    ],
}


def forwards(apps, schema_editor):
    for statement in FORWARDS[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    for statement in BACKWARDS[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("tags", "0004_carry_over")]
    operations = [migrations.RunPython(forwards, backwards)]
