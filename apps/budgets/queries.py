"""Which private answers a person may know of."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import User
from apps.budgets.models import Charge, Release


def releases_visible_to(user: User) -> QuerySet[Release]:
    """My answers, and those that took from a budget of people in a dataset of mine; all for who may see everything."""
    found = Release.objects.all()
    if user.has("everything.read"):
        return found
    mine = Charge.objects.filter(release=OuterRef("pk"), pot__domain__placements__dataset__ownership__owner=user)
    return found.filter(Q(user=user) | Exists(mine))
