"""The domain that every dataset is in, with its two pots, and the head of the empty ledger."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from apps.budgets.chain import GENESIS
from apps.budgets.pots import DEFAULT, ENTITIES, EPSILON_NANO, promise


def fill(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    def rows(model: str):
        return apps.get_model("budgets", model).objects.using(schema_editor.connection.alias)

    domain = rows("Domain").create(slug=DEFAULT, entities=ENTITIES)
    for kind, epsilon in EPSILON_NANO.items():
        rows("Pot").create(domain=domain, epoch=1, kind=kind, **promise(kind, epsilon_nano=epsilon, entities=ENTITIES))
    rows("LedgerHead").create(id=1, seq=0, hash=GENESIS)


class Migration(migrations.Migration):
    dependencies = [("budgets", "0002_append_only")]

    # On the way back the tables go, and with them these rows.
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
