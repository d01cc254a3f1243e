"""Rights on a live node: what each step of the ladder gives, on which columns, to whom, and until when."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import gridclient
from gridclient.datasets import Dataset
from gridclient.node import Node
from tests.factories.crew import Crew, fresh, refused, sent

WHY = "A question."
ROWS = torch.arange(36, dtype=torch.float64).reshape(12, 3) / 4
COLUMNS = ["a", "b", "c"]
BOUNDS = {"a": (0, 10), "b": (0, 10)}  # "c" has none


def publish(owner: Node, rows: torch.Tensor = ROWS, **declared: Any) -> Dataset:
    given: dict[str, Any] = {"name": fresh("rights"), "bounds": BOUNDS, "columns": COLUMNS, **declared}
    return owner.dataset(gridclient.private_tensor(rows, **given).send(owner).dataset)


def publish_table(owner: Node, **declared: Any) -> Dataset:
    frame = pd.DataFrame(ROWS.numpy(), columns=COLUMNS)
    given: dict[str, Any] = {"name": fresh("rights"), "bounds": BOUNDS, **declared}
    return owner.dataset(gridclient.private_table(frame, **given).send(owner).dataset)


def seen(person: Node, dataset: Dataset) -> Any:
    """A pointer to it as this person finds it."""
    return person.dataset(dataset.name).pointer()


def test_discover_shows_what_is_public_and_computes_nothing(owner: Node, scientist: Node) -> None:
    dataset = publish(owner, visibility="granted")
    dataset.grant(scientist.user, "discover", reason=WHY)
    found = scientist.dataset(dataset.name)
    assert (found.rights, found.columns, found.shape) == (["discover"], COLUMNS, (12, 3))
    with pytest.raises(gridclient.NotPermittedError, match="owner can grant you 'compute'"):
        found.pointer().sum(0).get()
    with pytest.raises(gridclient.NotPermittedError):
        found.pointer().sum(0).request(WHY)


def test_listed_dataset_may_be_closed_to_programs(owner: Node, scientist: Node) -> None:
    dataset = publish(owner, accounts_may_compute=False)
    assert scientist.dataset(dataset.name).rights == ["discover"]
    with pytest.raises(gridclient.NotPermittedError, match="compute"):
        seen(scientist, dataset).sum(0).get()
    dataset.describe(accounts_may_compute=True)
    assert "compute" in scientist.dataset(dataset.name).rights


def test_compute_takes_nothing_but_may_ask(owner: Node, scientist: Node) -> None:
    dataset = publish(owner, visibility="granted")
    dataset.grant(scientist.user, "compute", reason=WHY)
    assert set(scientist.dataset(dataset.name).rights) == {"discover", "compute"}
    pointer = seen(scientist, dataset)
    for value in (pointer, pointer[0], pointer.sum(0), pointer.count(), pointer.max()):
        refused(value.get)
    assert pointer.sum(0).request(WHY).state == "submitted"
    assert (pointer.mock * 2).shape == (12, 3)


def test_aggregate_gives_sums_of_its_columns_and_nothing_else(owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    dataset.grant(scientist.user, "aggregate", columns=["a"], reason=WHY)
    pointer = seen(scientist, dataset)
    assert torch.equal(pointer[:, 0].sum().get(), ROWS[:, 0].sum())
    assert torch.equal(pointer[:, 0].mean().get(), ROWS[:, 0].mean())
    assert pointer.count().get() == 12
    a = pointer[:, 0]
    for value in (pointer[:, 1].sum(), pointer.sum(0), pointer[:, :2].mean(0)):
        refused(value.get)
    for value in (a, a.max(), a[:11].sum(), (a * 2).sum(), (a > 1).sum(), a.std(), a.sum() + 1, a.sum() - a.mean()):
        refused(value.get)
    dataset.grant(scientist.user, "aggregate", columns=["b"], reason=WHY)
    # Two grants cover together what each covers alone.
    assert torch.equal(pointer[:, :2].sum(0).get(), ROWS[:, :2].sum(0))


def patients(rows: int = 60) -> pd.DataFrame:
    numbers = torch.Generator().manual_seed(rows)
    return pd.DataFrame(
        {
            "age": torch.randint(20, 80, (rows,), generator=numbers).double().numpy(),
            "weight": (torch.rand(rows, generator=numbers, dtype=torch.float64) * 60 + 40).numpy(),
            "ward": [["north", "south"][place % 2] for place in range(rows)],
            "smoker": [place % 3 == 0 for place in range(rows)],
            "rare": [place == 7 for place in range(rows)],
        }
    )


def test_aggregate_gives_the_whole_closed_set_of_a_table(owner: Node, scientist: Node) -> None:
    frame = patients()
    table = gridclient.private_table(
        frame,
        name=fresh("patients"),
        bounds={"age": (20, 80), "weight": (40, 100)},
        categories={"ward": ["north", "south"]},
        edges={"age": [20, 40, 60, 80]},
        partitions=["ward", "smoker", "rare"],
    )
    dataset = owner.dataset(table.send(owner).dataset)
    dataset.grant(scientist.user, "aggregate", reason=WHY)
    t = seen(scientist, dataset)
    by_ward = frame.groupby("ward")

    def close(pointer: Any, expected: Any) -> None:
        got = pointer.get()
        assert pointer.shape == got.shape and pointer.dtype == got.dtype
        torch.testing.assert_close(got.double(), torch.tensor(np.asarray(expected).tolist()).double())

    aggregate = gridclient.aggregate
    close(aggregate(t, "mean", ["age", "weight"], by="ward"), by_ward[["age", "weight"]].mean().to_numpy())
    close(aggregate(t, "variance", "weight"), frame["weight"].var())
    close(t["weight"].var(), frame["weight"].var())
    close(aggregate(t, "count", by="smoker"), [40, 20])
    close(
        aggregate(t, "histogram", "age"),
        pd.cut(frame["age"], [20, 40, 60, 80.1], right=False).value_counts(sort=False).to_numpy(),
    )
    both = frame[["age", "weight"]].to_numpy()
    close(t[["age", "weight"]].T @ t[["age", "weight"]], both.T @ both)
    refused(aggregate(t, "sum", "weight", by="rare").get)
    refused(aggregate(t, "mean", "rare").get)
    with pytest.raises(gridclient.InvalidInputError, match="partition"):
        aggregate(t, "sum", "age", by="weight")
    with pytest.raises(gridclient.InvalidInputError, match="edges"):
        aggregate(t, "histogram", "weight")


def test_columns_without_bounds_have_no_aggregate(owner: Node, scientist: Node) -> None:
    for dataset in (publish(owner), publish_table(owner)):
        dataset.grant(scientist.user, "aggregate", reason=WHY)
        pointer = seen(scientist, dataset)
        column = pointer["c"] if dataset.kind == "table" else pointer[:, 2]
        error = refused(column.sum().get)
        assert "declared bounds" in str(error)
        fine = pointer["a"] if dataset.kind == "table" else pointer[:, 0]
        assert torch.equal(fine.sum().get(), ROWS[:, 0].sum())


def test_read_on_some_columns_is_read_of_these(owner: Node, scientist: Node) -> None:
    dataset = publish_table(owner)
    dataset.grant(scientist.user, "read", columns=["a"], reason=WHY)
    t = seen(scientist, dataset)
    assert torch.equal(t["a"].get(), ROWS[:, 0])
    assert torch.equal((t["a"] * 3).exp().get(), (ROWS[:, 0] * 3).exp())
    for value in (t["b"], t[["a", "b"]], t, t["a"] + t["b"], t["b"].sum()):
        refused(value.get)
    dataset.grant(scientist.user, "read", columns=["b"], reason=WHY)
    assert torch.equal(t[["a", "b"]].get(), ROWS[:, :2])
    refused(t.get)
    dataset.grant(scientist.user, "read", columns=["c"], reason=WHY)
    assert t.get().column_names == COLUMNS


def test_read_on_some_columns_of_a_tensor_is_read_of_these(owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    dataset.grant(scientist.user, "read", columns=["a", "b"], reason=WHY)
    pointer = seen(scientist, dataset)
    assert torch.equal(pointer[:, 1].get(), ROWS[:, 1])
    assert torch.equal(pointer[:, :2].get(), ROWS[:, :2])
    for value in (pointer, pointer[:, 2], pointer[:, 1:], pointer.sum(0), pointer[0], pointer.t()[2]):
        refused(value.get)


def test_team_has_the_right_for_as_long_as_one_is_in_it(crew: Crew, owner: Node) -> None:
    ana, bob, team = crew.hire("scientist"), crew.hire("scientist"), fresh("team")
    crew.admin.create_team(team, members=[ana.user])
    dataset = publish(owner, visibility="granted")
    grant = dataset.grant(f"team:{team}", "read", reason=WHY)
    assert (grant.to, grant.right) == (f"team:{team}", "read")
    pointer = seen(ana, dataset)
    assert torch.equal(pointer.get(), ROWS)
    with pytest.raises(gridclient.NotFoundError):
        seen(bob, dataset)
    crew.admin.set_members(team, [bob.user])
    with pytest.raises(gridclient.GridError) as gone:
        pointer.get()
    assert gone.value.status in (403, 404)
    assert torch.equal(seen(bob, dataset).get(), ROWS)


def test_grant_ends_when_it_expires_and_when_it_is_revoked(owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    grant = dataset.grant(scientist.user, "aggregate", expires="2099-01-31", reason=WHY)
    pointer = seen(scientist, dataset)
    assert pointer.count().get() == 12
    expires = datetime.now(UTC) + timedelta(seconds=2)
    dataset.grant(scientist.user, "read", expires=expires, reason=WHY)
    assert torch.equal(pointer.get(), ROWS)
    while datetime.now(UTC) <= expires:
        time.sleep(0.05)
    refused(pointer.get)
    assert scientist.dataset(dataset.name).rights[-1:] != ["read"]
    assert torch.equal(pointer[:, 0].sum().get(), ROWS[:, 0].sum())
    dataset.revoke(grant)
    # Also what was answered before.
    refused(pointer[:, 0].sum().get)
    assert [entry.right for entry in dataset.grants(revoked=True) if entry.id == grant.id] == ["aggregate"]
    with pytest.raises(gridclient.ConflictError):
        dataset.revoke(grant)


def test_dataset_taken_away_is_gone_from_open_sessions_and_nothing_else_is(owner: Node, scientist: Node) -> None:
    taken, kept = publish(owner), publish(owner)
    mock, other = seen(scientist, taken).mock, seen(scientist, kept)
    constant = sent(torch.ones(2), scientist)
    remote: Any = scientist.recorder.input_asset(taken.id, 1, taken.shape, torch.float64, "mock")
    assert torch.equal((remote + 1).get(), mock + 1)
    taken.describe(visibility="granted")
    with pytest.raises(gridclient.NotFoundError):
        (remote + 2).get()
    assert torch.equal((constant + 1).get(), torch.full((2,), 2.0))
    assert other.mock.shape == (12, 3)
    refused(other.sum(0).get)


@pytest.mark.parametrize("grant", [{"right": "write"}, {"expires": "2001-01-01"}, {"reason": " "}, {"columns": ["z"]},
                                   {"columns": []}, {"to": "team:nobody"}, {"to": "nobody"}])  # fmt: skip
def test_grant_that_means_nothing_is_refused(owner: Node, scientist: Node, grant: dict[str, Any]) -> None:
    dataset = publish(owner)
    given: dict[str, Any] = {"to": scientist.user, "right": "read", "reason": WHY, **grant}
    with pytest.raises(gridclient.InvalidInputError):
        dataset.grant(given.pop("to"), given.pop("right"), **given)
    assert not [entry for entry in dataset.grants() if entry.to == scientist.user]


def test_nobody_but_the_owner_gives_rights(crew: Crew, owner: Node, scientist: Node, reviewer: Node) -> None:
    dataset, other = publish(owner), crew.hire("owner")
    for person in (scientist, reviewer, other, crew.admin):
        with pytest.raises(gridclient.NotPermittedError, match="owner"):
            person.dataset(dataset.name).grant(person.user, "read", reason=WHY)
        refused(seen(person, dataset).get)
    with pytest.raises(gridclient.NotPermittedError):
        other.dataset(dataset.name).describe("Mine now.")
    assert dataset.describe("New words.").description == "New words."
    assert scientist.dataset(dataset.name).description == "New words."


@pytest.mark.parametrize(("people", "released"), [(9, False), (10, True)])
def test_ten_people_make_an_aggregate(owner: Node, scientist: Node, people: int, released: bool) -> None:
    # Rows of nobody else: but for two people they would be those of other tests.
    rows = ROWS[:people] + people / 128
    dataset = publish(owner, rows)
    dataset.grant(scientist.user, "aggregate", reason=WHY)
    pointer = seen(scientist, dataset)
    for value, clear in ((pointer[:, 0].sum(), rows[:, 0].sum()), (pointer.count(), torch.tensor(people))):
        if released:
            assert torch.equal(value.get(), clear)
        else:
            assert "enough people behind each number" in str(refused(value.get))
    # Who may read may take sums over any number of people.
    dataset.grant(scientist.user, "read", reason=WHY)
    assert torch.equal(pointer[:, 0].sum().get(), rows[:, 0].sum())


def test_private_number_of_people_is_not_told_by_the_refusal(owner: Node, scientist: Node) -> None:
    texts = set()
    for people in (3, 9):
        dataset = publish(owner, ROWS[:people], max_rows=20)
        dataset.grant(scientist.user, "aggregate", reason=WHY)
        texts.add(str(refused(seen(scientist, dataset).count().get)))
    assert len(texts) == 1
    assert "3" not in texts.pop().replace("10", "")


def test_refusal_says_what_is_possible_and_carries_the_request(owner: Node, scientist: Node) -> None:
    dataset = publish(owner)
    pointer = seen(scientist, dataset)
    error = refused(pointer.get)
    for word in ("'read' grant", "'aggregate' grant", ".request(reason=...)"):
        assert word in str(error)
    assert error.code == "get_not_permitted"
    assert len(error.details["possible"]) == 3
    with pytest.raises(gridclient.InvalidInputError, match="reason"):
        error.request("  ")
    request = error.request("A report.")
    assert (request.state, request.reason, request.requester) == ("submitted", "A report.", scientist.user)
    assert dataset.name in request.words
