"""Tables for postings: bitmaps of document numbers for each token, alike on both databases."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tags", "0002_tokens")]

    operations = [
        migrations.AddField(
            model_name="entry",
            name="hidden",
            field=models.BooleanField(default=False, help_text="Kept with its number, and found by nobody."),
        ),
        migrations.AddField(
            model_name="entry",
            name="words",
            field=models.BinaryField(default=b"", help_text="Its tokens, with spaces between them."),
        ),
        migrations.CreateModel(
            name="Token",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=16)),
                ("text", models.BinaryField()),
                ("documents", models.PositiveIntegerField()),
            ],
            options={
                "indexes": [models.Index(fields=["kind", "-documents"], name="token_popular")],
                "constraints": [models.UniqueConstraint(fields=("kind", "text"), name="token_once")],
            },
        ),
        migrations.CreateModel(
            name="Posting",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "token", "block", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("block", models.PositiveIntegerField()),
                ("numbers", models.BinaryField()),
                (
                    "token",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tags.token",
                    ),
                ),
            ],
        ),
    ]
