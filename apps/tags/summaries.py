"""Counts beside a search: which tags its hits have, and how a term that is being typed may end.

Facets, and suggestions where people see different documents, are counted over documents that the asker may see and
over nothing else: a tag that only hidden datasets have must look like one that nothing has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from apps.tags import index
from apps.tags.index import Visible
from apps.tags.normal import beginning, term

M = TypeVar("M")
MOST_COUNTED = 2000
"""Documents that facets and suggestions count: the newest."""
MOST_TAGS = 20
MOST_GROUPS = 50


class Suggestion(NamedTuple):
    """A search term, and how many documents it finds."""

    term: str
    datasets: int


@dataclass(frozen=True)
class Facets:
    """Tags, and groups such as nodes, of the newest `counted` hits; `more`: whether there are others, not counted."""

    counted: int
    more: bool
    tags: list[Suggestion]
    groups: list[tuple[str, int]]


def facets(kind: str, terms: Iterable[str], visible: Visible[M], *, group: Callable[[M], str] | None = None) -> Facets:
    """Of the `visible` documents that match every term. Raises InvalidInputError as `index.matching` does."""
    taken = index.sample(kind, terms, visible, most=MOST_COUNTED)
    tags = index.count_tokens([number for number, _ in taken.matches], "t:")
    groups = Counter(group(row) for _, row in taken.matches) if group is not None else Counter()
    return Facets(
        counted=len(taken.matches),
        more=taken.more,
        tags=[Suggestion(term(token), count) for token, count in _first(tags, MOST_TAGS)],
        groups=_first(groups, MOST_GROUPS),
    )


def popular(kind: str, prefix: str, *, limit: int) -> list[Suggestion]:
    """Completions among all documents: only for where everybody who asks may see every one that is not hidden."""
    return [Suggestion(term(token), count) for token, count in index.popular(kind, beginning(prefix), limit=limit)]


def common(kind: str, prefix: str, visible: Visible[M], *, limit: int) -> list[Suggestion]:
    """Completions among the newest of the `visible` documents."""
    taken = index.sample(kind, [], visible, most=MOST_COUNTED)
    counts = index.count_tokens([number for number, _ in taken.matches], beginning(prefix))
    return [Suggestion(term(token), count) for token, count in _first(counts, limit)]


def _first(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:most]
