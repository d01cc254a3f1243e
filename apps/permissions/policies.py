"""The one decision: may this user do this with this dataset?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet

from apps.accounts.models import User
from apps.core.clock import now as moment
from apps.core.prepared import Prepared
from apps.datasets.models import Dataset, DatasetVersion
from apps.permissions.models import INCLUDES, Grant, Ownership, Right
from apps.permissions.queries import grants_held_by, visibilities_open_to
from gridclient.wire.errors import (
    AuthenticationError,
    GetNotPermittedError,
    GridError,
    InternalError,
    NotFoundError,
    NotPermittedError,
    PublishNotPermittedError,
)


@dataclass(frozen=True, slots=True)
class Input:
    """One dataset version that a value depends on. `columns`: the names it depends on; None means all."""

    dataset: str
    version: int
    columns: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """A member of the closed set over all rows of one version, or over each group of the partition `by`.

    `kind`: "count", "sum", "mean", "variance", "histogram" or "product" of `columns`, of a product with `others`.
    """

    kind: str
    dataset: str
    version: int
    columns: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    by: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the label reader found out about a value: `label` is "public", "rows", "agg" or "tainted".

    `trained`: it is the trained state of a module, or a loss; `untrained`: why not, in words, where that is asked.
    """

    label: str
    inputs: list[Input]
    closed: Closed | None = None
    program_hash: str = ""
    trained: bool = False
    untrained: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The value may leave. `route`: "public", "read", "train", "aggregate" or "approved"; `grant`: what allows it."""

    route: str
    grant: Grant | None = None


ALL = frozenset(str(right) for right in Right)
CLOSED_SET = (
    "count, sum, mean, variance, product (x.T @ y) and the owner's histograms of whole declared columns, over all "
    "rows of one dataset or by a partition that the owner declared"
)
KINDS = frozenset({"count", "sum", "mean", "variance", "histogram", "product"})
COUNTED = frozenset({"count", "histogram"})
"""Kinds that do not calculate with the values, and need no bounds."""
WITHHELD = (
    "Your 'aggregate' grant answers where its checks allow it: enough people behind each number, none who stands out, "
    "no few people between it and an earlier answer. Not automatically here."
)
"""One text, whichever check failed."""


PRIVATELY = "A private answer, with noise: .get(epsilon=...), where a 'release' grant allows it."


def owns(user: User, dataset: Dataset) -> bool:
    """Whether `user` owns the dataset."""
    return Ownership.objects.filter(dataset=dataset, owner=user).exists()


def rights_on(user: User, dataset: Dataset, *, now: datetime | None = None) -> frozenset[str]:
    """What `user` may do with a dataset, on some or all of its columns; nothing where it doesn't exist for them."""
    return rights_by_dataset(user, [dataset], now=now)[dataset.pk]


def rights_by_dataset(
    user: User, datasets: Iterable[Dataset], *, now: datetime | None = None
) -> dict[UUID, frozenset[str]]:
    """`rights_on` for many datasets at the price of one: a number of queries that doesn't depend on how many."""
    rows = list(datasets)
    if not user.is_active:
        return {dataset.pk: frozenset() for dataset in rows}
    owned = set(Ownership.objects.filter(owner=user, dataset__in=rows).values_list("dataset_id", flat=True))
    given: defaultdict[UUID, set[str]] = defaultdict(set)
    held = grants_held_by(user, now=now).filter(dataset__in=rows, program_hash="")
    for key, right in held.values_list("dataset_id", "right"):
        given[key].add(right)
    capabilities, shown_to = user.capabilities, visibilities_open_to(user)
    found: dict[UUID, frozenset[str]] = {}
    for dataset in rows:
        rights = set(ALL) if dataset.pk in owned else given[dataset.pk]
        shown = dataset.visibility in shown_to
        if shown and dataset.accounts_may_compute and "compute.use" in capabilities:
            rights.add(Right.COMPUTE)
        if shown or "everything.read" in capabilities:
            rights.add(Right.DISCOVER)
        found[dataset.pk] = frozenset(str(included) for right in rights for included in INCLUDES[right])
    return found


def check_can_publish(user: User) -> None:
    """Raise PublishNotPermittedError unless this is a node and the account's role may publish."""
    if settings.GRID_ROLE != "node":
        raise PublishNotPermittedError("A network holds no datasets: connect to a node and publish there.")
    if not user.is_active or not user.has("datasets.publish"):
        raise PublishNotPermittedError(
            "This account may not publish here: it needs the role of a data owner, which an administrator can give it."
        )


def can_publish(user: User) -> bool:
    """Whether `check_can_publish` would pass."""
    try:
        check_can_publish(user)
    except GridError:
        return False
    return True


