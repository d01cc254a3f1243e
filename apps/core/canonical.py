"""Canonical JSON: one text for one value, so that hashes and signatures are well defined."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN. Raises ValueError or TypeError for what JSON cannot say."""
    return _encoder.encode(value).encode()


def digest(value: Any) -> str:
    """sha256 hex of the canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()
