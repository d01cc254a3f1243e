"""What an announcement costs, and whether what a node announced is in the index."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("network", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="announcement",
            name="size",
            field=models.PositiveIntegerField("bytes", default=0, help_text="What keeping and indexing it costs."),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="node",
            name="findable",
            field=models.BooleanField(
                default=True,
                editable=False,
                help_text="What it announced is in the search index; not while it is long silent.",
            ),
        ),
        migrations.AddIndex(
            model_name="node",
            index=models.Index(condition=models.Q(("findable", True)), fields=["expires"], name="node_findable"),
        ),
    ]
