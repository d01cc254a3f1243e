"""Give and take rights on datasets, and change a dataset's words. Each records its event in the same transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.accounts.models import Team, User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core.clock import now as moment
from apps.datasets import actions as datasets
from apps.datasets.models import Dataset
from apps.permissions.models import NANO, Grant, Ownership, Right
from apps.permissions.policies import check_can_grant
from gridclient.wire.errors import ConflictError, InvalidInputError

MAX_REASON = 2_000
MAX_PROGRAMS = 1_000
LEAST_EPSILON, MOST_EPSILON = 1e-3, 100.0
PROGRAM_HASH = re.compile("[0-9a-f]{64}")


def own(dataset: Dataset, *, owner: User) -> Ownership:
    """The publisher of a dataset owns it. Part of publishing, whose event says so."""
    return Ownership.objects.create(dataset=dataset, owner=owner)


@transaction.atomic
def describe(dataset: Dataset, *, by: User, **words: Any) -> Dataset:
    """Change name, description, tags, visibility or whether accounts may compute. For the owner."""
    check_can_grant(by, dataset)
    changed = datasets.describe(dataset, **words)
    record(Verb.DATASET_CHANGED, by=by, target=f"dataset:{dataset.pk}", changed=sorted(words))
    return changed


@transaction.atomic
def give(
    dataset: Dataset,
    *,
    to: User | Team,
    right: str,
    columns: list[str] | None = None,
    expires: datetime | None = None,
    programs: list[str] | None = None,
    epsilon: float | None = None,
    reason: str,
    by: User,
    now: datetime | None = None,
) -> Grant:
    """Give a right; `programs`: the hashes of those that a `train` grant is for, None for any; `epsilon`: the
    allowance of a `release` grant, None for what every analyst has by default.

    Raises NotPermittedError for anyone but the owner, InvalidInputError with every problem.
    """
    check_can_grant(by, dataset)
    problems = []
    if right not in Right.values:
        problems.append(f"right is one of {', '.join(Right.values)}.")
    if not 0 < len(reason.strip()) <= MAX_REASON:
        problems.append(f"A grant needs a reason of 1 to {MAX_REASON} characters.")
    if expires is not None and expires <= (now or moment()):
        problems.append("A grant expires in the future.")
    known = {column["name"] for column in dataset.current.columns}
    problems += [f"There is no column {name!r}." for name in columns or [] if name not in known]
    if columns is not None and not columns:
        problems.append("Name at least one column, or none for all of them.")
    if isinstance(to, User) and not to.is_active:
        problems.append(f"{to.username} is not active.")
    problems += [*_problems_of(programs, right), *_problems_of_allowance(epsilon, right)]
    if problems:
        raise InvalidInputError(f"No right was given: {' '.join(problems)}", problems=problems)
    user, team = (to, None) if isinstance(to, User) else (None, to)
    grant = Grant.objects.create(
        dataset=dataset,
        user=user,
        team=team,
        right=right,
        columns=columns,
        programs=programs,
        epsilon=None if epsilon is None else round(epsilon * NANO),
        expires=expires,
        reason=reason.strip(),
        given_by=by,
        created=now or moment(),
    )
    record(
        Verb.GRANT_GIVEN,
        by=by,
        target=f"dataset:{dataset.pk}",
        grant=grant.pk,
        to=to.username if isinstance(to, User) else f"team:{to.slug}",
        right=right,
        columns=columns,
        programs=programs,
        epsilon=epsilon,
        expires=expires.isoformat() if expires else None,
        reason=grant.reason,
    )
    return grant


def _problems_of(programs: list[str] | None, right: str) -> list[str]:
    if programs is None:
        return []
    found = [] if right == Right.TRAIN else ["Only a 'train' grant is for programs by their hashes."]
    if not 0 < len(programs) <= MAX_PROGRAMS:
        found.append(f"Name 1 to {MAX_PROGRAMS} programs by their hashes, or none for any program.")
    if not all(PROGRAM_HASH.fullmatch(each) for each in programs):
        found.append("The hash of a program has 64 digits 0-9 and a-f; a request shows it.")
    return found


def _problems_of_allowance(epsilon: float | None, right: str) -> list[str]:
    if epsilon is None:
        return []
    found = [] if right == Right.RELEASE else ["Only a 'release' grant has an epsilon."]
    if not LEAST_EPSILON <= epsilon <= MOST_EPSILON:
        found.append(f"epsilon is an allowance from {LEAST_EPSILON:g} to {MOST_EPSILON:g}.")
    return found


@transaction.atomic
def revoke(grant: Grant, *, by: User, now: datetime | None = None) -> Grant:
    """Take a right back; it ends at once, also in open sessions. A value that was released before may arrive whole.

    Raises ConflictError when it was revoked before.
    """
    check_can_grant(by, grant.dataset)
    if not Grant.objects.filter(pk=grant.pk, revoked_at=None).update(revoked_at=now or moment()):
        raise ConflictError("This grant was revoked before.")
    grant.refresh_from_db(fields=["revoked_at"])
    record(Verb.GRANT_REVOKED, by=by, target=f"dataset:{grant.dataset_id}", grant=grant.pk, right=grant.right)
    return grant


def give_once(*, datasets: Iterable[Dataset], user: User, program_hash: str, request_id: UUID, by: User) -> list[Grant]:
    """The grants of an approval: this program, these datasets, this person. Part of approving, whose event says so."""
    return [
        Grant.objects.create(
            dataset=dataset,
            user=user,
            right=Right.READ,
            reason="A request was approved.",
            given_by=by,
            program_hash=program_hash,
            request_id=request_id,
        )
        for dataset in {dataset.pk: dataset for dataset in datasets}.values()
    ]