def check_can_compute(user: User, dataset: Dataset) -> None:
    """Raise unless programs of this user may use the dataset: NotFoundError where it doesn't exist for them."""
    rights = rights_on(user, dataset)
    if Right.DISCOVER not in rights:
        raise NotFoundError("There is no such dataset.")
    if Right.COMPUTE not in rights:
        raise NotPermittedError(
            f"You may see {dataset.slug}, but not compute on it. Its owner can grant you 'compute'."
        )


def check_can_grant(user: User, dataset: Dataset) -> None:
    """Raise for anyone but the owner: who manages accounts has no say about data."""
    if user.is_active and owns(user, dataset):
        return
    if Right.DISCOVER not in rights_on(user, dataset):
        raise NotFoundError("There is no such dataset.")
    raise NotPermittedError("Only the owner of a dataset decides who may use it.")


def can_grant(user: User, dataset: Dataset) -> bool:
    """Whether `check_can_grant` would pass."""
    try:
        check_can_grant(user, dataset)
    except GridError:
        return False
    return True


def decide(user: User, ask: Ask, *, checked: bool = False, now: datetime | None = None) -> Decision:
    """May this value leave to this user? Returns what allows it, or raises GetNotPermittedError with what is possible.

    `checked`: whether the checks of an exact aggregate were passed. In this order: public values; `read` on all
    columns of every input; an approval of exactly this program; `train` on every input for a module's trained state or
    a loss; the closed set. Nothing else leaves.
    """
    if not user.is_active:
        raise AuthenticationError("This account is not active.")
    if ask.label == "public":
        return Decision("public")
    if not ask.inputs:
        raise InternalError("A private value names no input.")
    matter = _Matter(user, ask, now or moment())
    decision = matter.read() or matter.approved() or matter.train()
    if decision is not None:
        return decision
    found = matter.aggregate(checked)
    if isinstance(found, Decision):
        return found
    possible = [
        "Ask the owner for a 'read' grant, which copies values.",
        *matter.training(),
        found,
        *([PRIVATELY] if ask.label == "agg" else []),
        "Ask for this value through the queue: .request(reason=...).",
    ]
    raise GetNotPermittedError(
        f"This value stays on its node. What is possible: {' '.join(possible)}", possible=possible
    )


def release_grants(user: User, ask: Ask, *, now: datetime | None = None) -> dict[UUID, list[Grant | None]]:
    """What lets this user take private answers, by dataset: grants of which one suffices; None where they own it.

    Raises GetNotPermittedError where one is missing, in words about public things.
    """
    if not user.is_active:
        raise AuthenticationError("This account is not active.")
    matter = _Matter(user, ask, now or moment())
    found = matter.release()
    if found is None:
        possible = [
            "Ask the owner for a 'release' grant, which gives private answers within a budget.",
            "Ask for this value through the queue: .request(reason=...).",
        ]
        raise GetNotPermittedError(
            f"This value stays on its node. What is possible: {' '.join(possible)}", possible=possible
        )
    return found


@Prepared
def _held(user: UUID, now: datetime, keys: tuple[UUID, ...]) -> QuerySet[Grant]:
    return grants_held_by(user, now=now).filter(dataset__in=keys).order_by()


@Prepared
def _versions(user: UUID, keys: tuple[UUID, ...]) -> QuerySet[Any]:
    """All versions of these datasets; `mine` says whether the user owns them."""
    mine = Exists(Ownership.objects.filter(dataset=OuterRef("dataset"), owner=user))
    return DatasetVersion.objects.filter(dataset__in=keys).annotate(mine=mine).order_by()


