"""Exact answers outside the budgets: compared with the earlier ones in a worker, recorded with the release.

The sets of people behind the answers are files of the storage, named by their digest, that only workers read. All
datasets of a privacy domain are compared with each other; people of other domains are others, says their owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from apps.accounts.models import User
from apps.budgets.queries import domain_sql, domains_of
from apps.compute.messages import PEOPLE, Closed, Examine, Examined, Proposal, Thresholds
from apps.compute.models import Disclosure
from apps.compute.workers import Worker
from apps.core.canonical import digest
from apps.core.durable import sync
from apps.core.prepared import Prepared, adapted, execute, insert_if_new
from apps.datasets.models import Dataset, DatasetVersion
from gridclient.wire.errors import InternalError, NotFoundError

MOST_COLUMNS = 256

# By hand: they are on the path of every exact aggregate, and the ORM would triple their price.
_SAME_PEOPLE = f"FROM compute_disclosure d WHERE d.crowds <> '' AND {domain_sql('d.dataset')} = {domain_sql('%s')}"
_EARLIER = (
    f"SELECT MIN(d.crowds), MAX(d.id) {_SAME_PEOPLE}"
    " GROUP BY CASE WHEN d.dataset = %s AND d.version = %s"
    f" THEN SUBSTR(d.crowds, 1, {PEOPLE}) ELSE d.crowds END ORDER BY 1"
)
_NEWEST = f"SELECT d.id {_SAME_PEOPLE} ORDER BY d.id DESC LIMIT 1"
_NUMBERS = f"SELECT {domain_sql('d.dataset')}, COUNT(*) FROM compute_disclosure d GROUP BY 1"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Examination:
    """What a worker found out about one answer. `last`: the newest disclosure that it was compared with."""

    closed: Closed
    last: int
    failed: list[str]
    crowds: str
    file: Path


def least() -> Thresholds:
    """What exact aggregates must keep to, from the settings."""
    return Thresholds(
        settings.GRID_K, settings.GRID_P_PERCENT / 100, settings.GRID_DOMINANCE / 100, settings.GRID_FREEDOM
    )


class Earlier(NamedTuple):
    """What an answer is compared with. `data`: the digest of its version's values; `known`: files of crowds."""

    last: int
    data: str
    known: list[str]


def earlier(closed: Closed) -> Earlier:
    """All disclosures of the domain. Of those of the same version, one for all with the same people and rows behind
    them: nothing else is compared there (`crowds.compatible`). Raises NotFoundError for a dataset that is gone."""
    dataset = adapted(UUID(closed.dataset))
    found = execute(_EARLIER, (dataset, dataset, closed.version)).fetchall()
    version = next(iter(_version(UUID(closed.dataset), closed.version)), None)
    if version is None:
        raise NotFoundError("There is no such dataset.")
    last = max((last for _, last in found), default=0)
    return Earlier(last, version.sha256, [str(_folder() / crowds) for crowds, _ in found])


async def examined(worker: Worker, ask: int, closed: Closed, known: Earlier, file: Path) -> Examination:
    """Let the worker check an answer against earlier ones; who is behind it is written to `file`."""
    reply = await worker.ask(Examine(ask, closed, least(), known.data, known.known, str(file)))
    if not isinstance(reply, Examined):
        raise InternalError("The checks of this answer could not be computed.")
    return Examination(closed, known.last, reply.failed, reply.crowds, file)


def newest(closed: Closed) -> int:
    """Number of the newest disclosure about the same domain with people behind it; 0: there is none."""
    row = execute(_NEWEST, (adapted(UUID(closed.dataset)),)).fetchone()
    return 0 if row is None else int(row[0])


@Prepared
def _version(dataset: UUID, number: int) -> QuerySet[DatasetVersion]:
    return DatasetVersion.objects.filter(dataset=dataset, number=number).only("sha256").order_by()


@Prepared
def _named(keys: tuple[UUID, ...]) -> QuerySet[Dataset]:
    return Dataset.objects.filter(pk__in=keys).only("slug").order_by()


def behind(proposal: Proposal) -> list[Closed]:
    """What stands for an approved answer when later ones are compared with it: itself, or all that it depends on."""
    if proposal.closed is not None:
        return [proposal.closed]
    return [Closed("sum", i.dataset, i.version, (i.columns or [])[:MOST_COLUMNS]) for i in proposal.inputs]


def disclose(
    proposal: Proposal, route: str, crowds: Mapping[tuple[str, int], str], *, by: User, question: str = ""
) -> None:
    """Record that this answer leaves, one row for each dataset version; in the transaction of the release.

    `crowds`: digests by dataset and version. A row that is there already stays: the same answer to the same account
    tells nothing new.
    """
    keys = {UUID(entry.dataset) for entry in proposal.inputs}
    slugs = {str(row.pk): row.slug for row in _named(tuple(keys))}
    question = question or f"program {proposal.program_hash}"
    for entry in proposal.inputs:
        named = [entry.dataset, entry.version, str(by.pk), route, question, proposal.dtype, list(proposal.shape)]
        row = Disclosure(
            key=digest(named),
            dataset=UUID(entry.dataset),
            dataset_slug=slugs[entry.dataset],
            version=entry.version,
            user=by,
            route=route,
            question=question[:400],
            columns=entry.columns,
            program_hash=proposal.program_hash,
            crowds=crowds.get((entry.dataset, entry.version), ""),
        )
        insert_if_new(row)


def keep(examinations: Sequence[Examination]) -> dict[tuple[str, int], str]:
    """Move the sets to where later answers find them, before the commit that names them; their digests."""
    for each in examinations:
        place = _folder() / each.crowds
        if place.exists():
            continue
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(each.file)
        each.file.replace(place)
        sync(place.parent)
    return {(each.closed.dataset, each.closed.version): each.crowds for each in examinations}


def numbers_beside(asked: Sequence[Sequence[UUID]]) -> list[int]:
    """For each of several groups of datasets, how many exact answers were given about people of their domains: a
    certificate says so. Two queries, however many groups there are."""
    domains = domains_of(dataset for group in asked for dataset in group)
    numbers = dict(execute(_NUMBERS, ()).fetchall())
    return [sum(numbers.get(slug, 0) for slug in {domains[dataset] for dataset in group}) for group in asked]


def disclosures_visible_to(user: User) -> QuerySet[Disclosure]:
    """Those about one's own datasets; all of them for who may see everything."""
    found = Disclosure.objects.select_related("user")
    if user.has("everything.read"):
        return found
    return found.filter(dataset__in=Dataset.objects.filter(ownership__owner=user).values("pk"))


def in_words(closed: Closed) -> str:
    """The question that an answer of the closed set answers."""
    others = f" with {', '.join(closed.others)}" if closed.others else ""
    return f"{closed.kind} of {', '.join(closed.columns) or 'rows'}{others}{f' by {closed.by}' if closed.by else ''}"


def _folder() -> Path:
    return Path(settings.GRID_STORAGE_DIR) / "crowds"
