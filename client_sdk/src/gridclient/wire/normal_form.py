"""Unicode's normal form C of texts that a stranger chose, in a time that grows with their length and no faster."""

from __future__ import annotations

import re
import unicodedata

_JOINER = "\u034f"
"""Combining grapheme joiner: shows nothing, and no mark is sorted across it."""
_LONGEST = 30
_MARKS = re.compile(b"[^\0]{%d}(?=[^\0])" % _LONGEST)


def nfc(text: str) -> str:
    """The text in NFC; in a run of more than 30 combining marks a joiner comes after every 30. Idempotent.

    Marks are sorted by insertion, in quadratic time: a name of a megabyte of them would keep a process busy for
    minutes. No writing has such runs, and the joiner is how the standard bounds them: UAX #15, "Stream-Safe Text".
    """
    if text.isascii():
        return text
    found = unicodedata.normalize("NFC", _bounded(text))
    # A character may be taken apart into two marks.
    while (again := _bounded(found)) != found:
        found = unicodedata.normalize("NFC", again)
    return found


def _bounded(text: str) -> str:
    classes = bytes(map(unicodedata.combining, text))
    ends = [match.end() for match in _MARKS.finditer(classes)]
    return _JOINER.join(text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True))
