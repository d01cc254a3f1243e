from typing import Any

from django.db import migrations
from django.db.models import Q


def empty(apps: Any, schema_editor: Any) -> None:
    """What will not run again keeps no program: as `actions._let_go` does since."""
    requests = apps.get_model("datarequests", "DataRequest").objects.using(schema_editor.connection.alias)
    may_run = Q(state="submitted") | Q(state="approved", answered_at=None, failures__lt=2)
    requests.exclude(may_run).update(program=b"", held_bytes=0)


class Migration(migrations.Migration):
    dependencies = [
        ("datarequests", "0003_state"),
    ]

    operations = [
        migrations.RunPython(empty, migrations.RunPython.noop),
    ]
