"""How much the ledger keeps for each account: private answers stay for good, whatever little they cost.

Called in the transaction of a charge, under the log's lock: no two charges count at a time.
"""

from __future__ import annotations

import math

from django.conf import settings
from django.db.models import F

from apps.accounts.models import User
from apps.budgets.models import Release
from apps.budgets.pricing import Price
from apps.compute.messages import Weighed
from apps.compute.models import KeptAnswers
from apps.core.prepared import insert_if_new
from gridclient.wire.errors import LimitExceededError

NUMBER = 8
"""Most bytes of a number of an answer."""
ROW = 2_048
"""Bytes of what is written with each answer, besides it and its question: charges, allowances, events."""


def added(user: User, key: str, weighed: Weighed, price: Price) -> int:
    """The bytes that a charge under this key adds to what is kept: 0 where it was charged before."""
    if Release.objects.filter(user=user, key=key).exists():
        return 0
    return NUMBER * math.prod(weighed.shape) + len(price.text) + ROW


def checked(user: User, key: str, weighed: Weighed, price: Price) -> int:
    """As `added`. Raises LimitExceededError where these are too many for the account."""
    nbytes = added(user, key, weighed, price)
    kept = KeptAnswers.objects.filter(user=user).values_list("nbytes", flat=True).first() or 0
    limit = settings.GRID_MAX_ANSWER_BYTES
    if nbytes and kept + nbytes > limit:
        raise LimitExceededError(
            f"Your private answers take {kept} bytes of this node, which keeps each of them for good, and this one "
            f"{nbytes} more; together they may take {limit}. Nothing was charged. Ask for fewer numbers in one answer, "
            "or ask the node's operator for more room (GRID_MAX_ANSWER_BYTES).",
            limit=limit,
        )
    return nbytes


def count(user: User, nbytes: int) -> None:
    """Count what was charged. One that fails stays counted, as it stays charged."""
    if nbytes and not insert_if_new(KeptAnswers(user=user, nbytes=nbytes)):
        KeptAnswers.objects.filter(user=user).update(nbytes=F("nbytes") + nbytes)
