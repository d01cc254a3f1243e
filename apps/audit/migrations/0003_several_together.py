"""The head may step over several events, which are written together."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from apps.audit.triggers import FIRST, GUARD


def install(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    FIRST.remove(schema_editor.connection)
    GUARD.install(schema_editor.connection)


def remove(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    GUARD.remove(schema_editor.connection)
    FIRST.install(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_append_only")]

    operations = [migrations.RunPython(install, remove)]
