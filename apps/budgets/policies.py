"""May this user decide about a budget?"""

from __future__ import annotations

from django.db.models import Q

from apps.accounts.models import User
from apps.budgets.models import Domain
from apps.budgets.pots import DEFAULT
from apps.permissions.models import Ownership
from gridclient.wire.errors import GridError, NotPermittedError

REVIEW = "requests.review"


def check_can_open_epochs(user: User, domain: Domain, *, proposed_by: User | None = None) -> None:
    """Raise NotPermittedError unless the user owns data of the domain or reviews, and isn't who proposed it.

    Accounts are free, so two of them are no two people: who reviews is named by an administrator, who owns data by what
    was published.
    """
    if not user.is_active or not (user.has(REVIEW) or _owns_data_of(user, domain)):
        raise NotPermittedError("Only owners of its data and reviewers decide about the budget of a domain.")
    if proposed_by is not None and proposed_by.pk == user.pk:
        raise NotPermittedError("A new epoch is confirmed by somebody else than who proposed it.")


def can_open_epochs(user: User, domain: Domain, *, proposed_by: User | None = None) -> bool:
    """Whether `check_can_open_epochs` would pass."""
    try:
        check_can_open_epochs(user, domain, proposed_by=proposed_by)
    except GridError:
        return False
    return True


def _owns_data_of(user: User, domain: Domain) -> bool:
    its = Q(dataset__placement__domain=domain)
    if domain.slug == DEFAULT:
        its |= Q(dataset__placement=None)  # what was placed nowhere
    return Ownership.objects.filter(its, owner=user).exists()
