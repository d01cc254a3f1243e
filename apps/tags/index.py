"""The one search index of node and network: which documents have all of these tokens, newest first?

The same tables and the same statements on SQLite and on PostgreSQL (`postings`). The index knows nothing of people:
whoever asks hands in the documents that the asker may see, and only those are shown, counted and suggested.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from django.db import connections, router, transaction

from apps.tags import postings
from apps.tags.models import Entry, Token
from apps.tags.normal import tokens, wanted

M = TypeVar("M")
Visible = Callable[[list[UUID]], Mapping[UUID, M]]
"""Those of the documents with these keys that the asker may see."""
LONGEST_TOKEN = 64
"""Bytes; a longer token is kept by its hash, and found but never shown."""
EVERY = b"*"
"""The token of every document: what a search without terms asks for."""
MOST_AT_ONCE = 10_000
"""Documents that one statement asks for."""
MOST_COMPLETIONS = 2000
"""Tokens with a prefix, in their order, that a suggestion looks at."""
MOST_FREQUENT = 20_000
"""The most frequent tokens of all, which a suggestion looks at where more than that begin with the prefix."""
WRITERS = 7368003
"""PostgreSQL's number of the lock that lets one transaction at a time change the index, as on SQLite."""


class Match(NamedTuple):
    number: int
    key: UUID


@dataclass(frozen=True)
class Document:
    """What is indexed. Made by `document`, which checks it."""

    key: UUID
    tokens: frozenset[bytes]


@dataclass(frozen=True)
class Page(Generic[M]):
    """Rows, newest first, and where the next page begins; None at the end."""

    rows: list[M]
    next: int | None


@dataclass
class Sample(Generic[M]):
    """The newest matches among the documents that may be seen, with their numbers, and whether there are more."""

    matches: list[tuple[int, M]] = field(default_factory=list)
    more: bool = False


def document(key: UUID, *, name: str, description: str, tags: Iterable[str]) -> Document:
    """Raises InvalidInputError for a bad tag."""
    return Document(key, frozenset(_short(token) for token in tokens(name, description, tags)) | {EVERY})


_PUT = (
    "INSERT INTO tags_entry (kind, key, words, hidden) VALUES {rows}"
    " ON CONFLICT (kind, key) DO UPDATE SET words = excluded.words, hidden = excluded.hidden RETURNING key, id"
)


def put(kind: str, documents: Sequence[Document]) -> None:
    """Index documents, or index them anew: one that is known keeps its number. Hidden ones can be found again."""
    with _writing():
        known = {entry.key: _findable_by(entry) for entry in _entries(kind, [each.key for each in documents])}
        numbers: dict[str, int] = {}
        for some in postings.parts(documents, postings.ROWS):
            rows = [(kind, each.key.hex, b" ".join(sorted(each.tokens)), False) for each in some]
            # Numbers are given in this order.
            numbers |= dict(postings.insert(_PUT, rows, returning=True))
        _retoken(kind, ((numbers[e.key.hex], known.get(e.key.hex, frozenset()), e.tokens) for e in documents))


def remove(kind: str, keys: Iterable[UUID]) -> None:
    """Forget documents; one that is not there is forgotten already."""
    with _writing():
        entries = _entries(kind, keys)
        _retoken(kind, [(entry.pk, _findable_by(entry), frozenset()) for entry in entries])
        for some in postings.parts(entries, postings.ROWS):
            Entry.objects.filter(pk__in=[entry.pk for entry in some]).delete()


def hide(kind: str, keys: Iterable[UUID]) -> None:
    """Let nobody find these documents. They keep their numbers, for `show`."""
    with _writing():
        entries = [entry for entry in _entries(kind, keys) if not entry.hidden]
        _retoken(kind, [(entry.pk, _findable_by(entry), frozenset()) for entry in entries])
        _mark(entries, hidden=True)


def show(kind: str, keys: Iterable[UUID]) -> None:
    """Let hidden documents be found again, where they were."""
    with _writing():
        entries = [entry for entry in _entries(kind, keys) if entry.hidden]
        _retoken(kind, [(entry.pk, frozenset(), frozenset(_words(entry.words))) for entry in entries])
        _mark(entries, hidden=False)


def matching(kind: str, terms: Iterable[str], *, before: int | None = None, first: int = 100) -> Iterator[list[Match]]:
    """The documents that match every term, newest first, in batches that grow from `first`; all where there is none.

    A term with "#" matches a tag only; one without a tag or a whole word of name or description, case-folded.
    `before`: only those with a lower number. Raises InvalidInputError for a term that can match nothing by its form,
    or too many.
    """
    having = [_short(token) for token in wanted(terms)] or [EVERY]
    found = postings.newest(kind, having, before=before)
    numbers = (number for block in found for number in reversed(block.to_array()))
    size = first
    while batch := list(islice(numbers, size)):
        keys = dict(postings.read("SELECT id, key FROM tags_entry WHERE id IN {}", batch))
        # An entry may have been removed since its number was read.
        yield [Match(number, UUID(keys[number])) for number in batch if number in keys]
        size = min(size * 4, MOST_AT_ONCE)


