"""Usernames and team names: one normal form, so that no two look alike to the machine or to a reader."""

from __future__ import annotations

import re

from gridclient.wire.normal_form import nfc

MAX_NAME = 64
ALLOWED = "1 to 64 characters: a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
_LOCAL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NOT_ALLOWED = re.compile(r"[^a-z0-9._-]+")


def normal(name: str) -> str:
    """NFC and lower case: `Ana` and `ana` are one person. Does not validate, but the result can be looked up anywhere:
    what no database can hold (NUL, halves of surrogate pairs) becomes "?", which is in no name."""
    return nfc(encodable(name).replace("\0", "?")).lower()


def encodable(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def problems_of(name: str) -> list[str]:
    """What is wrong with a local username or a team's slug in normal form; empty when nothing is."""
    if "@" in name:
        return ["The name contains '@', which only accounts of a network have."]
    if not _LOCAL.fullmatch(name):
        return [f"The name must have {ALLOWED}."]
    return []


def is_title(text: str, longest: int) -> bool:
    """Whether a free name (of a team, of a token) has 1 to `longest` characters, all of which show."""
    return 0 < len(text) <= longest and text.isprintable()


def federated(display: str, network_key: str) -> str:
    """The local username of a network's user, shown only: `dana@network`, with nothing in it that misleads."""
    person, _, network = normal(display).rpartition("@") if "@" in display else (normal(display), "", network_key[:8])
    parts = (_NOT_ALLOWED.sub("-", part).strip("-.")[:MAX_NAME] for part in (person, network))
    return "@".join(part or "unnamed" for part in parts)
