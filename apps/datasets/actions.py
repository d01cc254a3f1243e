"""Make datasets and versions, and change their public words. Whoever calls checks rights and records the event."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec
from django.db import transaction
from django.utils.text import slugify

from apps.core.wake import wake
from apps.datasets.assets import Ingested
from apps.datasets.models import Dataset, DatasetVersion, Revision, Visibility
from apps.tags import index
from apps.tags.actions import tags_of
from gridclient.wire.errors import ConflictError, InvalidInputError
from gridclient.wire.messages import PublishSpec

MAX_SLUG = 70
MAX_TAGS = 32


@transaction.atomic
def create_dataset(*, spec: PublishSpec, ingested: Ingested, folder: Path) -> Dataset:
    """A new dataset with its first version. The files in `folder` are moved into place before the commit."""
    dataset = Dataset(visibility=_visibility(spec.visibility), accounts_may_compute=spec.accounts_may_compute)
    dataset.sequence = dataset.pk
    if spec.entities_of is not None:
        pair = _paired(spec.entities_of, ingested)
        dataset.sequence = pair.sequence
    dataset.name = spec.name.strip() or _first_words(spec) or "dataset"
    dataset.slug = _free_slug(dataset.name)
    dataset.description = spec.description
    dataset.save(force_insert=True)
    dataset.tags.set(tags_of(_few(spec.tags)))
    _place(DatasetVersion(dataset=dataset, number=1), ingested, folder)
    _changed(dataset)
    return dataset


@transaction.atomic
def create_version(dataset: Dataset, *, spec: PublishSpec, ingested: Ingested, folder: Path) -> DatasetVersion:
    """The next version of a dataset. Words that the specification leaves empty stay. Raises ConflictError for another kind."""
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)
    last = dataset.current
    if last.kind != ingested.kind:
        raise ConflictError(f"A new version of {dataset.slug} is a {last.kind}, as the ones before.")
    version = DatasetVersion(dataset=dataset, number=last.number + 1)
    _place(version, ingested, folder)
    if spec.description:
        dataset.description = spec.description
    if spec.tags:
        dataset.tags.set(tags_of(_few(spec.tags)))
    _changed(dataset)
    return version


@transaction.atomic
def describe(
    dataset: Dataset,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    visibility: str | None = None,
) -> Dataset:
    """Change the public words of a dataset; None leaves one as it is. Raises InvalidInputError."""
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)
    if name is not None:
        if not name.strip() or len(name) > 200:
            raise InvalidInputError("A name has 1 to 200 characters.")
        dataset.name = name.strip()
    if description is not None:
        dataset.description = description
    if visibility is not None:
        dataset.visibility = _visibility(visibility)
    if tags is not None:
        dataset.tags.set(tags_of(_few(list(tags))))
    _changed(dataset)
    return dataset


def _place(version: DatasetVersion, ingested: Ingested, folder: Path) -> None:
    declared = msgspec.to_builtins(ingested)
    declared.pop("row_count")
    for name, value in declared.items():
        setattr(version, name, value)
    version.save(force_insert=True)
    # What a publication that never committed left here belongs to nobody.
    shutil.rmtree(version.folder, ignore_errors=True)
    version.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.rename(version.folder)


def _changed(dataset: Dataset) -> None:
    """Number the change, index the words, wake the announcer."""
    Revision.objects.get_or_create(pk=1)
    counter = Revision.objects.select_for_update().get(pk=1)
    counter.last += 1
    counter.save(update_fields=["last"])
    dataset.revision = counter.last
    dataset.save()
    dataset.__dict__.pop("current", None)
    tags = [tag.text for tag in dataset.tags.all()]
    index.put("dataset", dataset.pk, name=f"{dataset.name} {dataset.slug}", description=dataset.description, tags=tags)
    wake("datasets")


def _visibility(value: str) -> str:
    if value not in Visibility.values:
        raise InvalidInputError(f"visibility is one of {', '.join(Visibility.values)}.")
    return value


def _few(tags: list[str]) -> list[str]:
    if len(tags) > MAX_TAGS:
        raise InvalidInputError(f"A dataset has at most {MAX_TAGS} tags.")
    return tags


def _paired(slug: str, ingested: Ingested) -> Dataset:
    pair = Dataset.objects.filter(slug=slug).first()
    if pair is None or pair.current.shape[0] != ingested.shape[0]:
        raise InvalidInputError(f"entities_of names {slug!r}, which must be a dataset of yours with as many rows.")
    return pair


def _first_words(spec: PublishSpec) -> str:
    return " ".join(spec.description.split()[:6]) or " ".join(tag.lstrip("#") for tag in spec.tags)


def _free_slug(name: str) -> str:
    wanted = slugify(name)[:MAX_SLUG].strip("-") or "dataset"
    taken = set(Dataset.objects.filter(slug__startswith=wanted).values_list("slug", flat=True))
    slug, number = wanted, 1
    while slug in taken:
        number += 1
        slug = f"{wanted}-{number}"
    return slug
