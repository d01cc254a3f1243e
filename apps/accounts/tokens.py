"""The text of an access token: `grd_<prefix>_<secret>`. The prefix finds the row, the digest proves the secret."""

from __future__ import annotations

import hashlib
import re
import secrets

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_FORM = re.compile(r"grd_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")


def fresh() -> tuple[str, str]:
    """A new (prefix, text); the secret has 256 bits."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return prefix, f"grd_{prefix}_{secrets.token_urlsafe(32)}"


def prefix_of(text: str) -> str | None:
    """The prefix of a well-formed token, else None."""
    match = _FORM.fullmatch(text)
    return match[1] if match else None


def digest(text: str) -> str:
    """What is stored of a token. No salt or slow hash is needed: nobody guesses 256 bits."""
    return hashlib.sha256(text.encode()).hexdigest()
