"""Which private answers and domains a person may know of, and what is about the same people."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import User
from apps.budgets.models import Charge, Domain, Placement, Release
from apps.budgets.policies import REVIEW
from apps.budgets.pots import DEFAULT
from apps.permissions.queries import datasets_visible_to


def domains_visible_to(user: User) -> QuerySet[Domain]:
    """The default domain, and those of datasets that the user may see; all for who may publish into one, or decide."""
    found = Domain.objects.all()
    if any(user.has(each) for each in ("everything.read", "datasets.publish", REVIEW)):
        return found
    seen = Placement.objects.filter(dataset__in=datasets_visible_to(user).order_by().values("pk"))
    return found.filter(Q(slug=DEFAULT) | Q(pk__in=seen.values("domain")))


def domains_of(datasets: Iterable[UUID]) -> dict[UUID, str]:
    """The domain that each dataset is in. What was placed nowhere is in the default one."""
    asked = set(datasets)
    placed = dict(Placement.objects.filter(dataset__in=asked).values_list("dataset", "domain__slug"))
    return {dataset: placed.get(dataset, DEFAULT) for dataset in asked}


def domain_sql(dataset: str) -> str:
    """The same in SQL, for who looks at many rows. `dataset`: SQL for the dataset's id."""
    placed = "budgets_placement l JOIN budgets_domain o ON o.id = l.domain_id"
    return f"COALESCE((SELECT o.slug FROM {placed} WHERE l.dataset_id = {dataset}), '{DEFAULT}')"  # noqa: S608


def releases_visible_to(user: User) -> QuerySet[Release]:
    """My answers, and those that took from a budget of people in a dataset of mine; all for who may see everything.

    Without the answers themselves, which may be long.
    """
    found = Release.objects.defer("data")
    if user.has("everything.read"):
        return found
    mine = Charge.objects.filter(release=OuterRef("pk"), pot__domain__placements__dataset__ownership__owner=user)
    return found.filter(Q(user=user) | Exists(mine))
