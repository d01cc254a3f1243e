"""The network's index: what living members list, and nothing that a hostile node makes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.test import override_settings

from apps.network import actions, announcements, messages
from apps.network.models import Announcement, Node, State
from apps.network.queries import facets, search, suggest
from apps.tags import index, summaries
from gridclient.wire.errors import AuthenticationError, InvalidInputError, LimitExceededError, NotFoundError
from tests.factories.network import NOW, acting_as, join_of, member, metadata, push_of
from tests.factories.people import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def hospital(people: People) -> Node:
    return member("hospital", people.administrator)


def send(node: Node, *datasets: dict[str, Any], seconds: float = 0, **push: Any) -> messages.Receipt:
    return announcements.receive(push_of(*datasets, **push), key=node.public_key, now=NOW + timedelta(seconds=seconds))


def slugs(*terms: str, seconds: float = 0, user: Any = None) -> list[str]:
    with override_settings(GRID_GUEST_SEARCH=True):
        rows = search(user, terms, limit=100, now=NOW + timedelta(seconds=seconds)).rows
    return [row["dataset"]["slug"] for row in rows]


def test_a_listed_dataset_is_found_with_its_place(hospital: Node, people: People) -> None:
    send(hospital, metadata())
    (row,) = search(people.scientist, ["#FEBRUARY", "kilogram"], limit=5, now=NOW).rows
    assert row == {
        "node": {"id": "hospital", "name": "Hospital", "url": hospital.url, "public_key": hospital.public_key},
        "dataset": metadata(),
    }


def test_every_term_must_match_and_a_hash_means_a_tag(hospital: Node) -> None:
    send(hospital, metadata())
    assert slugs("#birth-records", "weight") == ["births-1"]
    assert slugs("#weight") == [] and slugs("births", "march") == []


def test_newest_come_first(hospital: Node) -> None:
    for number in (1, 2, 3):
        send(hospital, metadata(number), base=None if number == 1 else number - 1, revision=number, seconds=number)
    assert slugs() == ["births-3", "births-2", "births-1"]


def test_guests_search_only_where_the_network_allows_it(hospital: Node) -> None:
    with override_settings(GRID_GUEST_SEARCH=False), pytest.raises(AuthenticationError):
        search(None, [], limit=5)
    with override_settings(GRID_GUEST_SEARCH=True):
        assert search(None, [], limit=5) == index.Page([], None)


def test_a_silent_node_disappears_and_comes_back_with_its_heartbeat(hospital: Node) -> None:
    send(hospital, metadata())
    assert slugs(seconds=44) == ["births-1"]
    assert slugs(seconds=46) == []
    send(hospital, base=1, revision=1, seconds=60)
    assert slugs(seconds=61) == ["births-1"]


@pytest.mark.parametrize("state", [State.PENDING, State.REMOVED])
def test_who_is_not_a_member_announces_nothing(hospital: Node, state: State) -> None:
    send(hospital, metadata())
    decided = {"decided_at": None, "decided_by": None} if state == State.PENDING else {}
    Node.objects.filter(pk=hospital.pk).update(state=state, **decided)
    receipt = send(hospital, metadata(2), base=1, revision=2)
    assert (receipt.state, receipt.in_step) == (state, False)
    assert slugs() == [] and Announcement.objects.count() == 1


def test_a_key_that_never_asked_announces_nothing() -> None:
    with acting_as("impostor") as key, pytest.raises(NotFoundError):
        announcements.receive(push_of(metadata()), key=key, now=NOW)


def test_a_node_speaks_for_itself_only(hospital: Node, people: People) -> None:
    company = member("company", people.administrator)
    send(hospital, metadata())
    send(company, metadata(name="Ours"), base=None)
    send(company, base=1, revision=2, remove=[UUID(metadata()["id"])])
    assert [row.node_id for row in Announcement.objects.all()] == ["hospital"]


def test_the_same_push_twice_changes_nothing(hospital: Node) -> None:
    send(hospital, revision=1)
    assert send(hospital, metadata(), base=1, revision=5).in_step
    again = send(hospital, metadata(name="Late copy"), base=1, revision=5, seconds=1)
    assert (again.in_step, again.revision) == (False, 5)
    assert Announcement.objects.get().metadata["name"] == "Births of February"


def test_a_change_replaces_and_a_withdrawal_removes(hospital: Node) -> None:
    send(hospital, metadata())
    send(hospital, metadata(tags=["#march"]), base=1, revision=2)
    assert slugs("#february") == [] and slugs("#march") == ["births-1"]
    send(hospital, base=2, revision=3, remove=[UUID(metadata()["id"])])
    assert slugs() == [] and slugs("#march") == []


def test_beginning_anew_forgets_what_is_gone_and_keeps_what_is_not(hospital: Node) -> None:
    send(hospital, metadata(1), metadata(2))
    send(hospital, base=None, revision=9, keep=[UUID(metadata(2)["id"])])
    assert slugs() == ["births-2"]


@pytest.mark.parametrize(
    "bad",
    [
        {"visibility": "accounts"},
        {"visibility": "granted"},
        {"id": "no uuid"},
        {"slug": "<b>x</b>"},
        {"name": 5},
        {"name": "x" * 201},
        {"description": "x" * 10_001},
        {"tags": ["#two words"]},
        {"tags": [f"#{i}" for i in range(101)]},
        {"shape": [-1]},
        {"shape": [2**63]},
        {"shape": "all"},
        {"columns": [{"kind": "number"}]},
        {"columns": [{"name": "x", "low": "a lot"}]},
    ],
)
def test_a_lie_is_left_out_and_the_rest_is_taken(hospital: Node, bad: dict[str, Any]) -> None:
    receipt = send(hospital, metadata(1, **bad), metadata(2))
    assert receipt.in_step and len(receipt.refused) == 1
    assert slugs() == ["births-2"]


def test_unknown_fields_fall_away_and_texts_lose_their_tricks(hospital: Node) -> None:
    tricky = metadata(name="Births\u202e\x00 of\nFebruary", secret="x" * 100, description="a\x1b[31m\nb")
    send(hospital, tricky)
    kept = Announcement.objects.get().metadata
    assert "secret" not in kept and kept["name"] == "Births ofFebruary" and kept["description"] == "a[31m\nb"


def test_metadata_of_one_dataset_is_capped(hospital: Node) -> None:
    columns = [{"name": f"{i:0200d}"} for i in range(1000)]
    assert "longer than" in send(hospital, metadata(columns=columns)).refused[0][1]


def test_long_silent_members_leave_the_index_and_come_back_where_they_were(hospital: Node, people: People) -> None:
    company = member("company", people.administrator)
    send(hospital, metadata(1))
    send(company, metadata(2), seconds=1)
    send(company, base=1, revision=1, seconds=500)
    assert Node.objects.get(pk="hospital").findable and suggest(people.scientist, "#feb", limit=5)[0].datasets == 2
    send(company, base=1, revision=1, seconds=700)
    assert not Node.objects.get(pk="hospital").findable
    assert suggest(people.scientist, "#feb", limit=5) == [("#february", 1)] and slugs(seconds=700) == ["births-2"]
    send(hospital, base=1, revision=1, seconds=710)
    assert slugs("#february", seconds=711) == ["births-2", "births-1"]
    assert suggest(people.scientist, "#feb", limit=5) == [("#february", 2)]


def test_who_waits_again_or_is_removed_is_neither_found_nor_suggested(hospital: Node, people: People) -> None:
    send(hospital, metadata())
    wanted = join_of("hospital", "https://elsewhere.example")
    actions.join(wanted, key=wanted.public_key, address="198.51.100.7", now=NOW)
    assert slugs() == [] and suggest(people.scientist, "#feb", limit=5) == []
    Node.objects.filter(pk="hospital").update(state=State.APPROVED, decided_at=NOW, decided_by=people.administrator)
    send(hospital, base=1, revision=1)
    assert slugs() == ["births-1"]
    actions.remove(hospital, by=people.administrator, reason="left", now=NOW)
    assert slugs() == [] and suggest(people.scientist, "#feb", limit=5) == []


def test_facets_count_what_can_be_found_and_tell_where_they_stop(
    hospital: Node, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = member("company", people.administrator)
    send(hospital, metadata(1), metadata(2, tags=["#february", "#Ward"]))
    send(company, metadata(3, tags=["#ward"]))
    counts = facets(people.scientist, ["births"], now=NOW)
    assert (counts.counted, counts.more) == (3, False)
    assert counts.tags == [("#february", 2), ("#ward", 2), ("#birth-records", 1)]
    assert counts.groups == [("hospital", 2), ("company", 1)]
    send(company, base=1, revision=1, seconds=60)
    later = facets(people.scientist, [], now=NOW + timedelta(seconds=60))
    assert (later.counted, later.tags, later.groups) == (1, [("#ward", 1)], [("company", 1)])
    monkeypatch.setattr(summaries, "MOST_COUNTED", 2)
    few = facets(people.scientist, [], now=NOW)
    assert (few.counted, few.more, few.tags[0]) == (2, True, ("#ward", 2))
    with override_settings(GRID_GUEST_SEARCH=False):
        for ask in (lambda: facets(None, []), lambda: suggest(None, "#", limit=5)):
            with pytest.raises(AuthenticationError):
                ask()


def test_a_page_is_filled_past_those_that_cannot_be_heard(hospital: Node, people: People) -> None:
    company = member("company", people.administrator)
    send(hospital, metadata(1))
    send(company, *(metadata(number) for number in range(2, 40)))
    send(hospital, base=1, revision=1, seconds=60)
    page = search(people.scientist, [], limit=1, now=NOW + timedelta(seconds=60))
    assert [row["dataset"]["slug"] for row in page.rows] == ["births-1"] and page.next is None
    first = search(people.scientist, [], limit=30, now=NOW)
    rest = search(people.scientist, [], limit=30, before=first.next, now=NOW)
    found = [row["dataset"]["slug"] for row in first.rows + rest.rows]
    assert found == [f"births-{number}" for number in range(39, 0, -1)] and rest.next is None


def test_the_size_of_what_one_node_announces_is_capped(hospital: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    send(hospital, metadata(1))
    size = Announcement.objects.get().size
    assert size > 64 * 8  # its words count, too
    monkeypatch.setattr(announcements, "MAX_SIZE", 2 * size + 100)
    receipt = send(hospital, metadata(2), metadata(3), base=1, revision=2)
    assert len(receipt.refused) == 1 and "bytes in all" in receipt.refused[0][1] and slugs() == ["births-2", "births-1"]
    longer = metadata(1, description="word " * 100 + "x" * 200)
    assert len(send(hospital, longer, base=2, revision=3).refused) == 1
    assert send(hospital, metadata(1, description=""), base=3, revision=4).refused == []


def test_a_member_that_announces_too_fast_is_heard_and_told_so(
    hospital: Node, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "SIZE_PER_MINUTE", 5_000)
    company = member("company", people.administrator)
    send(hospital, metadata(1))
    with pytest.raises(LimitExceededError):
        send(hospital, *(metadata(number) for number in range(2, 12)), base=1, revision=2, seconds=10)
    with pytest.raises(LimitExceededError):
        send(hospital, metadata(2), base=1, revision=2, seconds=11)
    assert slugs(seconds=50) == ["births-1"]  # alive, and nothing was taken
    assert send(company, metadata(3), seconds=12).refused == []  # nobody else pays for it
    assert send(hospital, metadata(2), base=1, revision=2, seconds=61).in_step


def test_datasets_of_one_node_are_capped(hospital: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "MAX_DATASETS", 2)
    receipt = send(hospital, metadata(1), metadata(2), metadata(3))
    assert len(receipt.refused) == 1 and Announcement.objects.count() == 2
    assert send(hospital, metadata(2, name="New"), base=1, revision=2).refused == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"base":-1,"revision":1}',
        b'{"base":1e300,"revision":1}',
        b"[" * 100_000,
        b'{"revision":"\xff"}',
    ],
)
def test_nonsense_is_one_typed_error(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        messages.decode(body, messages.Push)


def test_a_long_message_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(LimitExceededError):
        messages.decode(b"[" * (messages.MAX_BODY + 1), messages.Push)


def test_a_batch_is_capped() -> None:
    raw = msgspec.json.encode({"base": None, "revision": 1, "put": [{}] * (messages.MAX_BATCH + 1)})
    with pytest.raises(InvalidInputError):
        messages.decode(raw, messages.Push)
