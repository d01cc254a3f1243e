"""What the ledger's hashes cover. Pure functions: a later implementation must compute the same for ever."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from uuid import UUID

from apps.core.canonical import digest
from apps.core.countersigned import LEDGER, SIGNED_UNDER

DOMAIN = SIGNED_UNDER[LEDGER]
"""The signature of the outside head's hash (Ed25519 with the deployment's key) is made under this domain."""
GENESIS = "0" * 64
"""What the first release follows."""


def question_digest(question: str) -> str:
    """sha256, hex, of a question's canonical JSON text, sigmas included: the key under which an answer is stored."""
    return hashlib.sha256(question.encode()).hexdigest()


def release_hash(
    seq: int, key: UUID, user: UUID, once: str, question: str, charges: list[list[int]], paid: str, at: datetime,
    previous: str, record: str = "", may_exclude: bool = False,
) -> str:  # fmt: skip
    """sha256, hex, of the canonical JSON list of the first nine, and of the last two where they say something.

    `question` is its digest; `charges` holds pot and amount, in the order of the pots; the time is in UTC with
    microseconds. `record` is the digest of what each entity was charged.
    """
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    more = [record, may_exclude] if record or may_exclude else []
    return digest([seq, str(key), str(user), once, question, charges, paid, moment, previous, *more])
