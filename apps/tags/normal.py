"""One normal form for tags and words, so that "#February", "february" and "FEBRUARY" meet. Needs no Django.

A document is a set of tokens. The tag "#Birth-Records" gives `t:birth-records` and `w:birth-records`; each word of a
name or description gives `w:word`: the whole whitespace-separated word without the punctuation around it, and each of
its parts. A search term with "#" asks for a `t:` token, one without for `w:`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import groupby

from gridclient.wire.errors import InvalidInputError
from gridclient.wire.normal_form import nfc

MAX_TAG = 64
MAX_TERMS = 32


def fold(text: str) -> str:
    """Case-folded NFC: the form in which texts are compared. Idempotent."""
    folded = nfc(text)
    # Folding can undo the normal form and the other way round; two or three turns reach the fixed point.
    while (again := nfc(folded.casefold())) != folded:
        folded = again
    return folded


def normal(tag: str) -> str:
    """The normal form of a tag: "#" and its folded text.

    Raises InvalidInputError unless the tag is one word of at most 64 letters, digits and "-", "_", ".", "+", ":",
    beginning with a letter or digit.
    """
    word = fold(tag.strip()).removeprefix("#")
    if not word or len(word) > MAX_TAG or not _is_word(word[0]) or not all(_is_word(c) or c in "-_.+:" for c in word):
        raise InvalidInputError(
            f"A tag is one word of at most {MAX_TAG} letters, digits and - _ . + : that begins with a letter or digit;"
            " a # in front is optional."
        )
    return f"#{word}"


def tokens(name: str, description: str, tags: Iterable[str]) -> list[str]:
    """The tokens of a document, sorted and unique. Raises InvalidInputError for a bad tag."""
    found = {f"w:{word}" for text in (name, description) for word in _words(text)}
    for tag in tags:
        word = normal(tag)[1:]
        found |= {f"t:{word}", f"w:{_stripped(word)}"}
    return sorted(found)


def wanted(terms: Iterable[str]) -> list[str]:
    """The tokens that a document must all have to match every term.

    A term of several words asks for each of them. Raises InvalidInputError for a "#" that no tag can match and for
    more than 32 words.
    """
    words = [word for term in terms for word in term.split()]
    if len(words) > MAX_TERMS:
        raise InvalidInputError(f"A search has at most {MAX_TERMS} words.")
    return sorted({f"t:{normal(word)[1:]}" if word.startswith("#") else f"w:{_stripped(fold(word))}" for word in words})


def beginning(prefix: str) -> str:
    """What the tokens begin with that a person may mean who has typed `prefix` so far: tags after a "#", else words.

    Raises InvalidInputError for several words.
    """
    typed = fold(prefix.strip())
    if len(typed.split()) > 1 or len(typed) > MAX_TAG:
        raise InvalidInputError(f"A suggestion completes one word of at most {MAX_TAG} characters.", field="prefix")
    return f"t:{typed[1:]}" if typed.startswith("#") else f"w:{typed}"


def term(token: str) -> str:
    """The search term that asks for a token."""
    return f"#{token[2:]}" if token.startswith("t:") else token[2:]


def _words(text: str) -> Iterator[str]:
    for word in fold(text).split():
        if word.isalnum():  # most are, and have no other parts
            yield word
            continue
        if whole := _stripped(word):
            yield whole
        for is_part, characters in groupby(word, key=lambda c: _is_word(c) or c == "_"):
            if is_part:
                yield "".join(characters)


def _stripped(word: str) -> str:
    """Without the punctuation around it."""
    begin, end = 0, len(word)
    while begin < end and unicodedata.category(word[begin])[0] == "P":
        begin += 1
    while begin < end and unicodedata.category(word[end - 1])[0] == "P":
        end -= 1
    return word[begin:end]


def _is_word(character: str) -> bool:
    # Marks belong to the letters before them: many scripts write vowels so.
    return unicodedata.category(character)[0] in "LNM"
