"""Asks under a key, over sockets that are lost: one effect, and the reply that was lost with the socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from gridclient.wire import messages as m
from gridclient.wire.errors import ConflictError, InvalidInputError, NotFoundError
from tests.factories.plans import double
from tests.factories.raw import RawClient, rest
from tests.factories.staff import Staff, names

COLUMNS = [m.Column("a", low=0.0, high=50.0)]
VALUES = np.arange(12.0).reshape(12, 1)


@pytest.fixture(scope="module")
def dataset(staff: Staff, owner: str) -> dict[str, Any]:
    with staff.client(owner) as client:
        return client.publish(VALUES, name=next(names), columns=COLUMNS)


def twice(staff: Staff, who: str, ask: Callable[[RawClient], Any]) -> list[Any]:
    """The replies over two connections, the second of which knows nothing of the first."""
    replies = []
    for _ in range(2):
        with staff.client(who) as client:
            replies.append(ask(client))
    return replies


def at_once(staff: Staff, who: str, ask: Callable[[RawClient], Any]) -> list[Any]:
    """The replies over eight connections that ask at the same moment."""
    ready = Barrier(8)

    def run(_: int) -> Any:
        with staff.client(who) as client:
            ready.wait(60)
            return ask(client)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(run, range(8)))


def sum_of(client: RawClient, dataset: dict[str, Any], reason: str = "A study.", key: str = "") -> str:
    # Another number of nodes each time: what numbers a session gives its values is no part of what is asked.
    client.constant(np.ones(3))
    value = client.node("aten::sum", client.node("aten::neg", client.asset(dataset)))
    return client.request(value, reason, key)


def queue(staff: Staff, who: str) -> list[str]:
    return [row["id"] for row in staff.call(who, "GET", "requests/")["results"]]


def test_a_request_that_is_made_again_is_the_same_request(
    staff: Staff, scientist: str, dataset: dict[str, Any]
) -> None:
    before = queue(staff, scientist)
    first, second = twice(staff, scientist, lambda client: sum_of(client, dataset, key="request"))
    assert first == second and queue(staff, scientist) == [*before, first]
    assert [event["target"] for event in staff.events("request_submitted")].count(f"request:{first}") == 1
    with staff.client(scientist) as client:
        assert sum_of(client, dataset, key="another") != first
        for reason, key in (("Another study.", "request"), ("A study.", "re quest")):
            with pytest.raises((ConflictError, InvalidInputError)):
                sum_of(client, dataset, reason, key)
    assert len(queue(staff, scientist)) == len(before) + 2


def test_eight_connections_that_ask_at_once_make_one_request(
    staff: Staff, scientist: str, dataset: dict[str, Any]
) -> None:
    before = queue(staff, scientist)
    replies = at_once(staff, scientist, lambda client: sum_of(client, dataset, key="race"))
    assert replies == [replies[0]] * 8 and queue(staff, scientist) == [*before, replies[0]]


def test_a_key_of_somebody_else_tells_nothing(staff: Staff, scientist: str, dataset: dict[str, Any]) -> None:
    staff.hire(other := next(names), "scientist")
    with staff.client(scientist) as mine, staff.client(other) as theirs:
        first = sum_of(mine, dataset, key="shared")
        assert sum_of(theirs, dataset, key="shared") != first
        assert sum_of(theirs, dataset, key="") != sum_of(theirs, dataset, key="")


def test_a_decided_request_is_not_opened_again_by_a_late_repeat(
    staff: Staff, owner: str, scientist: str, dataset: dict[str, Any]
) -> None:
    with staff.client(scientist) as client:
        first = sum_of(client, dataset, key="late")
    staff.call(owner, "POST", f"requests/{first}/deny/", {"reason": "No."})
    with staff.client(scientist) as client:
        assert sum_of(client, dataset, key="late") == first
    assert staff.call(scientist, "GET", f"requests/{first}/")["state"] == "denied"


@pytest.mark.parametrize("together", [False, True], ids=["twice", "at once"])
def test_what_is_published_again_is_the_same_dataset(staff: Staff, owner: str, scientist: str, together: bool) -> None:
    name, mock = next(names), save({"values": VALUES + 0.5})

    def publish(client: RawClient) -> dict[str, Any]:
        spec = m.PublishSpec(kind="tensor", name=name, columns=COLUMNS, allowed_users=[scientist])
        made = [client.upload(save({"values": VALUES}), "values"), client.upload(mock, "mock")]
        return dict(client.ask(m.Publish(7, spec, *made, key=name)).dataset)

    replies = (at_once if together else twice)(staff, owner, publish)
    first = replies[0]
    assert replies == [first] * len(replies) and first["name"] == name
    assert [row["id"] for row in staff.call(owner, "GET", "datasets/")["results"] if name in row["name"]] == [
        first["id"]
    ]
    assert len(staff.call(owner, "GET", f"datasets/{first['slug']}/grants/")["results"]) == 1
    published = [event["target"] for event in staff.events("dataset_published")]
    assert published.count(f"dataset:{first['id']}@1") == 1


def test_a_new_version_is_made_once_and_other_values_under_its_key_are_refused(staff: Staff, owner: str) -> None:
    with staff.client(owner) as client:
        slug = client.publish(VALUES, name=next(names), columns=COLUMNS)["slug"]
    first, second = twice(
        staff, owner, lambda client: client.publish(VALUES + 1, key=slug, replace=slug, columns=COLUMNS)
    )
    assert first == second and first["version"] == 2
    with staff.client(owner) as client:
        with pytest.raises(ConflictError):
            client.publish(VALUES, key=slug, replace=slug, columns=COLUMNS)
        assert client.publish(VALUES, replace=slug, columns=COLUMNS)["version"] == 3


def test_a_publication_that_was_refused_may_be_put_right_under_its_key(staff: Staff, owner: str) -> None:
    name = next(names)
    with staff.client(owner) as client:
        with pytest.raises(InvalidInputError):
            client.publish(VALUES, key=name, name=name, columns=COLUMNS, allowed_users=["nobody-at-all"])
        assert client.publish(VALUES, key=name, name=name, columns=COLUMNS)["name"] == name


def test_a_plan_that_is_sent_again_does_not_come_back(staff: Staff, scientist: str) -> None:
    """The repeat of a first version must not replace the second, nor bring back what was deleted."""
    name = next(names)
    first, second = twice(staff, scientist, lambda client: client.keep_plan(double(name), key=name))
    assert first == second
    assert [event["verb"] for event in staff.events() if event["target"] == f"plan:{name}"] == ["plan_sent"]
    with staff.client(scientist) as client:
        assert client.keep_plan(double(name), allow_download=True)["allow_download"]
        assert client.keep_plan(double(name), key=name) == first
        assert staff.call(scientist, "GET", f"plans/{name}/")["allow_download"]
        with pytest.raises(ConflictError):
            client.keep_plan(double(name), key=name, allow_download=True)
        staff.call(scientist, "DELETE", f"plans/{name}/")
        assert client.keep_plan(double(name), key=name) == first
    with pytest.raises(AssertionError, match="404"):
        staff.call(scientist, "GET", f"plans/{name}/")


def test_one_key_is_one_ask_of_whatever_kind(staff: Staff, scientist: str, dataset: dict[str, Any]) -> None:
    key = next(names)
    with staff.client(scientist) as client:
        sum_of(client, dataset, key=key)
        with pytest.raises(ConflictError):
            client.keep_plan(double(key), key=key)
    call = rest(
        "DELETE",
        f"{staff.url}/api/plans/{key}/",
        token=staff.tokens[scientist],
        headers={"Idempotency-Key": key},
    )
    assert call[0] == 409


def test_a_key_stands_for_what_was_uploaded_not_in_its_place(staff: Staff, scientist: str) -> None:
    key = next(names)
    with staff.client(scientist) as client:
        client.keep_plan(double(key), key=key)
    with staff.client(scientist) as client, pytest.raises(NotFoundError):
        client.ask(m.Plan(1, 1, key=key))


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.1, 0.3])
def test_whose_connection_is_cut_at_any_moment_publishes_once(staff: Staff, owner: str, seconds: float) -> None:
    name = next(names)
    spec = m.PublishSpec(kind="tensor", name=name, columns=COLUMNS)
    with staff.client(owner) as client:
        client.send(m.Publish(1, spec, client.upload(save({"values": VALUES}), "values"), key=name))
        time.sleep(seconds)
    with staff.client(owner) as client:
        again = client.publish(VALUES, key=name, name=name, columns=COLUMNS)
    found = [row["id"] for row in staff.call(owner, "GET", "datasets/")["results"] if row["name"] == name]
    assert found == [again["id"]]
