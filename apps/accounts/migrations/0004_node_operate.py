"""Administrators look after the node itself: its sessions and its load."""

from django.db import migrations

CAPABILITY = "node.operate"


def give(apps, schema_editor):
    for role in _administrators(apps, schema_editor):
        if CAPABILITY not in role.capabilities:
            role.capabilities = [*role.capabilities, CAPABILITY]
            role.save(update_fields=["capabilities"])


def take(apps, schema_editor):
    for role in _administrators(apps, schema_editor):
        role.capabilities = [each for each in role.capabilities if each != CAPABILITY]
        role.save(update_fields=["capabilities"])


def _administrators(apps, schema_editor):
    roles = apps.get_model("accounts", "Role")
    return roles._default_manager.using(schema_editor.connection.alias).filter(name="administrator")


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_kept_replies"),
    ]

    operations = [
        migrations.RunPython(give, take),
    ]
