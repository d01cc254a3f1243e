"""Which datasets and grants a person may see. One query each; what may not be seen looks absent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import User
from apps.core.clock import now as moment
from apps.datasets.models import Dataset, Visibility
from apps.permissions.models import Grant
from apps.tags import index, summaries
from apps.tags.index import Page, Visible
from apps.tags.summaries import Facets, Suggestion


def grants_held_by(user: User | UUID, *, now: datetime | None = None) -> QuerySet[Grant]:
    """Grants that hold now, given to the user or to a team of theirs; one-time grants among them."""
    now = now or moment()
    return Grant.objects.filter(
        Q(user=user) | Q(team__members=user), Q(expires=None) | Q(expires__gt=now), revoked_at=None
    )


def visibilities_open_to(user: User) -> list[str]:
    """The visibilities that show a dataset to `user` without any grant. People of other places see `listed` only."""
    return [Visibility.LISTED] if user.is_federated else [Visibility.LISTED, Visibility.ACCOUNTS]


def datasets_visible_to(user: User | None, *, now: datetime | None = None) -> QuerySet[Dataset]:
    """Datasets whose public metadata `user` may see; newest first. None (nobody signed in) sees none.

    One query and one for the versions, however many there are.
    """
    found = Dataset.objects.prefetch_related("versions")
    if user is None or not user.is_active:
        return found.none()
    if user.has("everything.read"):
        return found
    # A one-time grant is for a program; it says nothing about who may look.
    granted = grants_held_by(user, now=now).filter(dataset=OuterRef("pk"), program_hash="")
    return found.filter(Q(visibility__in=visibilities_open_to(user)) | Q(ownership__owner=user) | Exists(granted))


def datasets_owned_by(user: User) -> QuerySet[Dataset]:
    """Datasets about which `user` decides."""
    return Dataset.objects.prefetch_related("versions").filter(ownership__owner=user)


def search(user: User | None, terms: Sequence[str], *, limit: int, after: Dataset | None = None) -> Page[Dataset]:
    """Visible datasets that match every term, newest first (see `tags.index`); the next page begins `after` one."""
    before = None if after is None else index.number_of("dataset", after.pk)
    visible = _visible(datasets_visible_to(user).prefetch_related("tags"))
    return index.page("dataset", terms, visible, before=before, limit=limit)


def facets(user: User | None, terms: Sequence[str]) -> Facets:
    """How many of the newest visible datasets that match every term have which tags."""
    return summaries.facets("dataset", terms, _keys(user))


def suggest(user: User | None, prefix: str, *, limit: int) -> list[Suggestion]:
    """Tags ("#...") or words that begin with `prefix`, of the newest visible datasets; most frequent first."""
    return summaries.common("dataset", prefix, _keys(user), limit=limit)


def _visible(datasets: QuerySet[Dataset]) -> Visible[Dataset]:
    return lambda keys: {row.pk: row for row in datasets.filter(pk__in=keys).order_by()}


def _keys(user: User | None) -> Visible[UUID]:
    visible = datasets_visible_to(user).order_by()
    return lambda keys: {key: key for key in visible.filter(pk__in=keys).values_list("pk", flat=True)}


def grants_visible_to(user: User) -> QuerySet[Grant]:
    """Grants on my datasets, and those given to me or my teams; all of them for who may see everything."""
    found = Grant.objects.all()
    if user.has("everything.read"):
        return found
    return found.filter(Q(dataset__ownership__owner=user) | Q(user=user) | Q(team__in=user.teams.all()))
