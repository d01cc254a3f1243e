"""Datasets as rows and folders: what was published stays, pairs only where it should, and shows nothing private."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import IntegrityError, transaction

from apps.datasets import actions
from apps.datasets.assets import Ingested
from apps.datasets.models import Dataset, DatasetVersion, Revision
from apps.datasets.queries import asset_spec, public_metadata
from apps.tags import index
from apps.tags.models import Tag
from gridclient.wire.errors import ConflictError, InvalidInputError
from gridclient.wire.messages import Column, PublishSpec

pytestmark = pytest.mark.django_db
WEIGHT = Column("weight_kg", low=0.5, high=6.0)


def ingested(**changed: Any) -> Ingested:
    return Ingested(
        **{
            "kind": "tensor", "dtype": "float32", "shape": [84, 1], "columns": [WEIGHT], "rows_public": True,
            "row_count": 84, "entities": "rows", "entity_count": 84, "max_rows_per_entity": 1, "missing": "refuse",
            "presence": False, "nbytes": 500, "sha256": "5e" * 32, **changed,
        }
    )  # fmt: skip


def staged(name: str = "incoming", *, entities: bytes = b"") -> Path:
    folder = Path(settings.GRID_STORAGE_DIR) / "datasets" / name
    folder.mkdir(parents=True)
    (folder / "values.safetensors").write_bytes(b"values")
    if entities:
        (folder / "entities.arrow").write_bytes(entities)
    return folder


def publish(spec: PublishSpec | None = None, *, entities: bytes = b"", **changed: Any) -> Dataset:
    spec = spec or PublishSpec(kind="tensor", name="births")
    return actions.create_dataset(spec=spec, ingested=ingested(**changed), folder=staged(entities=entities))


def test_files_are_in_place_when_the_dataset_exists() -> None:
    dataset = publish()
    folder = Path(settings.GRID_STORAGE_DIR) / "datasets" / str(dataset.pk) / "1"
    assert dataset.current.folder == folder and (folder / "values.safetensors").read_bytes() == b"values"
    assert asset_spec(dataset.current).path() == folder / "values.safetensors"
    assert not (folder.parent.parent / "incoming").exists()


def test_the_public_metadata_are_public() -> None:
    dataset = publish(
        PublishSpec(kind="tensor", name="Births", description="Of February.", tags=["#February", "#birth-records"]),
        rows_public=False, presence=True, row_count=71, entity_count=63, shape=[90, 1],
    )  # fmt: skip
    shown = public_metadata(dataset.current)
    assert (shown["slug"], shown["name"], shown["tags"]) == ("births", "Births", ["#February", "#birth-records"])
    assert (shown["shape"], shown["columns"][0]["low"], shown["version"]) == ([90, 1], 0.5, 1)
    text = json.dumps(shown)
    for secret in ("71", "63", "5e5e", str(dataset.current.folder)):
        assert secret not in text.replace(str(dataset.pk), "").replace(shown["sequence"], "").replace(
            shown["created"], ""
        )


def test_tags_are_shown_in_the_order_and_spelling_of_their_owner() -> None:
    first = publish(PublishSpec(kind="tensor", name="a", tags=["#Zebra", "apple", "#zebra"]))
    second = actions.describe(first, tags=["#zebra", "#Apple"])
    assert public_metadata(first.current)["tags"] == ["#Zebra", "apple"]
    assert public_metadata(Dataset.objects.get(pk=first.pk).current)["tags"] == ["#zebra", "#Apple"]
    assert {tag.normal for tag in second.tags.all()} == {"#zebra", "#apple"} and Tag.objects.count() == 4


@pytest.mark.parametrize(
    ("words", "slug", "name"),
    [
        ({"name": "February births!"}, "february-births", "February births!"),
        (
            {"description": "one two three four five six seven"},
            "one-two-three-four-five-six",
            "one two three four five six",
        ),
        ({"tags": ["#February", "birth-records"]}, "february-birth-records", "February birth-records"),
        ({"name": "数据", "tags": ["#mnist"]}, "mnist", "数据"),
        ({}, "dataset", "dataset"),
    ],
)
def test_a_dataset_without_a_name_is_named_by_its_words(words: dict[str, Any], slug: str, name: str) -> None:
    dataset = publish(PublishSpec(kind="tensor", **words))
    assert (dataset.slug, dataset.name) == (slug, name)


def test_a_clash_of_names_makes_another_dataset_never_a_version() -> None:
    made = [publish() for _ in range(3)]
    assert [dataset.slug for dataset in made] == ["births", "births-2", "births-3"]
    assert {dataset.current.number for dataset in made} == {1}


def found(term: str) -> set[UUID]:
    return {match.key for batch in index.matching("dataset", [term]) for match in batch}


def test_every_change_has_a_later_revision_and_is_found_at_once() -> None:
    births, visits = publish(), publish(PublishSpec(kind="tensor", name="visits"))
    assert 0 < births.revision < visits.revision
    changed = actions.describe(births, name="Deliveries", description="of the ward", visibility="granted")
    assert changed.revision > visits.revision == Revision.objects.get().last - 1
    assert found("ward") == found("deliveries") == {births.pk}
    version = actions.create_version(
        changed, spec=PublishSpec(kind="tensor", tags=["#new"]), ingested=ingested(), folder=staged()
    )
    renewed = Dataset.objects.get(pk=births.pk)
    assert renewed.revision > changed.revision and renewed.current == version and version.number == 2
    assert renewed.description == "of the ward" and found("#new") == {births.pk}


def test_rows_of_another_version_never_pair() -> None:
    births = publish()
    labels = publish(PublishSpec(kind="tensor", name="labels", entities_of="births"))
    first = births.current
    assert asset_spec(labels.current).sequence == asset_spec(first).sequence
    renewed = actions.create_version(births, spec=PublishSpec(kind="tensor"), ingested=ingested(), folder=staged())
    again = actions.create_version(labels, spec=PublishSpec(kind="tensor"), ingested=ingested(), folder=staged())
    assert len({first.sequence, renewed.sequence, again.sequence}) == 3


def test_a_sequence_does_not_name_the_hidden_dataset_that_it_pairs_with() -> None:
    hidden = publish(PublishSpec(kind="tensor", name="hidden", visibility="granted"))
    shown = publish(PublishSpec(kind="tensor", name="shown", entities_of=hidden.slug))
    assert str(hidden.pk) not in json.dumps(public_metadata(shown.current))


def test_a_pair_takes_over_the_people_of_its_rows() -> None:
    births = actions.create_dataset(
        spec=PublishSpec(kind="tensor", name="births"),
        ingested=ingested(entities="declared", entity_count=40, max_rows_per_entity=3),
        folder=staged(entities=b"hmacs"),
    )
    labels = publish(PublishSpec(kind="tensor", name="labels", entities_of="births"), entity_count=80)
    version = labels.current
    assert (version.entities, version.max_rows_per_entity, version.sequence) == ("declared", 3, births.current.sequence)
    assert version.entity_count == 36, "each of the four null records may have been the only one of a person"
    assert (version.folder / "entities.arrow").read_bytes() == b"hmacs"


@pytest.mark.parametrize("changed", [{"row_count": 83}, {"shape": [90, 1]}])
def test_a_pair_must_have_as_many_rows(changed: dict[str, Any]) -> None:
    publish()
    with pytest.raises(InvalidInputError, match="as many rows"):
        publish(PublishSpec(kind="tensor", name="labels", entities_of="births"), **{"entity_count": 80, **changed})
    with pytest.raises(InvalidInputError, match="as many rows"):
        actions.create_dataset(
            spec=PublishSpec(kind="tensor", name="labels", entities_of="none"),
            ingested=ingested(),
            folder=Path("/none"),
        )
    assert not Dataset.objects.filter(slug="labels").exists()


def test_a_version_is_of_the_kind_of_the_ones_before() -> None:
    births = publish()
    with pytest.raises(ConflictError, match="tensor"):
        actions.create_version(
            births, spec=PublishSpec(kind="table"), ingested=ingested(kind="table", dtype=""), folder=staged()
        )
    assert DatasetVersion.objects.count() == 1


def test_a_publication_that_fails_leaves_no_row_and_can_be_repeated() -> None:
    births = publish()
    with transaction.atomic():
        actions.create_version(births, spec=PublishSpec(kind="tensor"), ingested=ingested(), folder=staged())
        transaction.set_rollback(True)
    assert Dataset.objects.get().current.number == 1
    again = actions.create_version(births, spec=PublishSpec(kind="tensor"), ingested=ingested(), folder=staged())
    assert again.number == 2 and (again.folder / "values.safetensors").exists()


@pytest.mark.parametrize(
    "words",
    [{"name": " "}, {"name": "x" * 201}, {"name": "a\u202eb"}, {"description": "x" * 10_001}, {"visibility": "all"},
     {"tags": ["two words"]}, {"tags": [f"#t{i}" for i in range(33)]}],
)  # fmt: skip
def test_bad_words_change_nothing(words: dict[str, Any]) -> None:
    births = publish()
    with pytest.raises(InvalidInputError):
        actions.describe(births, **words)
    assert Dataset.objects.get().revision == births.revision


def test_the_database_itself_refuses_what_cannot_be() -> None:
    births = publish()
    for changed in ({"visibility": "all"}, {"slug": "births"}):
        row = Dataset(name="x", slug="x")
        for name, value in changed.items():
            setattr(row, name, value)
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save()
    with pytest.raises(IntegrityError), transaction.atomic():
        DatasetVersion.objects.filter(dataset=births).update(entity_count=85)


def test_private_files_of_a_publication_that_never_committed_do_not_stay() -> None:
    kept = publish().current.folder
    orphan = kept.parent.parent / "11111111-1111-4111-8111-111111111111" / "1"
    orphan.mkdir(parents=True)
    assert actions.remove_orphans() == 0  # too young: its publication may be about to commit
    assert actions.remove_orphans(older_than=timedelta(0), now=datetime.now(UTC) + timedelta(seconds=5)) == 1
    assert kept.exists()
    assert not orphan.exists()


def test_a_name_tells_nobody_that_a_hidden_dataset_has_it_too() -> None:
    hidden = PublishSpec(kind="tensor", name="Merger", visibility="granted")
    first, second = publish(hidden), publish(hidden)
    for dataset in (first, second):
        assert re.fullmatch("merger-[a-z2-7]{6}", dataset.slug) and dataset.name == "Merger"
    # Whoever publishes under the name next gets what they would have got anyway.
    assert [publish(PublishSpec(kind="tensor", name="Merger")).slug for _ in range(2)] == ["merger", "merger-2"]


def test_a_clash_with_what_became_hidden_is_not_counted() -> None:
    actions.describe(publish(), visibility="granted")
    assert re.fullmatch("births-[a-z2-7]{6}", publish().slug)


def test_a_long_hidden_name_still_fits_an_address() -> None:
    assert len(publish(PublishSpec(kind="tensor", name="x" * 100, visibility="granted")).slug) <= 80


def test_a_new_version_of_a_hidden_dataset_stays_hidden_unless_its_owner_says_otherwise() -> None:
    hidden = PublishSpec(kind="tensor", name="births", visibility="granted", accounts_may_compute=False)
    dataset = publish(hidden)
    actions.create_version(dataset, spec=PublishSpec(kind="tensor"), ingested=ingested(), folder=staged())
    dataset = Dataset.objects.get(pk=dataset.pk)
    assert (dataset.visibility, dataset.accounts_may_compute, dataset.name) == ("granted", False, "births")
    spec = PublishSpec(kind="tensor", name="Births", visibility="accounts", accounts_may_compute=True)
    actions.create_version(dataset, spec=spec, ingested=ingested(), folder=staged())
    dataset = Dataset.objects.get(pk=dataset.pk)
    assert (dataset.visibility, dataset.accounts_may_compute, dataset.name) == ("accounts", True, "Births")
