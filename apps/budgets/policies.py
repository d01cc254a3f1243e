"""May this user decide about a budget?"""

from __future__ import annotations

from django.db.models import Q, QuerySet

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
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


def check_can_place(user: User, domain: Domain) -> None:
    """Raise NotPermittedError unless it is everybody's domain, or the user opened it, owns data in it, or reviews.

    Whoever has data in a domain lets others spend what its people were promised: nobody walks in by themselves. Who
    should, asks an administrator for the role of a reviewer, or an owner there to publish for them.
    """
    if domain.slug == DEFAULT or user.has(REVIEW) or _owns_data_of(user, domain):
        return
    opened = AuditEvent.objects.filter(verb=Verb.DOMAIN_OPENED, target=f"domain:{domain.slug}", actor_id=str(user.pk))
    if not opened.exists():
        raise NotPermittedError(
            f"Data is placed in the privacy domain {domain.slug!r} by those who opened it, own data in it, or review "
            "requests. Ask one of them, or leave the domain out: then it is the node's default one."
        )


def owners_in(domain: Domain, block: str | None = None) -> QuerySet[Ownership]:
    """Who owns the datasets of a domain, or of one time block of it ("" where a dataset has none)."""
    its = Q(dataset__placement__domain=domain)
    if block is not None:
        its &= Q(dataset__placement__block=block)
    if domain.slug == DEFAULT and not block:
        its |= Q(dataset__placement=None)  # what was placed nowhere
    return Ownership.objects.filter(its)


def _owns_data_of(user: User, domain: Domain) -> bool:
    return owners_in(domain).filter(owner=user).exists()
