"""Asks under a key: done once, and answered the same whenever their user asks again.

Who was cut off cannot know whether an ask was done. Under a key of their own choosing they may ask again: the key, a
digest of what was asked and the reply are stored in the transaction of the effect, so all of it happened or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import transaction
from django.utils.crypto import salted_hmac

from apps.accounts.models import KeptReply, User
from apps.core import clock
from apps.core.prepared import insert_if_new
from gridclient.wire.errors import ConflictError, InvalidInputError

KEPT_FOR = timedelta(days=30)
_FORM = re.compile(r"[!-~]{1,64}")


class Asked(NamedTuple):
    """What is asked, as bytes that are the same only for the same, and under which key; "" is none."""

    key: str
    content: bytes


def once(user: User, asked: Asked, do: Callable[[], Any]) -> Any:
    """The reply of `do()`, as plain JSON values; that of the first time where this user asked under the key before.

    `do` may change nothing outside the database that a rollback leaves wrong: it runs in one transaction with the row
    that keeps its reply. An exception of its own leaves nothing, and the key free. The reply must hold no secret.
    Raises InvalidInputError for a key that is none, ConflictError where it stands for another content.
    """
    if not asked.key:
        return do()
    row = KeptReply(user=user, key=checked_key(asked.key), digest=_digest(asked.content))
    with transaction.atomic():
        # First of all: whoever comes with the same key waits here, holding nothing, until the outcome is known.
        if not insert_if_new(row):
            return _reply_of(KeptReply.objects.get(user=user, key=row.key), row.digest)
        text = json.dumps(do(), allow_nan=False)
        KeptReply.objects.filter(user=user, key=row.key).update(reply=text)
    return json.loads(text)


def kept_reply(user: User, asked: Asked) -> Any | None:
    """The first reply, where there is one; for whoever would go to great lengths before it comes to `once`."""
    found = KeptReply.objects.filter(user=user, key=checked_key(asked.key)).first() if asked.key else None
    return None if found is None else _reply_of(found, _digest(asked.content))


def forget_old(*, now: datetime | None = None) -> int:
    """Remove the replies that were kept long enough; how many those were."""
    return KeptReply.objects.filter(kept__lt=(now or clock.now()) - KEPT_FOR).delete()[0]


def checked_key(key: str) -> str:
    """A key in its form. Raises InvalidInputError."""
    if not _FORM.fullmatch(key):
        raise InvalidInputError("A key has 1 to 64 visible ASCII characters.", field="key")
    return key


def _digest(content: bytes) -> str:
    # An HMAC: what is asked may hold a new password, which a bare hash would let guess.
    return salted_hmac("apps.accounts.once", content, algorithm="sha256").hexdigest()


def _reply_of(row: KeptReply, digest: str) -> Any:
    if row.digest != digest:
        raise ConflictError("You have used this key for something else. Choose another one for this.", field="key")
    return json.loads(row.reply)
