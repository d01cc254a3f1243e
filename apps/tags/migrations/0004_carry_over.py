"""Entries of the index keep their tokens: out of FTS5 or `text[]` into postings, and back."""

from collections import defaultdict

from django.db import migrations
from pyroaring import BitMap

BLOCK = 1 << 16
"""Entries at a time: those of one block."""
ROWS = 500
OLD = {
    "sqlite": "SELECT e.id, e.kind, t.tokens FROM tags_entry e JOIN tags_tokens t ON t.rowid = e.id"
    " WHERE e.id >= %s AND e.id < %s",
    "postgresql": "SELECT id, kind, array_to_string(tokens, ' ') FROM tags_entry WHERE id >= %s AND id < %s",
}
WRITE_OLD = {
    "sqlite": "INSERT INTO tags_tokens (tokens, rowid) VALUES (%s, %s)",
    "postgresql": "UPDATE tags_entry SET tokens = string_to_array(%s, ' ') WHERE id = %s",
}


def forwards(apps, schema_editor):
    Entry, Token, Posting = (apps.get_model("tags", name) for name in ("Entry", "Token", "Posting"))
    connection = schema_editor.connection
    using = connection.alias
    last = Entry.objects.using(using).order_by("-pk").values_list("pk", flat=True).first()
    tokens = {}
    for block in range(0 if last is None else last // BLOCK + 1):
        postings = defaultdict(BitMap)
        entries = []
        with connection.cursor() as cursor:
            cursor.execute(OLD[connection.vendor], [block * BLOCK, (block + 1) * BLOCK])
            for number, kind, old in cursor:
                having = sorted({b"*", *(_new(token) for token in (old or "").split())})
                entries.append(Entry(pk=number, words=b" ".join(having)))
                for token in having:
                    postings[kind, token].add(number)
        for (kind, text), numbers in postings.items():
            if (kind, text) not in tokens:
                tokens[kind, text] = Token(kind=kind, text=text, documents=0)
            tokens[kind, text].documents += len(numbers)
        fresh = [tokens[key] for key in postings if tokens[key].pk is None]
        Token.objects.using(using).bulk_create(fresh, batch_size=ROWS)
        Posting.objects.using(using).bulk_create(
            [
                Posting(token_id=tokens[key].pk, block=block, numbers=numbers.serialize())
                for key, numbers in postings.items()
            ],
            batch_size=ROWS,
        )
        Entry.objects.using(using).bulk_update(entries, ["words"], batch_size=ROWS)
    # Counted at the end: most tokens are in several blocks.
    Token.objects.using(using).bulk_update(tokens.values(), ["documents"], batch_size=ROWS)


def backwards(apps, schema_editor):
    Entry, Token, Posting = (apps.get_model("tags", name) for name in ("Entry", "Token", "Posting"))
    connection = schema_editor.connection
    using = connection.alias
    statement = WRITE_OLD[connection.vendor]
    entries = Entry.objects.using(using).values_list("pk", "words")
    with connection.cursor() as cursor:
        rows = []
        for number, words in entries.iterator(chunk_size=2000):
            rows.append((" ".join(_old(token) for token in bytes(words).split() if token != b"*"), number))
        cursor.executemany(statement, rows)
    Posting.objects.using(using).all().delete()
    Token.objects.using(using).all().delete()
    Entry.objects.using(using).update(words=b"", hidden=False)


def _new(token):
    """A hash of a long token stays what it is."""
    return token.encode() if token.startswith("x") else bytes.fromhex(token)


def _old(token):
    return token.decode() if token.startswith(b"x") else token.hex()


class Migration(migrations.Migration):
    dependencies = [("tags", "0003_postings")]
    operations = [migrations.RunPython(forwards, backwards)]
