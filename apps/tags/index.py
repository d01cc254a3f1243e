"""The one search index of node and network: which documents have all of these tokens?

SQLite keeps the tokens in an FTS5 table, PostgreSQL in a `text[]` column with a GIN index. In both a token is stored
in hexadecimal, so that no tokenizer cuts it and no character of a term can mean anything to a query language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import connections, models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from apps.tags.models import Entry
from apps.tags.normal import tokens, wanted

KINDS: dict[str, type[models.Field[Any, Any]]] = {"dataset": models.UUIDField, "announcement": models.UUIDField}
"""The kinds of documents, with the field type of their keys."""
LONGEST_TOKEN = 64
"""Bytes; a longer token is kept by its hash: GIN refuses very long ones."""


def put(kind: str, key: object, *, name: str, description: str, tags: Iterable[str]) -> None:
    """Index a document, or index it anew. Raises InvalidInputError for a bad tag."""
    encoded = [_hex(token) for token in tokens(name, description, tags)]
    using = router.db_for_write(Entry)
    with transaction.atomic(using=using):
        entry, _ = Entry.objects.using(using).get_or_create(kind=kind, key=_text(key))
        with connections[using].cursor() as cursor:
            if _has_arrays(connections[using]):
                cursor.execute("UPDATE tags_entry SET tokens = %s WHERE id = %s", [encoded, entry.pk])
            else:
                cursor.execute("DELETE FROM tags_tokens WHERE rowid = %s", [entry.pk])
                cursor.execute("INSERT INTO tags_tokens (rowid, tokens) VALUES (%s, %s)", [entry.pk, " ".join(encoded)])


def remove(kind: str, key: object) -> None:
    """Forget a document; one that is not there is forgotten already."""
    using = router.db_for_write(Entry)
    with transaction.atomic(using=using):
        entry = Entry.objects.using(using).filter(kind=kind, key=_text(key)).first()
        if entry is None:
            return
        if not _has_arrays(connections[using]):
            with connections[using].cursor() as cursor:
                cursor.execute("DELETE FROM tags_tokens WHERE rowid = %s", [entry.pk])
        entry.delete()


def matching(kind: str, terms: Iterable[str]) -> models.QuerySet[Entry, Any]:
    """The keys of the documents that match every term, for `.filter(pk__in=...)`; all of them when there is no term.

    A term with "#" matches a tag only; one without a tag or a whole word of name or description, case-folded.
    Raises InvalidInputError for a term that can match nothing by its form, or too many.
    """
    encoded = [_hex(token) for token in wanted(terms)]
    entries = Entry.objects.filter(kind=kind)
    if encoded:
        if _has_arrays(connections[router.db_for_read(Entry)]):
            ids = RawSQL("SELECT id FROM tags_entry WHERE tokens @> %s::text[]", [encoded])
        else:
            query = " AND ".join(f'"{token}"' for token in encoded)
            ids = RawSQL("SELECT rowid FROM tags_tokens WHERE tags_tokens MATCH %s", [query])
        entries = entries.filter(pk__in=ids)
    return entries.annotate(document=Cast("key", KINDS[kind]())).values_list("document", flat=True)


def _hex(token: str) -> str:
    raw = token.encode()
    return raw.hex() if len(raw) <= LONGEST_TOKEN else f"x{hashlib.sha256(raw).hexdigest()}"


def _text(key: object) -> str:
    return key.hex if isinstance(key, UUID) else str(key)


def _has_arrays(connection: BaseDatabaseWrapper) -> bool:
    return connection.vendor == "postgresql"
