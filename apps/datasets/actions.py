"""Make datasets and versions, and change their public words. Whoever calls checks rights and records the event."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import F

from apps.core import clock
from apps.core.durable import sync
from apps.core.wake import wake
from apps.datasets.assets import ENTITIES, MAX_DESCRIPTION, MAX_NAME, MAX_TAGS, SUFFIXES, TABLE, Ingested
from apps.datasets.models import Dataset, DatasetVersion, Revision, Visibility
from apps.datasets.slugs import free_slug
from apps.tags import index
from apps.tags.actions import tags_of
from gridclient.wire.errors import ConflictError, InvalidInputError
from gridclient.wire.messages import PublishSpec
from gridclient.wire.normal_form import nfc


@transaction.atomic
def create_dataset(*, spec: PublishSpec, ingested: Ingested, folder: Path) -> Dataset:
    """A new dataset with its first version.

    `folder` holds what `ingest` wrote, on the file system of the storage; it is moved into place before the commit.
    Raises InvalidInputError where `spec.entities_of` names no dataset with as many rows.
    """
    revision = _next_revision()  # first of all: its lock also keeps two publications from taking one slug
    dataset = Dataset(
        visibility=_visibility(spec.visibility or Visibility.LISTED),
        accounts_may_compute=spec.accounts_may_compute is not False,
    )
    dataset.name, dataset.slug = free_slug(
        name=spec.name,
        description=spec.description,
        tags=spec.tags,
        hidden=dataset.visibility == Visibility.GRANTED,
    )
    dataset.description = _description(spec.description)
    dataset.save(force_insert=True)
    _tag(dataset, spec.tags)
    _add_version(dataset, 1, spec.entities_of, ingested, folder)
    _changed(dataset, revision)
    return dataset


@transaction.atomic
def create_version(dataset: Dataset, *, spec: PublishSpec, ingested: Ingested, folder: Path) -> DatasetVersion:
    """The next version of a dataset. Words that the specification leaves empty stay as they are.

    Raises ConflictError for another kind, and what `create_dataset` raises.
    """
    revision = _next_revision()
    dataset = Dataset.objects.select_for_update(no_key=True).get(pk=dataset.pk)
    last = dataset.current
    if last.kind != ingested.kind:
        raise ConflictError(f"A new version of {dataset.slug} is a {last.kind}, as the ones before.")
    version = _add_version(dataset, last.number + 1, spec.entities_of, ingested, folder)
    if spec.name.strip():
        dataset.name = _name(spec.name)
    if spec.description:
        dataset.description = _description(spec.description)
    if spec.tags:
        _tag(dataset, spec.tags)
    if spec.visibility is not None:
        dataset.visibility = _visibility(spec.visibility)
    if spec.accounts_may_compute is not None:
        dataset.accounts_may_compute = spec.accounts_may_compute
    _changed(dataset, revision)
    return version


@transaction.atomic
def describe(
    dataset: Dataset,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    visibility: str | None = None,
    accounts_may_compute: bool | None = None,
) -> Dataset:
    """Change the public words of a dataset, or who sees it; None leaves one as it is. Raises InvalidInputError."""
    revision = _next_revision()
    dataset = Dataset.objects.select_for_update(no_key=True).get(pk=dataset.pk)
    if name is not None:
        dataset.name = _name(name)
    if description is not None:
        dataset.description = _description(description)
    if visibility is not None:
        dataset.visibility = _visibility(visibility)
    if accounts_may_compute is not None:
        dataset.accounts_may_compute = accounts_may_compute
    if tags is not None:
        _tag(dataset, tags)
    _changed(dataset, revision)
    return dataset


def _add_version(
    dataset: Dataset, number: int, entities_of: str | None, ingested: Ingested, folder: Path
) -> DatasetVersion:
    version = DatasetVersion(dataset=dataset, number=number, sequence=uuid4(), **msgspec.to_builtins(ingested))
    if entities_of is not None:
        _pair(version, entities_of, folder)
    version.save(force_insert=True)
    place = version.folder
    # What a publication that never committed left here belongs to nobody.
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.rename(place)
    for changed in (place, place.parent, place.parent.parent):
        sync(changed)
    return version


def remove_orphans(*, older_than: timedelta = timedelta(hours=1), now: datetime | None = None) -> int:
    """Remove files whose publication never committed; how many folders that were. For the start of a process.

    Younger ones stay: another process may be about to commit.
    """
    before = ((now or clock.now()) - older_than).timestamp()
    known = {(str(key), str(number)) for key, number in DatasetVersion.objects.values_list("dataset_id", "number")}
    storage = Path(settings.GRID_STORAGE_DIR) / "datasets"
    found = [
        place
        for place in storage.glob("*/*")
        if (place.parent.name, place.name) not in known and place.stat().st_mtime < before
    ]
    for place in found:
        shutil.rmtree(place, ignore_errors=True)
    return len(found)


def _pair(version: DatasetVersion, slug: str, folder: Path) -> None:
    """Let the rows of `version` be those of another dataset: same sequence, same people."""
    other = Dataset.objects.filter(slug=slug).first()
    if other is None or (other.current.row_count, other.current.shape[0]) != (version.row_count, version.shape[0]):
        raise InvalidInputError(f"entities_of names {slug!r}, which must be a dataset of yours with as many rows.")
    first = other.current
    version.sequence = first.sequence
    if first.entities == "declared":
        file = f"{ENTITIES}{SUFFIXES[TABLE]}"
        os.link(first.folder / file, folder / file)  # never changed, hence one file for both
        # A row that is a null record here takes away one person at most: never more people than there are.
        nulls = version.row_count - version.entity_count
        version.entity_count = max(0, first.entity_count - nulls)
        version.entities, version.max_rows_per_entity = first.entities, first.max_rows_per_entity


def _next_revision() -> int:
    """The number of a change; held until the commit, so that changes become visible in the order of their numbers."""
    Revision.objects.get_or_create(pk=1)
    Revision.objects.filter(pk=1).update(last=F("last") + 1)
    return Revision.objects.get(pk=1).last


def _changed(dataset: Dataset, revision: int) -> None:
    """Save with the number of the change, index the words, wake the announcer."""
    dataset.revision = revision
    dataset.save()
    dataset.__dict__.pop("current", None)
    words = f"{dataset.name} {dataset.slug}"
    tags = dataset.typed_tags
    index.put("dataset", [index.document(dataset.pk, name=words, description=dataset.description, tags=tags)])
    wake("datasets")


def _tag(dataset: Dataset, texts: Iterable[str]) -> None:
    texts = list(texts)
    if len(texts) > MAX_TAGS:
        raise InvalidInputError(f"A dataset has at most {MAX_TAGS} tags.")
    tags = tags_of(texts)
    dataset.tags.set(tags)
    dataset.typed_tags = [tag.text for tag in tags]


def _name(text: str) -> str:
    name = text.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidInputError(f"A name has 1 to {MAX_NAME} printable characters.")
    return nfc(name)


def _description(text: str) -> str:
    if len(text) > MAX_DESCRIPTION:
        raise InvalidInputError(f"A description has at most {MAX_DESCRIPTION} characters.")
    return text


def _visibility(value: str) -> str:
    if value not in Visibility.values:
        raise InvalidInputError(f"visibility is one of {', '.join(Visibility.values)}.")
    return value