def page(kind: str, terms: Iterable[str], visible: Visible[M], *, before: int | None = None, limit: int) -> Page[M]:
    """Up to `limit` of the `visible` documents that match every term, newest first, from below the number `before`."""
    rows: list[tuple[int, M]] = []
    # A few more than are needed: where one or two may not be seen, that is no second round.
    for batch in matching(kind, terms, before=before, first=limit + limit // 8 + 4):
        found = visible([match.key for match in batch])
        rows += [(match.number, found[match.key]) for match in batch if match.key in found]
        if len(rows) > limit:
            return Page([row for _, row in rows[:limit]], rows[limit - 1][0])
    return Page([row for _, row in rows], None)


def sample(kind: str, terms: Iterable[str], visible: Visible[M], *, most: int) -> Sample[M]:
    """The newest of the `visible` documents that match every term, up to `most`."""
    taken: Sample[M] = Sample()
    for batch in matching(kind, terms, first=most + most // 8):
        found = visible([match.key for match in batch])
        taken.matches += [(match.number, found[match.key]) for match in batch if match.key in found]
        if len(taken.matches) > most:
            return Sample(taken.matches[:most], more=True)
    return taken


def count_tokens(numbers: Sequence[int], prefix: str) -> Counter[str]:
    """How many of these documents have each of the tokens that begin with `prefix`."""
    begin = prefix.encode()
    counts: Counter[bytes] = Counter()
    for some in postings.parts(numbers, MOST_AT_ONCE):
        for words in Entry.objects.filter(pk__in=some).values_list("words", flat=True):
            counts.update(token for token in _words(words) if token.startswith(begin))
    return Counter({token.decode(): count for token, count in counts.items()})


def popular(kind: str, prefix: str, *, limit: int) -> list[tuple[str, int]]:
    """The tokens that begin with `prefix` and how many documents have each, most first. Counts all that is not hidden.

    Where very many begin so, only those among the most frequent of all, and the first of the others, are looked at.
    """
    begin = prefix.encode()
    # No token has the byte 0xff: it is none of UTF-8.
    within = Token.objects.filter(kind=kind, text__gte=begin, text__lt=begin + b"\xff")
    rows = list(within.order_by("text").values_list("text", "documents")[:MOST_COMPLETIONS])
    if len(rows) == MOST_COMPLETIONS:
        frequent = Token.objects.filter(kind=kind).order_by("-documents").values("pk")[:MOST_FREQUENT]
        rows += within.filter(pk__in=frequent).order_by("-documents").values_list("text", "documents")[:limit]
    counts = {bytes(text).decode(): documents for text, documents in rows}
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:limit]


def number_of(kind: str, key: UUID) -> int | None:
    """The number of a document in the index."""
    return Entry.objects.filter(kind=kind, key=key.hex).values_list("pk", flat=True).first()


def _entries(kind: str, keys: Iterable[UUID]) -> list[Entry]:
    found: list[Entry] = []
    for some in postings.parts(sorted({key.hex for key in keys}), postings.ROWS):
        found += Entry.objects.filter(kind=kind, key__in=some)
    return found


def _findable_by(entry: Entry) -> frozenset[bytes]:
    return frozenset() if entry.hidden else frozenset(_words(entry.words))


def _retoken(kind: str, changes: Iterable[tuple[int, frozenset[bytes], frozenset[bytes]]]) -> None:
    """Documents with these numbers could be found by the first tokens, and can be by the second from now on."""
    added, removed = defaultdict(list), defaultdict(list)
    for number, before, after in changes:
        for token in after - before:
            added[token].append(number)
        for token in before - after:
            removed[token].append(number)
    postings.change(kind, added=added, removed=removed)


def _mark(entries: Sequence[Entry], *, hidden: bool) -> None:
    for some in postings.parts(entries, postings.ROWS):
        Entry.objects.filter(pk__in=[entry.pk for entry in some]).update(hidden=hidden)


def _words(words: bytes | memoryview) -> list[bytes]:
    return bytes(words).split()


def _short(token: str) -> bytes:
    raw = token.encode()
    return raw if len(raw) <= LONGEST_TOKEN else b"x" + hashlib.sha256(raw).hexdigest().encode()


@contextmanager
def _writing() -> Iterator[None]:
    """One transaction at a time changes the index: two would wait for each other's tokens in a circle."""
    using = router.db_for_write(Entry)
    with transaction.atomic(using=using):
        if connections[using].vendor == "postgresql":
            with connections[using].cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [WRITERS])
        yield
