"""Texts that one person writes and another decides on: bounded, and what they look like is what they are."""

from __future__ import annotations

import unicodedata

from apps.datarequests.models import REASON_LIMIT
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.normal_form import nfc

# Invisible, or able to change the order in which the rest is shown.
_DECEPTIVE = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\u2060\ufeff") | frozenset(
    chr(code) for first, last in ((0x202A, 0x202E), (0x2066, 0x2069)) for code in range(first, last + 1)
)


def checked_reason(text: str) -> str:
    """The reason, trimmed and in NFC. Raises InvalidInputError when it is empty, too long or deceptive."""
    text = nfc(text.replace("\r\n", "\n")).strip()
    if not text:
        raise InvalidInputError("Give a reason: requester and deciders will read it.", field="reason")
    if len(text) > REASON_LIMIT:
        raise InvalidInputError(f"A reason has at most {REASON_LIMIT} characters.", field="reason", limit=REASON_LIMIT)
    if any(c in _DECEPTIVE or (unicodedata.category(c) in ("Cc", "Cs") and c != "\n") for c in text):
        raise InvalidInputError(
            "A reason holds printed characters and line breaks only: no control, invisible or direction-changing ones.",
            field="reason",
        )
    return text
