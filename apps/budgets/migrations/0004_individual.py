"""Domains whose pots charge each entity what it contributed."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from apps.budgets.triggers import FIRST, GUARD


def remove_first(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    FIRST.remove(schema_editor.connection)


def install_first(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    FIRST.install(schema_editor.connection)


def install(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    GUARD.install(schema_editor.connection)


def remove(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    GUARD.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("budgets", "0003_default_domain")]

    operations = [
        migrations.RunPython(remove_first, install_first),
        migrations.RemoveConstraint(model_name="pot", name="pot_not_overspent"),
        migrations.AddField(
            model_name="domain",
            name="accounting",
            field=models.CharField(
                choices=[
                    ("uniform", "uniform: an answer costs each person the most that it could cost one"),
                    ("individual", "individual: an answer costs each person what that person contributed"),
                ],
                default="uniform",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="pot",
            name="uniform",
            field=models.PositiveBigIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="release",
            name="may_exclude",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name="release",
            name="record",
            field=models.CharField(blank=True, default="", editable=False, max_length=64),
        ),
        migrations.AddConstraint(
            model_name="domain",
            constraint=models.CheckConstraint(
                condition=models.Q(("accounting__in", ["uniform", "individual"])), name="domain_accounting_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="pot",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("spent__lte", models.F("cap")), ("uniform__isnull", True)),
                    models.Q(("uniform__isnull", False), ("uniform__lte", models.F("cap"))),
                    _connector="OR",
                ),
                name="pot_not_overspent",
            ),
        ),
        migrations.RunPython(install, remove),
    ]
