"""What the chain's digests cover. Pure functions: a later implementation must compute the same for ever."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from apps.core.canonical import digest
from apps.core.countersigned import AUDIT, SIGNED_UNDER

# The signature of an event's hash (Ed25519 with the deployment's key) is made under this domain.
DOMAIN = SIGNED_UNDER[AUDIT]
# What the first event follows.
GENESIS = "0" * 64


def event_hash(
    seq: int, at: datetime, verb: str, actor_id: str, actor_name: str, target: str, payload_digest: str, previous: str
) -> str:
    """sha256, hex, of the canonical JSON list of these eight; the time in UTC with microseconds."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    return digest([seq, moment, verb, actor_id, actor_name, target, payload_digest, previous])


def text_digest(salt: str, body: str) -> str:
    """sha256, hex, of the salt's 16 bytes (given in hex) and the payload's canonical JSON text."""
    return hashlib.sha256(bytes.fromhex(salt) + body.encode()).hexdigest()
