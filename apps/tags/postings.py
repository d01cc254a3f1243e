"""Postings: for each token the numbers of the documents that have it, as compressed bitmaps in blocks of numbers.

Two tokens that half of a million documents have are intersected in well under a millisecond, also where they never
meet; a full-text index merges such lists entry by entry. Numbers grow with every new document, so that walking the
blocks from the top gives the newest first without sorting anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from pyroaring import BitMap

from apps.tags.models import Posting, Token

T = TypeVar("T")
Numbers = Mapping[bytes, Sequence[int]]
"""Numbers of documents by token."""
BLOCK = 16
"""Bits of a number within its block: what one container of a roaring bitmap holds, 8 KiB at most."""
FIRST_BLOCKS = 2
"""How many blocks are read at first; common terms fill a page from the newest."""
MOST_NUMBERS = 1 << 32
ROWS = 500
"""Tokens of one statement."""


def newest(kind: str, tokens: Sequence[bytes], *, before: int | None = None) -> Iterator[BitMap]:
    """The numbers below `before` of documents that have all the tokens: a bitmap for each block, newest block first."""
    rows = Token.objects.filter(kind=kind, text__in=tokens).order_by("documents").values_list("pk", flat=True)
    wanted = list(rows)
    if len(wanted) < len(tokens):
        return
    end = MOST_NUMBERS if before is None else min(before, MOST_NUMBERS)
    # The rarest says where to look at all.
    there = Posting.objects.filter(token=wanted[0], block__lte=end >> BLOCK)
    blocks = list(there.order_by("-block").values_list("block", flat=True))
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
    rows = Posting.objects.filter(token__in=tokens, block__in=blocks).values_list("block", "numbers")
    for block, numbers in rows:
        maps[block].append(BitMap.deserialize(bytes(numbers)))
    return [BitMap.intersection(*having) for having in maps.values() if len(having) == len(tokens)]


def change(kind: str, *, added: Numbers, removed: Numbers) -> None:
    """Give tokens to documents and take them away. Each pair in `removed` is there, and none of those in `added`."""
    texts = sorted(added.keys() | removed.keys())
    tokens: dict[bytes, Token] = {}
    for some in parts(texts, ROWS):
        tokens |= {bytes(row.text): row for row in Token.objects.filter(kind=kind, text__in=some)}
    for text in texts:
        token = tokens.setdefault(text, Token(kind=kind, text=text, documents=0))
        token.documents += len(added.get(text, ())) - len(removed.get(text, ()))
    for rows in parts([tokens[text] for text in texts], ROWS):
        counted = [Token(kind=kind, text=row.text, documents=row.documents) for row in rows]
        Token.objects.bulk_create(
            counted, update_conflicts=True, update_fields=["documents"], unique_fields=["kind", "text"]
        )
        for row, written in zip(rows, counted, strict=True):
            row.pk = written.pk
    blocks: dict[int, dict[int, tuple[list[int], list[int]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for side, numbers_of in enumerate((added, removed)):
        for text, numbers in numbers_of.items():
            for number in numbers:
                blocks[number >> BLOCK][tokens[text].pk][side].append(number)
    for block, changes in sorted(blocks.items()):
        for ids in parts(sorted(changes), ROWS):
            _change_block(block, {token: changes[token] for token in ids})
    gone = [token.pk for token in tokens.values() if token.documents == 0]
    for ids in parts(gone, ROWS):
        Token.objects.filter(pk__in=ids).delete()


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
            kept.append(Posting(token_id=token, block=block, numbers=numbers.serialize()))
        else:
            emptied.append(token)
    Posting.objects.bulk_create(
        kept, update_conflicts=True, update_fields=["numbers"], unique_fields=["token", "block"]
    )
    if emptied:
        Posting.objects.filter(block=block, token__in=emptied).delete()


def parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`rows`, `size` at a time."""
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]
