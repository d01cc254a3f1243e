"""What a node tells its network: listed datasets, whole, in order of their changes, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apps.datasets.actions import describe
from apps.datasets.models import Dataset, DatasetVersion, Visibility
from apps.network import announcements, listing, messages
from apps.network.models import Announcement
from tests.factories.network import NOW, member
from tests.factories.people import People

pytestmark = pytest.mark.django_db


def dataset(slug: str, *, visibility: str = "listed", revision: int, **version: Any) -> Dataset:
    made = Dataset(slug=slug, name=slug, visibility=visibility, revision=revision)
    made.save()
    declared = {
        "kind": "tensor",
        "dtype": "float64",
        "shape": [84, 2],
        "columns": [{"name": "weight_kg", "kind": "number", "low": 0.5, "high": 6.0, "categories": None}],
        "rows_public": True,
        "entities": "rows",
        "row_count": 77123,
        "entity_count": 77123,
        "max_rows_per_entity": 1,
        "missing": "refuse",
        "presence": False,
        "nbytes": 1344,
        "sha256": "ab" * 32,
    }
    DatasetVersion.objects.create(dataset=made, number=1, **declared | version)
    return made


def put(push: messages.Push) -> list[str]:
    return [msgspec.json.decode(raw)["slug"] for raw in push.put]


def test_only_listed_datasets_are_told_and_no_private_number(people: People) -> None:
    shown = dataset("births", revision=1)
    hidden = [dataset(each, visibility=each, revision=2 + i) for i, each in enumerate(("accounts", "granted"))]
    push, more = listing.next_push(None)
    assert put(push) == ["births"] and push.keep == [shown.pk] and not more
    assert push.remove == [each.pk for each in hidden] and push.revision == 3
    sent = msgspec.json.encode(push).decode()
    for secret in ("77123", "ab" * 32, "accounts", "granted"):
        assert secret not in sent


def test_what_a_node_tells_is_what_a_network_takes(people: People) -> None:
    dataset("births", revision=1)
    dataset("visits", revision=2, kind="table", dtype="", shape=[128, 3], rows_public=False, missing="null")
    dataset("images", revision=3, shape=[60, 28, 28], columns=[], missing=0.0)
    node = member("hospital", people.administrator)
    push, _ = listing.next_push(None)
    sent = messages.decode(msgspec.json.encode(push), messages.Push)
    receipt = announcements.receive(sent, key=node.public_key, now=NOW)
    assert receipt.in_step and receipt.refused == []
    assert Announcement.objects.count() == 3


def test_a_dataset_that_is_hidden_disappears_from_the_network(people: People) -> None:
    births = dataset("births", revision=1)
    node = member("hospital", people.administrator)
    announcements.receive(listing.next_push(None)[0], key=node.public_key, now=NOW)
    describe(births, visibility=Visibility.GRANTED)
    Dataset.objects.filter(pk=births.pk).update(revision=2)
    announcements.receive(listing.next_push(1)[0], key=node.public_key, now=NOW)
    assert not Announcement.objects.exists()


def test_many_datasets_travel_in_batches_without_loss() -> None:
    for number in range(1, 231):
        dataset(f"births-{number}", revision=number)
    after, more, told = None, True, []
    while more:
        push, more = listing.next_push(after)
        assert len(push.put) <= messages.MAX_BATCH and push.base == after
        told += put(push)
        after = push.revision
    assert told == [f"births-{number}" for number in range(1, 231)]
    assert listing.next_push(after)[0].put == []


def test_wide_tables_do_not_make_a_message_too_long() -> None:
    for number in range(1, 31):
        dataset(f"wide-{number}", revision=number, columns=[{"name": f"{i:0150d}"} for i in range(300)])
    dataset("too-wide", revision=31, columns=[{"name": f"{i:0150d}"} for i in range(3000)])
    after, more, told, left_out = None, True, [], 0
    while more:
        push, more = listing.next_push(after)
        assert len(msgspec.json.encode(push)) <= messages.MAX_BODY
        told += put(push)
        left_out += len(push.remove)
        after = push.revision
    assert len(told) == 30 and left_out == 1
