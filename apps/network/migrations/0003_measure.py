"""Announcements that are there already are measured by their metadata."""

from django.db import migrations, models
from django.db.models import F
from django.db.models.functions import Cast, Length


def measure(apps, schema_editor):
    """Their words are counted when they next change."""
    rows = apps.get_model("network", "Announcement").objects.using(schema_editor.connection.alias)
    rows.update(size=Length(Cast(F("metadata"), models.TextField())))


class Migration(migrations.Migration):
    dependencies = [("network", "0002_sizes")]
    operations = [migrations.RunPython(measure, migrations.RunPython.noop)]
