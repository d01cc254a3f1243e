"""The one decision: may this user do this with this dataset?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from apps.accounts.models import User
from apps.core.clock import now as moment
from apps.datasets.models import Dataset, DatasetVersion, Visibility
from apps.permissions.models import Grant, Ownership, Right
from apps.permissions.queries import grants_held_by
from gridclient.wire.errors import (
    AuthenticationError,
    GetNotPermittedError,
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
    """A member of the closed set: `kind` "count", "sum" or "mean" of `columns` over all rows of one version."""

    kind: str
    dataset: str
    version: int
    columns: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ask:
    """What the label reader found out about a value: `label` is "public", "rows", "agg" or "tainted"."""

    label: str
    inputs: list[Input]
    closed: Closed | None = None
    program_hash: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The value may leave. `route`: "public", "read", "aggregate" or "approved"; `grant`: what allows it."""

    route: str
    grant: Grant | None = None


ALL = frozenset(Right.values)


def owns(user: User, dataset: Dataset) -> bool:
    """Whether `user` owns the dataset."""
    return Ownership.objects.filter(dataset=dataset, owner=user).exists()


def rights_on(user: User, dataset: Dataset, *, now: datetime | None = None) -> frozenset[str]:
    """What `user` may do with a dataset that they may see, on some or all columns."""
    if not user.is_active:
        return frozenset()
    if owns(user, dataset):
        return ALL
    given = set(grants_held_by(user, now=now).filter(dataset=dataset, program_hash="").values_list("right", flat=True))
    open_to = {Visibility.LISTED} if user.is_federated else {Visibility.LISTED, Visibility.ACCOUNTS}
    shown = dataset.visibility in open_to
    if shown and dataset.accounts_may_compute and user.has("compute.use"):
        given.add(Right.COMPUTE)
    if Right.READ in given:
        given |= {Right.AGGREGATE}
    if given & {Right.AGGREGATE, Right.READ}:
        given.add(Right.COMPUTE)
    if given or shown or user.has("everything.read"):
        given.add(Right.DISCOVER)
    return frozenset(str(right) for right in given)


def check_can_publish(user: User) -> None:
    """Raise PublishNotPermittedError unless the account's role may publish."""
    if not user.is_active or not user.has("datasets.publish"):
        raise PublishNotPermittedError(
            "This account may not publish here: it needs the role of a data owner. An administrator of the node can give it."
        )


def check_can_compute(user: User, dataset: Dataset) -> None:
    """Raise NotPermittedError unless programs of this user may use the dataset."""
    if Right.COMPUTE not in rights_on(user, dataset):
        raise NotPermittedError(
            f"You may see {dataset.slug}, but not compute on it. Its owner can grant you 'compute'."
        )


def check_can_grant(user: User, dataset: Dataset) -> None:
    """Raise NotPermittedError for anyone but the owner: who manages accounts has no say about data."""
    if not user.is_active or not owns(user, dataset):
        raise NotPermittedError("Only the owner of a dataset decides who may use it.")


def can_grant(user: User, dataset: Dataset) -> bool:
    """Whether `check_can_grant` would pass."""
    try:
        check_can_grant(user, dataset)
    except NotPermittedError:
        return False
    return True


def decide(user: User, ask: Ask, *, k: int, now: datetime | None = None) -> Decision:
    """May this value leave to this user? Returns what allows it, or raises GetNotPermittedError with what is possible.

    `k`: least number of entities behind an exact aggregate.
    """
    now = now or moment()
    if not user.is_active:
        raise AuthenticationError("This account is not active.")
    if ask.label == "public":
        return Decision("public")
    if not ask.inputs:
        raise GetNotPermittedError("This value depends on private data that it does not name.", possible=[])
    held = list(grants_held_by(user, now=now).filter(dataset__in=[entry.dataset for entry in ask.inputs]))
    if (decision := _read(user, ask, held)) is not None:
        return decision
    if (decision := _approved(ask, held)) is not None:
        return decision
    why = (
        "a closed set answers count, sum and mean of whole declared columns over all rows; this program is none of them"
    )
    if ask.closed is not None:
        found = _aggregate(user, ask, ask.closed, held, k)
        if isinstance(found, Decision):
            return found
        why = found
    possible = [
        "a 'read' grant of the owner copies values",
        f"an 'aggregate' grant: {why}",
        "the queue: .request(reason=...) asks the owner for this value",
    ]
    raise GetNotPermittedError(f"This value stays on its node. Possible: {'; '.join(possible)}.", possible=possible)


def _covers(grant: Grant, columns: list[str] | None) -> bool:
    if grant.columns is None:
        return True
    return columns is not None and set(columns) <= set(grant.columns)


def _read(user: User, ask: Ask, held: list[Grant]) -> Decision | None:
    """`read` on every input, with all the columns that the value depends on."""
    used: Grant | None = None
    mine = _owned(user, ask)
    for entry in ask.inputs:
        if entry.dataset in mine:
            continue
        used = next(
            (
                grant
                for grant in held
                if str(grant.dataset_id) == entry.dataset
                and grant.right == Right.READ
                and not grant.program_hash
                and _covers(grant, entry.columns)
            ),
            None,
        )
        if used is None:
            return None
    return Decision("read", used)


def _approved(ask: Ask, held: list[Grant]) -> Decision | None:
    """A one-time grant for exactly this program, on every input."""
    found = {
        str(grant.dataset_id): grant for grant in held if grant.program_hash and grant.program_hash == ask.program_hash
    }
    if any(entry.dataset not in found for entry in ask.inputs):
        return None
    return Decision("approved", found[ask.inputs[0].dataset])


def _aggregate(user: User, ask: Ask, closed: Closed, held: list[Grant], k: int) -> Decision | str:
    """The decision, or why the closed set has no answer."""
    version = DatasetVersion.objects.filter(dataset=closed.dataset, number=closed.version).first()
    if version is None or any(entry.dataset != closed.dataset for entry in ask.inputs):
        return "one dataset at a time"
    bounded = {
        column["name"]
        for column in version.columns
        if column.get("kind") == "boolean" or (column.get("low") is not None and column.get("high") is not None)
    }
    if not set(closed.columns) <= bounded:
        return "only columns whose bounds the owner has declared can be summed"
    if closed.kind != "count" and not closed.columns:
        return "only declared columns can be summed"
    grant = next(
        (
            grant
            for grant in held
            if str(grant.dataset_id) == closed.dataset
            and grant.right == Right.AGGREGATE
            and not grant.program_hash
            and _covers(grant, closed.columns)
        ),
        None,
    )
    # The owner and readers never come here: they may read.
    if grant is None:
        return "it would allow this sum; you have none on these columns"
    if version.entity_count < k:
        return f"it answers where at least {k} people stand behind the number; fewer do here"
    return Decision("aggregate", grant)


def _owned(user: User, ask: Ask) -> set[str]:
    names = [entry.dataset for entry in ask.inputs]
    owned = Ownership.objects.filter(owner=user, dataset__in=names).values_list("dataset_id", flat=True)
    return {str(pk) for pk in owned}
