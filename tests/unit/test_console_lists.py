"""Long lists of the console: found by the index, in pages that cost the same however long the list is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from apps.console import filters, lists
from apps.network import announcements
from apps.network.models import Node
from tests.factories.network import NOW, member, metadata, push_of
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db
ANNOUNCED = "/admin/network/announcement/"
DATASETS = "/admin/datasets/dataset/"


@pytest.fixture
def network() -> Iterator[None]:
    with override_settings(GRID_ROLE="network"):
        yield


def signed_in(people: People, who: str) -> Client:
    client = Client()
    client.force_login(getattr(people, who))
    return client


def listed(client: Client, where: str) -> list[Any]:
    return list(client.get(where).context["cl"].result_list)


def told(client: Client, where: str) -> str:
    return " ".join(str(message) for message in client.get(where).context["messages"])


@pytest.mark.usefixtures("network")
def test_announcements_are_found_by_tag_word_and_node(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital, company = member("hospital", people.administrator), member("company", people.administrator)
    announcements.receive(push_of(metadata(1), metadata(2, tags=["#ward"])), key=hospital.public_key, now=NOW)
    announcements.receive(push_of(metadata(3)), key=company.public_key, now=NOW)
    client = signed_in(people, "administrator")

    def slugs(query: str) -> set[str]:
        return {row.metadata["slug"] for row in listed(client, ANNOUNCED + query)}

    assert slugs("") == slugs("?q=kilogram") == {"births-1", "births-2", "births-3"}
    assert slugs("?q=%23ward") == {"births-2"} and slugs("?q=%23february+births") == {"births-1", "births-3"}
    assert slugs("?at=company") == {"births-3"} and slugs("?at=nobody") == slugs("?q=febru") == set()
    assert slugs("?q=%23february&at=hospital") == {"births-1"}
    assert "A tag is one word" in told(client, ANNOUNCED + "?q=%23")
    assert f"{ANNOUNCED}?at=hospital" in client.get("/admin/network/node/hospital/change/").content.decode()
    monkeypatch.setattr(lists, "MOST_FOUND", 2)
    assert "More than 2 match" in told(client, ANNOUNCED + "?q=births")


def kept(node: Node) -> list[UUID]:
    return list(node.announcements.values_list("dataset_id", flat=True))


@pytest.mark.usefixtures("network")
def test_a_list_is_neither_counted_nor_asked_for_row_by_row(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_CHOICES", 3)
    nodes = [member(f"node-{number}", people.administrator) for number in range(6)]
    client = signed_in(people, "administrator")
    costs = []
    for number in range(1, 61):
        node = nodes[number % 6]
        announcements.receive(push_of(metadata(number), keep=kept(node)), key=node.public_key, now=NOW)
        if number in (6, 60):
            with CaptureQueriesContext(connection) as asked:
                rows = listed(client, ANNOUNCED)
            assert len(rows) == min(number, 50)
            costs.append(len(asked))
            assert not any("COUNT(" in each["sql"] and "announcement" in each["sql"] for each in asked)
    assert costs[0] == costs[1]


def test_a_search_for_datasets_shows_what_the_person_may_see(people: People) -> None:
    for visibility in ("listed", "accounts", "granted"):
        publish(people.owner, visibility, visibility=visibility)
    mine = {"listed", "accounts", "granted"}
    assert {row.name for row in listed(signed_in(people, "owner"), f"{DATASETS}?q=%23births")} == mine
    assert {row.name for row in listed(signed_in(people, "reviewer"), f"{DATASETS}?q=%23births")} == mine - {"granted"}
    assert listed(signed_in(people, "reviewer"), f"{DATASETS}?q=granted") == []
