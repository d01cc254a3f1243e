"""The network: what is found, by whom, with one sign-in; and that a bad node is nobody else's trouble."""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
import torch

import gridclient
from apps.core import clock
from apps.network.signing import sign_request
from gridclient.network import GridNetwork
from gridclient.node import Node
from tests.factories import processes
from tests.factories.crew import PASSWORD, Crew, crew_of, eventually, fresh, network_account, refused
from tests.factories.grid import LiveGrid
from tests.factories.network import acting_as, join_of, metadata, push_of
from tests.factories.raw import rest

ROWS = torch.arange(24, dtype=torch.float64).reshape(12, 2) / 3
WHY = "A question."


@pytest.fixture(scope="module")
def dana(grid: LiveGrid) -> Iterator[GridNetwork]:
    with network_account(grid) as network:
        yield network


@pytest.fixture(scope="module")
def operator(grid: LiveGrid) -> Iterator[GridNetwork]:
    place = grid.network
    with gridclient.connect_network(place.url, username=place.username, password=place.password) as network:
        yield network


@pytest.fixture(scope="module")
def guest(grid: LiveGrid) -> Iterator[GridNetwork]:
    with gridclient.connect_network(grid.network.url) as network:
        yield network


@pytest.fixture(scope="module")
def company(grid: LiveGrid) -> Iterator[Crew]:
    with crew_of(grid.company) as crew:
        yield crew


def publish(owner: Node, *tags: str, describe: str = "Births.", **declared: Any) -> str:
    """Publish the rows; the dataset's name."""
    given: dict[str, Any] = {
        "name": fresh("found"),
        "bounds": ([0, 0], [9, 9]),
        "columns": ["a", "b"],
        **declared,
    }
    return str(gridclient.private_tensor(ROWS, **given).tag(*tags).describe(describe).send(owner).dataset)


