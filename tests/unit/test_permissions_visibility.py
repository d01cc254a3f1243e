"""Who may know of a dataset: what someone may not see is absent for them, in every question."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test.utils import CaptureQueriesContext

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.datasets.models import Dataset
from apps.permissions import actions
from apps.permissions.policies import (
    can_grant,
    check_can_compute,
    check_can_grant,
    check_can_publish,
    rights_by_dataset,
    rights_on,
)
from apps.permissions.queries import datasets_owned_by, datasets_visible_to, facets, grants_visible_to, search, suggest
from gridclient.wire.errors import NotFoundError, NotPermittedError, PublishNotPermittedError
from tests.factories.people import People
from tests.factories.queue import publish

NOW = datetime(2026, 11, 1, tzinfo=UTC)
EVERYTHING = {"discover", "compute", "release", "aggregate", "train", "read"}


@pytest.fixture
def ward(people: People) -> dict[str, Dataset]:
    """One dataset of each visibility."""
    return {each: publish(people.owner, each, visibility=each) for each in ("listed", "accounts", "granted")}


@pytest.fixture
def dana(db: None) -> User:
    """Someone whom a network vouches for."""
    return accounts.federated_user(network_key="ab" * 16, user_id="7", display="dana@net", now=NOW)


def seen(user: User | None) -> set[str]:
    return set(datasets_visible_to(user).values_list("name", flat=True))


def found(user: User | None, *terms: str) -> list[str]:
    """What a search finds, newest first."""
    return [each.name for each in search(user, terms, limit=10).rows]


def test_each_person_sees_what_the_visibility_says(people: People, ward: dict[str, Dataset], dana: User) -> None:
    assert seen(people.owner) == seen(people.auditor) == {"listed", "accounts", "granted"}
    for person in (people.scientist, people.other_owner, people.reviewer, people.administrator, people.stranger):
        assert seen(person) == {"listed", "accounts"}
    assert seen(dana) == {"listed"} and seen(None) == set()
    assert set(datasets_owned_by(people.owner)) == set(ward.values()) and not datasets_owned_by(people.scientist)


def test_a_deactivated_account_sees_nothing(people: People, ward: dict[str, Dataset]) -> None:
    for person in (people.owner, people.auditor, people.scientist):
        accounts.deactivate(person, by=people.administrator)
        person.refresh_from_db()
        assert seen(person) == set() and rights_on(person, ward["listed"]) == frozenset()


def test_a_grant_makes_a_hidden_dataset_exist_until_it_ends(
    people: People, ward: dict[str, Dataset], dana: User
) -> None:
    for person in (people.scientist, dana):
        grant = actions.give(
            ward["granted"], to=person, right="discover", reason="Study 7", expires=NOW + timedelta(days=1),
            by=people.owner, now=NOW,
        )  # fmt: skip
        assert ward["granted"] in datasets_visible_to(person, now=NOW)
        assert ward["granted"] not in datasets_visible_to(person, now=NOW + timedelta(days=1))
        actions.revoke(grant, by=people.owner)
        assert ward["granted"] not in datasets_visible_to(person, now=NOW)


def test_a_team_sees_while_one_is_a_member(people: People, ward: dict[str, Dataset]) -> None:
    team = accounts.create_team(slug="study", name="Study", members=[people.scientist], by=people.administrator)
    actions.give(ward["granted"], to=team, right="compute", reason="Study 7", by=people.owner)
    actions.give(ward["granted"], to=people.scientist, right="compute", reason="Study 7", by=people.owner)
    assert [each.name for each in datasets_visible_to(people.scientist)].count("granted") == 1
    assert "granted" not in seen(people.stranger)
    actions.revoke(grants_visible_to(people.owner).get(user=people.scientist), by=people.owner)
    accounts.set_members(team, members=[], by=people.administrator)
    assert "granted" not in seen(people.scientist)


def test_an_approval_of_one_program_shows_no_dataset(people: People, ward: dict[str, Dataset]) -> None:
    actions.give_once(
        datasets=[ward["granted"]], user=people.scientist, program_hash="ab" * 32, request_id=ward["granted"].pk,
        by=people.owner,
    )  # fmt: skip
    assert "granted" not in seen(people.scientist) and rights_on(people.scientist, ward["granted"]) == frozenset()


def test_rights_include_what_they_need_and_read_includes_all(
    people: People, ward: dict[str, Dataset], dana: User
) -> None:
    assert rights_on(people.owner, ward["granted"]) == EVERYTHING
    assert rights_on(people.scientist, ward["listed"]) == {"discover", "compute"} == rights_on(dana, ward["listed"])
    assert rights_on(people.stranger, ward["listed"]) == {"discover"} == rights_on(people.auditor, ward["granted"])
    assert rights_on(people.scientist, ward["granted"]) == rights_on(dana, ward["accounts"]) == frozenset()
    seen = {"discover", "compute"}
    included = {"discover": {"discover"}, "compute": seen, "release": seen | {"release"},
                "aggregate": seen | {"aggregate"}, "train": seen | {"train"}, "read": EVERYTHING}  # fmt: skip
    for right, expected in included.items():
        grant = actions.give(ward["granted"], to=people.scientist, right=right, reason="Study 7", by=people.owner)
        assert rights_on(people.scientist, ward["granted"]) == expected
        actions.revoke(grant, by=people.owner)
    for right in ("release", "aggregate", "train"):
        actions.give(ward["granted"], to=people.scientist, right=right, reason="Study 7", by=people.owner)
    assert rights_on(people.scientist, ward["granted"]) == EVERYTHING - {"read"}


def test_an_owner_may_keep_a_listed_dataset_from_computation(people: People) -> None:
    shown = publish(people.owner, "shown", accounts_may_compute=False)
    assert rights_on(people.scientist, shown) == {"discover"}
    with pytest.raises(NotPermittedError, match="shown"):
        check_can_compute(people.scientist, shown)
    changed = actions.describe(shown, by=people.owner, accounts_may_compute=True)
    check_can_compute(people.scientist, changed)


def test_an_error_does_not_tell_a_forbidden_dataset_from_none(people: People, ward: dict[str, Dataset]) -> None:
    hidden = ward["granted"]
    for person in (people.scientist, people.stranger, people.administrator, people.other_owner):
        for check in (check_can_compute, check_can_grant):
            with pytest.raises(NotFoundError) as caught:
                check(person, hidden)
            assert hidden.slug not in caught.value.message and str(hidden.pk) not in caught.value.message
        assert not can_grant(person, hidden) and not can_grant(person, ward["listed"])
    with pytest.raises(NotPermittedError):
        check_can_grant(people.administrator, ward["listed"])
    check_can_grant(people.owner, hidden)


def test_search_finds_only_what_is_visible(people: People, ward: dict[str, Dataset], dana: User) -> None:
    assert found(people.owner, "#BIRTHS") == ["granted", "accounts", "listed"]
    assert found(people.scientist, "#births", "births") == ["accounts", "listed"]
    assert not found(people.scientist, "granted") and not found(None, "#births")
    assert found(dana) == ["listed"]


def test_counts_and_completions_are_as_if_hidden_datasets_were_not_there(people: People) -> None:
    publish(people.owner, "open", visibility="listed", tags=["#births"])
    before = told(people.scientist), told(people.stranger), told(None)
    for number in range(30):
        tags = ["#births", f"#bi-secret{number}", "#secret"]
        publish(people.owner, f"secret {number}", visibility="granted", tags=tags)
    assert (told(people.scientist), told(people.stranger), told(None)) == before
    assert before[0] == ((1, False, [("#births", 1)]), [("#births", 1)], [])
    counted, completed, words = told(people.owner)
    assert counted[0] == 31 and len(completed) == 10 and completed[0] == ("#births", 31) and ("secret", 30) in words


def told(user: User | None) -> tuple[object, ...]:
    """All that search tells beside its hits."""
    counts = facets(user, ["#births"])
    return (counts.counted, counts.more, counts.tags), suggest(user, "#bi", limit=10), suggest(user, "se", limit=50)


def test_pages_show_nothing_of_what_lies_between(people: People) -> None:
    for number in range(12):
        publish(people.owner, f"set {number}", visibility="granted" if number % 3 else "listed")
    first = search(people.scientist, [], limit=3)
    assert [each.name for each in first.rows] == ["set 9", "set 6", "set 3"] and first.next is not None
    rest = search(people.scientist, [], limit=3, after=first.rows[-1])
    assert [each.name for each in rest.rows] == ["set 0"] and rest.next is None


def test_a_list_costs_the_same_however_long_it_is(
    people: People, django_assert_num_queries: object, ward: dict[str, Dataset]
) -> None:
    from django.db import connection

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            rows = list(datasets_visible_to(people.scientist))
            rights = rights_by_dataset(people.scientist, rows)
            assert all(row.current.number == 1 and rights[row.pk] for row in rows)
        return len(queries)

    before = cost()
    for number in range(3):
        publish(people.owner, f"more {number}")
    assert cost() == before <= 7


def test_grants_are_seen_by_giver_receiver_and_auditor(people: People, ward: dict[str, Dataset]) -> None:
    grant = actions.give(ward["listed"], to=people.scientist, right="read", reason="Study 7", by=people.owner)
    for person in (people.owner, people.scientist, people.auditor):
        assert list(grants_visible_to(person)) == [grant]
    for person in (people.other_owner, people.reviewer, people.administrator, people.stranger):
        assert not grants_visible_to(person).exists()


def test_only_owners_publish_and_only_on_nodes(people: People, settings: object) -> None:
    check_can_publish(people.owner)
    for person in (people.scientist, people.reviewer, people.auditor, people.administrator, people.stranger):
        with pytest.raises(PublishNotPermittedError):
            check_can_publish(person)
    settings.GRID_ROLE = "network"  # type: ignore[attr-defined]
    with pytest.raises(PublishNotPermittedError, match="node"):
        check_can_publish(people.owner)
