"""Texts of other people as a reader sees them: nothing invisible, nothing that reorders a line or looks like something
else."""

from __future__ import annotations

import re
import unicodedata

from gridclient.wire.normal_form import nfc

LOOKALIKES = frozenset("абеѕіјһԁӏгорсухАВЕЅІЈКМНОРСТХУѠԛԝαβγεηικνορτυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "ıȷɑɡɩʟſ")
"""Cyrillic, Greek and rare Latin letters that read as ASCII ones."""

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me"})


def visible(text: str) -> str:
    """The text in NFC, with every misleading character as \\u{hex}."""
    return re.sub(r"\w+|[^\w]", _piece, nfc(text))


def _piece(match: re.Match[str]) -> str:
    piece = match.group()
    letters = [char for char in piece if char.isalpha()]
    foreign = {char for char in letters if not _latin(char)}
    # A word in one foreign script is what it is, unless every letter of it could be taken for a Latin one.
    mixed = any(map(_latin, letters)) or all(char in LOOKALIKES for char in foreign)
    return "".join(_escaped(char) if _misleads(char) or (mixed and char in foreign) else char for char in piece)


def _latin(char: str) -> bool:
    return unicodedata.name(char, "").startswith("LATIN")


def _misleads(char: str) -> bool:
    if char.isascii():
        return not char.isprintable() or char == "\\"
    return (
        unicodedata.category(char) in HIDDEN
        or unicodedata.normalize("NFKC", char) != char
        or (char in LOOKALIKES and _latin(char))
        or (_latin(char) and ord(char) > 0x024F and not 0x1E00 <= ord(char) <= 0x1EFF)
    )


def _escaped(char: str) -> str:
    return f"\\u{{{ord(char):04x}}}"
