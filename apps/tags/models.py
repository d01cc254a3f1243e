"""Tags as their owners typed them, and the tables of the search index (see `index` and `postings`)."""

from __future__ import annotations

from django.db import models


class Tag(models.Model):
    """One spelling of a tag. Spellings with the same normal form mean the same."""

    text = models.CharField(max_length=80, unique=True)
    normal = models.CharField(max_length=80, db_index=True, editable=False)

    class Meta:
        ordering = ["normal", "text"]

    def __str__(self) -> str:
        return self.text


class Entry(models.Model):
    """A document of the index. Its number, the primary key, is given once: the newest document has the highest."""

    kind = models.CharField(max_length=16)
    key = models.CharField(max_length=64)
    words = models.BinaryField(default=b"", help_text="Its tokens, with spaces between them.")
    hidden = models.BooleanField(default=False, help_text="Kept with its number, and found by nobody.")

    class Meta:
        verbose_name = "index entry"
        verbose_name_plural = "index entries"
        constraints = [models.UniqueConstraint(fields=["kind", "key"], name="one_entry_per_document")]


class Token(models.Model):
    """A token that documents have, and how many have it. Bytes, so that every database orders prefixes alike."""

    kind = models.CharField(max_length=16)
    text = models.BinaryField()
    documents = models.PositiveIntegerField()

    class Meta:
        indexes = [models.Index(fields=["kind", "-documents"], name="token_popular")]
        constraints = [models.UniqueConstraint(fields=["kind", "text"], name="token_once")]


class Posting(models.Model):
    """Which documents of a block of numbers have a token: a compressed bitmap of their numbers, never an empty one."""

    pk = models.CompositePrimaryKey("token", "block")
    # The primary key begins with the token: a second index would cost a write for each posting.
    token = models.ForeignKey(Token, on_delete=models.CASCADE, db_index=False, related_name="+")
    block = models.PositiveIntegerField()
    numbers = models.BinaryField()
