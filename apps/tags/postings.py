"""Postings: for each token the numbers of the documents that have it, as compressed bitmaps in blocks of numbers.

Two tokens that half of a million documents have are intersected in well under a millisecond, also where they never
meet; a full-text index merges such lists entry by entry. Numbers grow with every new document, so that walking the
blocks from the top gives the newest first without sorting anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from django.db import connections, router
from pyroaring import BitMap

from apps.core.prepared import execute, places
from apps.tags.models import Posting, Token

T = TypeVar("T")
Numbers = Mapping[bytes, Sequence[int]]
"""Numbers of documents by token."""
BLOCK = 16
"""Bits of a number within its block: what one container of a roaring bitmap holds, 8 KiB at most."""
FIRST_BLOCKS = 2
"""How many blocks are read at first; common terms fill a page from the newest."""
MOST_NUMBERS = 1 << 32
"""What a bitmap can hold."""
ROWS = 500
"""Tokens of one statement."""


def newest(kind: str, tokens: Sequence[bytes], *, before: int | None = None) -> Iterator[BitMap]:
    """The numbers below `before` of documents that have all the tokens: a bitmap for each block, newest block first."""
    # Sorted here: asked to sort, SQLite walks all tokens by their frequency.
    rows = read("SELECT documents, id FROM tags_token WHERE kind IN {} AND text IN {}", [kind], tokens)
    wanted = [token for _, token in sorted(rows)]
    if len(wanted) < len(tokens):
        return
    end = MOST_NUMBERS if before is None else min(before, MOST_NUMBERS)
    # The rarest says where to look at all.
    blocks = [block for (block,) in read("SELECT block FROM tags_posting WHERE token_id IN {}", wanted[:1])]
    blocks = sorted((block for block in blocks if block <= end >> BLOCK), reverse=True)
    size = FIRST_BLOCKS
    while blocks:
        for found in _intersected(wanted, blocks[:size]):
            found.remove_range(end, MOST_NUMBERS)
            if found:
                yield found
        blocks, size = blocks[size:], size * 4


def _intersected(tokens: Sequence[int], blocks: Sequence[int]) -> list[BitMap]:
    """What the tokens have in common in these blocks, in their order."""
    maps: dict[int, list[BitMap]] = {block: [] for block in blocks}
    rows = read("SELECT block, numbers FROM tags_posting WHERE token_id IN {} AND block IN {}", tokens, blocks)
    for block, numbers in rows:
        maps[block].append(BitMap.deserialize(bytes(numbers)))
    return [BitMap.intersection(*each) for each in maps.values() if len(each) == len(tokens)]


def read(sql: str, *values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows of a statement on the index's tables, with values for each `{}`. For every search: the ORM costs more."""
    parameters = [value for some in values for value in some]
    statement = sql.format(*map(places, values))
    found: list[tuple[Any, ...]] = execute(statement, parameters, using=router.db_for_read(Posting)).fetchall()
    return found


def change(kind: str, *, added: Numbers, removed: Numbers) -> None:
    """Give tokens to documents and take them away. Each pair in `removed` is there, and none of those in `added`."""
    more = {text: len(added.get(text, ())) - len(removed.get(text, ())) for text in added.keys() | removed.keys()}
    ids: dict[bytes, int] = {}
    for some in parts(sorted(more), ROWS):
        ids |= _count(kind, {text: more[text] for text in some})
    blocks: dict[int, dict[int, tuple[list[int], list[int]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for side, numbers_of in enumerate((added, removed)):
        for text, numbers in numbers_of.items():
            for number in numbers:
                blocks[number >> BLOCK][ids[text]][side].append(number)
    for block, changes in sorted(blocks.items()):
        for tokens in parts(sorted(changes), ROWS):
            _change_block(block, {token: changes[token] for token in tokens})
    for tokens in parts([ids[text] for text in removed], ROWS):
        Token.objects.filter(pk__in=tokens, documents=0).delete()


# By hand: a push of a hundred datasets writes a thousand rows or two, and the ORM would triple their price.
_COUNT = (
    "INSERT INTO tags_token (kind, text, documents) VALUES {rows}"
    " ON CONFLICT (kind, text) DO UPDATE SET documents = excluded.documents RETURNING id, text"
)
_WRITE = (
    "INSERT INTO tags_posting (token_id, block, numbers) VALUES {rows}"
    " ON CONFLICT (token_id, block) DO UPDATE SET numbers = excluded.numbers"
)


def _count(kind: str, more: Mapping[bytes, int]) -> dict[bytes, int]:
    """Count so many more documents with these tokens; returns the tokens' ids."""
    there = Token.objects.filter(kind=kind, text__in=list(more)).values_list("text", "documents")
    documents = {bytes(text): number for text, number in there}
    rows = [(kind, text, documents.get(text, 0) + number) for text, number in more.items()]
    return {bytes(text): token for token, text in insert(_COUNT, rows, returning=True)}


def _change_block(block: int, changes: Mapping[int, tuple[list[int], list[int]]]) -> None:
    there = Posting.objects.filter(block=block, token__in=list(changes)).values_list("token", "numbers")
    maps = {token: BitMap.deserialize(bytes(numbers)) for token, numbers in there}
    kept, emptied = [], []
    for token, (added, removed) in changes.items():
        numbers = maps.get(token, BitMap())
        numbers |= BitMap(added)
        numbers -= BitMap(removed)
        if numbers:
            numbers.run_optimize()
            kept.append((token, block, numbers.serialize()))
        else:
            emptied.append(token)
    if kept:
        insert(_WRITE, kept)
    if emptied:
        Posting.objects.filter(block=block, token__in=emptied).delete()


def insert(statement: str, rows: Sequence[tuple[Any, ...]], *, returning: bool = False) -> list[tuple[Any, ...]]:
    """Run an INSERT with `{rows}` in its place, in the database of the index."""
    values = ", ".join([places(rows[0])] * len(rows))
    with connections[router.db_for_write(Posting)].cursor() as cursor:
        cursor.execute(statement.format(rows=values), [value for row in rows for value in row])
        return cursor.fetchall() if returning else []


def parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`rows`, `size` at a time."""
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]