def names(found: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {node: [pointer.dataset for pointer in pointers] for node, pointers in found.items()}


def wait_for(network: GridNetwork, *terms: str, nodes: int = 1) -> dict[str, list[Any]]:
    """What is found, once it has been announced."""
    found = eventually(lambda: network.search(*terms) if len(network.search(*terms)) >= nodes else None)
    assert found, terms
    return found


def test_every_term_must_match_a_tag_or_a_whole_word(owner: Node, guest: GridNetwork) -> None:
    word = fresh("word").replace("-", "")
    name = publish(owner, f"#Tag-{word}", "#Births", describe=f"Weights of {word.upper()}, in kilogram.")
    expected = {"hospital": [name]}
    assert names(wait_for(guest, f"#tag-{word}")) == expected
    for terms in ([f"#TAG-{word}"], [word], [word.title(), "#births"], [f"tag-{word}", "kilogram"],
                  [name, "WEIGHTS"], [f"#tag-{word}", "#births", word]):  # fmt: skip
        assert names(guest.search(*terms)) == expected, terms
    for terms in ([f"#{word}"], [word[:-1]], [word, "#kilogram"], [word, "absent"], [f"#tag-{word}", "#absent"]):
        assert guest.search(*terms) == {}, terms
    # A node's own search reads the same words in the same way.
    assert [pointer.dataset for pointer in owner.search(word.upper(), "#BIRTHS")] == [name]
    assert owner.search(f"#{word}") == []
    (pointer,) = guest.search(word)["hospital"]
    assert pointer.tags == [f"#Tag-{word}", "#Births"]
    assert (pointer.columns, tuple(pointer.shape), pointer.dtype) == (["a", "b"], (12, 2), torch.float64)


def test_search_groups_by_node_newest_first(owner: Node, company: Crew, guest: GridNetwork) -> None:
    tag = f"#{fresh('both')}"
    other = company.hire("owner")
    first, second = publish(owner, tag), publish(owner, tag)
    third = publish(other, tag)
    found = eventually(lambda: names(guest.search(tag)) if sum(map(len, guest.search(tag).values())) == 3 else None)
    assert found == {"hospital": [second, first], "company": [third]}


def test_a_search_tells_of_more_and_how_to_narrow_it(owner: Node, scientist: Node, guest: GridNetwork) -> None:
    word = fresh("many").replace("-", "")
    made = [publish(owner, f"#{word}", f"#{word}-{'even' if number % 2 else 'odd'}") for number in range(3)]
    assert eventually(lambda: sum(map(len, guest.search(word).values())) == 3)
    few = guest.search(word, limit=2)
    assert few.more and names(few) == {"hospital": [made[2], made[1]]} and "2 of more than 2" in repr(few)
    assert not guest.search(word).more and not guest.search(word, limit=None).more
    assert [each.name for each in guest.iter_datasets(word)] == made[::-1]
    hidden = publish(owner, f"#{word}", f"#{word}-hidden", visibility="granted")
    everybodys = {f"#{word}": 3, f"#{word}-odd": 2, f"#{word}-even": 1}
    for place in (guest, scientist):
        facets = place.facets(f"#{word}")
        assert (facets.counted, facets.more, facets.total, facets.tags) == (3, False, "3", everybodys)
        assert place.suggest(f"#{word.upper()}") == everybodys and place.suggest(f"#{word}-", limit=1) == {
            f"#{word}-odd": 2
        }
        assert place.suggest(word[:-1])[word] == 3 and f"#{word}-odd" in repr(facets)
    assert guest.facets(word).nodes == {"hospital": 3}
    assert owner.suggest(f"#{word}-h") == {f"#{word}-hidden": 1} and owner.search(word)[0].dataset == hidden
    assert owner.datasets(word, limit=1).more and not scientist.datasets(word, limit=3).more
    for problem in (lambda: guest.suggest("two words"), lambda: scientist.facets("#")):
        with pytest.raises(gridclient.InvalidInputError):
            problem()


def test_guest_computes_with_a_connection_of_hers(crew: Crew, owner: Node, scientist: Node, grid: LiveGrid) -> None:
    tag = f"#{fresh('guest')}"
    publish(owner, tag, allowed_users=[scientist.user])
    with gridclient.connect_network(grid.network.url) as network:
        assert network.user is None
        (pointer,) = wait_for(network, tag)["hospital"]
        total = pointer.sum(0)
        with pytest.raises(gridclient.AuthenticationError, match=r"several connections.*network\.attach\(node\)"):
            total.get()
        network.attach(scientist)
        (mine,) = network.search(tag)["hospital"]
        assert mine.location is scientist
        assert torch.equal(mine.sum(0).get(), ROWS.sum(0))
        assert torch.equal(mine.mock, owner.search(tag)[0].mock)
        with pytest.raises(gridclient.AuthenticationError, match="Sign in first"):
            network.users()


def test_one_sign_in_opens_every_node_with_the_least_rights(owner: Node, company: Crew, dana: GridNetwork) -> None:
    tag = f"#{fresh('dana')}"
    other = company.hire("owner")
    publish(owner, tag)
    publish(other, tag)
    found = wait_for(dana, tag, nodes=2)
    for node, pointers in found.items():
        (pointer,) = pointers
        assert pointer.mock.shape == (12, 2)
        place = pointer.location
        assert (place.id, place.user) == (node, f"{dana.user}@network")
        assert place.dataset(pointer.dataset).rights == ["compute", "discover"]
        assert place.rights == ("compute.use",)
        for value in (pointer, pointer.sum(0), pointer.count()):
            refused(value.get)
        with pytest.raises(gridclient.PublishNotPermittedError):
            gridclient.private_tensor(ROWS).send(place)
        with pytest.raises(gridclient.NotPermittedError):
            place.create_user(fresh("eve"), password=PASSWORD)
    for person, node in ((owner, "hospital"), (other, "company")):
        pointer = found[node][0]
        person.dataset(pointer.dataset).grant(f"{dana.user}@network", "aggregate", reason=WHY)
        assert torch.equal(pointer.sum(0).get(), ROWS.sum(0))
        refused(pointer.get)
    with pytest.raises(gridclient.DifferentNodesError):
        found["hospital"][0] + found["company"][0]
    request = found["hospital"][0][0].request(WHY)
    (asked,) = [entry for entry in owner.requests() if entry.id == request.id]
    asked.approve(reason="One row.")
    assert torch.equal(request.wait(timeout=30).get(), ROWS[0])
    with pytest.raises(gridclient.InvalidInputError, match="signed in"):
        dana.attach(owner)


def test_dataset_that_is_not_listed_is_known_to_its_node_only(
    owner: Node, scientist: Node, dana: GridNetwork, guest: GridNetwork
) -> None:
    tag = f"#{fresh('hidden')}"
    hidden = {visibility: publish(owner, tag, visibility=visibility) for visibility in ("accounts", "granted")}
    listed = publish(owner, tag)
    # Announced in order: what was to be announced before is here too.
    assert names(wait_for(dana, tag)) == {"hospital": [listed]}
    assert names(guest.search(tag)) == {"hospital": [listed]}
    (pointer,) = dana.search(tag)["hospital"]
    place = pointer.location
    assert [dataset.name for dataset in place.datasets() if tag in dataset.tags] == [listed]
    for name in hidden.values():
        with pytest.raises(gridclient.NotFoundError):
            place.dataset(name)
    # A grant shows it on the node, and the network still knows nothing of it.
    owner.dataset(hidden["granted"]).grant(place.user, "read", reason=WHY)
    assert torch.equal(place.dataset(hidden["granted"]).pointer().get(), ROWS)
    owner.dataset(listed).describe(visibility="accounts")
    assert eventually(lambda: dana.search(tag) == {})
    assert scientist.dataset(listed).name == listed


def test_new_words_and_versions_are_announced(owner: Node, guest: GridNetwork) -> None:
    old, new = f"#{fresh('old')}", f"#{fresh('new')}"
    name = publish(owner, old)
    assert names(wait_for(guest, old)) == {"hospital": [name]}
    dataset = owner.dataset(name).describe("Lengths.", tags=[new])
    assert names(wait_for(guest, new, "lengths")) == {"hospital": [name]}
    assert guest.search(old) == {}
    dataset.replace(ROWS[:11])
    assert eventually(lambda: [tuple(pointer.shape) for pointer in guest.search(new)["hospital"]] == [(11, 2)])


def test_leaving_the_network_ends_what_came_from_it(grid: LiveGrid, owner: Node) -> None:
    tag = f"#{fresh('left')}"
    publish(owner, tag)
    with network_account(grid) as network:
        (pointer,) = wait_for(network, tag)["hospital"]
        refused(pointer.get)
    with pytest.raises(gridclient.ConnectionLostError, match="closed"):
        pointer.get()
    with pytest.raises(gridclient.ConnectionLostError, match="closed"):
        network.search(tag)


# --- nodes that misbehave -----------------------------------------------------------------------------------------


def median_search(network: GridNetwork, term: str, times: int = 15) -> float:
    """Seconds of a search, in the middle of some."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        network.search(term)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """A server that takes connections and says nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def say(grid: LiveGrid, who: str, path: str, message: Any) -> tuple[int, Any]:
    """A signed message of a node that this test plays."""
    audience = rest("GET", f"{grid.network.url}/api/identity/")[1]["public_key"]
    # As `rest` will write it: the signature covers the bytes.
    body = json.loads(msgspec.json.encode(message))
    with acting_as(who):
        headers = sign_request("POST", path, json.dumps(body).encode(), audience=audience, now=clock.now())
    return rest("POST", grid.network.url + path, body, headers=headers)


def refuse(grid: LiveGrid, message: Any) -> None:
    """Send an announcement three times; it must be refused each time."""
    for _ in range(3):
        # Where it is refused before it was read, the connection may end under the sender.
        with suppress(OSError):
            status, _ = say(grid, "huge", "/api/announcements/", message)
            assert status >= 400


def in_background(action: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    """Start it; what it raised is in the list once the thread has ended."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_node_that_hangs_slows_no_search_and_hinders_no_other_node(
    grid: LiveGrid, owner: Node, company: Crew, dana: GridNetwork, guest: GridNetwork, operator: GridNetwork
) -> None:
    tag = f"#{fresh('slow')}"
    other = company.hire("owner")
    publish(owner, tag)
    publish(other, tag)
    wait_for(dana, tag, nodes=2)
    before = median_search(guest, tag)
    # It asks in another node's name, so that the operator's approval has to wait for who hangs.
    status, _ = say(grid, "liar", "/api/nodes/", join_of("liar", grid.company.url))
    assert status == 200
    with hanging(processes.server(grid.folder / "company")):
        approving, raised = in_background(lambda: operator.approve_node("liar"))
        found = guest.search(tag)
        assert set(found) == {"hospital", "company"}
        during = median_search(guest, tag)
        assert approving.is_alive()
        # Its datasets are still shown; those of other nodes work.
        pointer = dana.search(tag)["hospital"][0]
        assert pointer.mock.shape == (12, 2)
        assert during < max(10 * before, 0.5)
    approving.join(20)
    assert isinstance(raised[0], gridclient.ConflictError)
    assert "another key" in str(raised[0])
    assert [member.state for member in operator.nodes() if member.id == "liar"] == ["pending"]
    assert operator.reject_node("liar", "It holds another key.").state == "rejected"
    assert dana.search(tag)["company"][0].mock.shape == (12, 2)


def test_node_cannot_announce_in_another_name_nor_before_it_is_let_in(
    grid: LiveGrid, owner: Node, guest: GridNetwork, operator: GridNetwork
) -> None:
    tag = f"#{fresh('forged')}"
    forged = metadata(1, tags=[tag], name="Forged")
    status, answer = say(grid, "impostor", "/api/nodes/", join_of("hospital", grid.hospital.url))
    # `join_of` signs as "hospital"; the sender's key is another one.
    assert (status, answer["error"]["code"]) == (401, "authentication")
    with acting_as("impostor") as key:
        pass
    status, answer = say(grid, "impostor", "/api/nodes/", join_of("hospital", grid.hospital.url, key=key))
    assert (status, answer["error"]["code"]) == (409, "conflict")
    assert say(grid, "impostor", "/api/announcements/", push_of(forged))[0] == 404
    assert say(grid, "waiting", "/api/nodes/", join_of("waiting", grid.hospital.url))[0] == 200
    status, receipt = say(grid, "waiting", "/api/announcements/", push_of(forged))
    assert (status, receipt["state"]) == (200, "pending")
    publish(owner, f"#{fresh('honest')}")
    assert guest.search(tag) == {}
    assert guest.search("forged", tag) == {}
    operator.reject_node("waiting", "Nobody knows it.")


def test_huge_announcement_is_refused_and_searches_go_on(grid: LiveGrid, owner: Node, guest: GridNetwork) -> None:
    tag = f"#{fresh('huge')}"
    publish(owner, tag)
    wait_for(guest, tag)
    before = median_search(guest, tag)
    huge = push_of(*[metadata(number, description="x" * 9000) for number in range(99)] * 6)
    sending, raised = in_background(lambda: refuse(grid, huge))
    during = median_search(guest, tag)
    sending.join(30)
    assert not sending.is_alive()
    assert not raised
    assert during < max(10 * before, 0.5)
    assert set(guest.search(tag)) == {"hospital"}