class _Matter:
    """An ask with what the database knows about it: who owns the inputs, and which grants hold now."""

    def __init__(self, user: User, ask: Ask, now: datetime) -> None:
        self.ask = ask
        keys = tuple({UUID(entry.dataset) for entry in ask.inputs})
        self.held = _held(user.pk, now, keys)
        self.named = {(entry.dataset, entry.version) for entry in ask.inputs}
        self.versions = {(str(version.dataset_id), version.number): version for version in _versions(user.pk, keys)}
        self.owned = {version.dataset_id for version in self.versions.values() if version.mine}

    def read(self) -> Decision | None:
        """`read` on every input, with all the columns that the value depends on."""
        return self._on_every_input("read", {Right.READ})

    def train(self) -> Decision | None:
        """`train` or `read` on every input, for what training made; for approved programs where the grant says so."""
        return self._on_every_input("train", {Right.TRAIN, Right.READ}) if self.ask.trained else None

    def training(self) -> list[str]:
        """What a `train` grant could do for this value, in words about the program alone."""
        if self.ask.trained:
            return [
                "Ask for a 'train' grant on every dataset in it, for all programs or for this one "
                f"({self.ask.program_hash}): it gives trained models and their losses."
            ]
        return [self.ask.untrained] if self.ask.untrained else []

    def release(self) -> dict[UUID, list[Grant | None]] | None:
        """By dataset, the grants that private answers of the ask may be charged to; None where one is missing.

        One grant covers all columns, of all versions: its epsilon is what its owner allowed for each of them. Where
        grants added up, a column with a small allowance would be paid for with the large one of another.
        """
        found: dict[UUID, list[Grant | None]] = {}
        for entry in self.ask.inputs:
            version = self.versions.get((entry.dataset, entry.version))
            if version is None:
                return None
            if version.dataset_id in self.owned:
                found[version.dataset_id] = [None]
                continue
            grants = self._covering(version, {Right.RELEASE, Right.READ}, entry.columns)[0]
            before = found.get(version.dataset_id)
            both = [grant for grant in grants if before is None or grant in before]
            if not both:
                return None
            found[version.dataset_id] = [*both]
        return found

    def _on_every_input(self, route: str, rights: set[Right]) -> Decision | None:
        used: Grant | None = None
        for entry in self.ask.inputs:
            version = self.versions.get((entry.dataset, entry.version))
            if version is None:
                return None
            if version.dataset_id in self.owned:
                continue
            grant = self._grant(version, rights, entry.columns)
            if grant is None:
                return None
            used = used or grant
        return Decision(route, used)

    def approved(self) -> Decision | None:
        """A one-time grant for exactly this program, on every input."""
        wanted = self.ask.program_hash
        found = {str(grant.dataset_id): grant for grant in self.held if wanted and grant.program_hash == wanted}
        if any(entry.dataset not in found for entry in self.ask.inputs):
            return None
        return Decision("approved", found[self.ask.inputs[0].dataset])

    def aggregate(self, checked: bool) -> Decision | str:
        """The decision about a member of the closed set, or why there is none, in words about public things."""
        closed = self.ask.closed
        if closed is None or self.ask.label not in ("agg", "tainted") or closed.kind not in KINDS:
            return f"An 'aggregate' grant answers {CLOSED_SET}; this program is something else."
        if self.named != {(closed.dataset, closed.version)}:
            return f"An 'aggregate' grant answers {CLOSED_SET}; this program uses several."
        # Without a grant nothing is said about the dataset, not even that it is there.
        version = self.versions.get((closed.dataset, closed.version))
        names = [] if version is None or closed.kind == "count" else closed.columns or _names(version)
        names, by = [*names, *closed.others], [closed.by] if closed.by else []
        # With null records an answer depends on more columns than it sums.
        grant = (
            None if version is None else self._grant(version, {Right.AGGREGATE, Right.READ}, self._inputs(by + names))
        )
        if version is None or grant is None:
            return f"Ask the owner for an 'aggregate' grant, which answers {CLOSED_SET}, this one too if checks allow."
        if closed.kind not in COUNTED and not (names and _bounded(version, set(names))):
            return "Your 'aggregate' grant sums columns with declared bounds; these have none."
        if not checked:
            return WITHHELD
        return Decision("aggregate", grant)

    def _inputs(self, names: list[str]) -> list[str] | None:
        """These columns and those that the ask's inputs name; None: all there are."""
        given = [entry.columns for entry in self.ask.inputs]
        known = [columns for columns in given if columns is not None]
        return sorted({*names, *chain(*known)}) if len(known) == len(given) else None

    def _grant(self, version: DatasetVersion, rights: set[Right], columns: list[str] | None) -> Grant | None:
        """The newest of `_grants`."""
        return next(iter(self._grants(version, rights, columns)), None)

    def _grants(self, version: DatasetVersion, rights: set[Right], columns: list[str] | None) -> list[Grant]:
        """Grants of one of these rights that each cover the columns (None: all), or the first of several that do."""
        alone, together = self._covering(version, rights, columns)
        return alone or together[:1]

    def _covering(
        self, version: DatasetVersion, rights: set[Right], columns: list[str] | None
    ) -> tuple[list[Grant], list[Grant]]:
        """Grants that each cover the columns, and all of them where they do together."""
        fitting = [
            grant
            for grant in self.held
            if grant.dataset_id == version.dataset_id
            and grant.right in rights
            and not grant.program_hash
            and (grant.programs is None or self.ask.program_hash in grant.programs)
        ]
        wanted = columns if columns is not None else _names(version) or None
        alone = [
            grant
            for grant in fitting
            if grant.columns is None or (wanted is not None and set(wanted) <= set(grant.columns))
        ]
        together = {name for grant in fitting for name in grant.columns or []}
        return alone, fitting if wanted is not None and set(wanted) <= together else []


def _names(version: DatasetVersion) -> list[str]:
    return [column["name"] for column in version.columns]


def _bounded(version: DatasetVersion, names: set[str]) -> bool:
    """Whether the sums of all these columns are bounded by what the owner declared."""
    declared = [column for column in version.columns if column["name"] in names]
    return len(declared) == len(names) and all(
        column["kind"] == "boolean" or (column.get("low") is not None and column.get("high") is not None)
        for column in declared
    )
