"""A node's conversation with its network: it joins, keeps it informed, recovers, and never trusts another key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from django.test import override_settings

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.core import clock, wake
from apps.core.database import in_database
from apps.network import actions, announcements, announcer, messages, outbound
from apps.network.identity import own_identity
from apps.network.models import Announcement, Membership, Node, State
from apps.network.signing import signer
from gridclient.wire.errors import AuthenticationError, ConflictError, ConnectionLostError, GridError
from tests.factories.network import acting_as, metadata, push_of
from tests.factories.people import make_user

pytestmark = pytest.mark.django_db(transaction=True)
URL = "https://grid.example"


@dataclass
class Grid:
    """The network, as the node reaches it: the real verbs, without the sockets."""

    name: str = "grid"
    down: bool = False
    calls: list[str] = field(default_factory=list)
    pushes: list[messages.Push] = field(default_factory=list)

    async def call(self, method: str, url: str, *, body: bytes = b"", headers: Any = None, **_: Any) -> outbound.Reply:
        path = urlsplit(url).path
        self.calls.append(path)
        if self.down:
            raise ConnectionLostError("grid.example cannot be reached.")
        with acting_as(self.name, "network", GRID_URL=URL):
            try:
                answer = await in_database(self.answer, method, path, urlsplit(url).query, body, headers)
            except GridError as error:
                text = {"error": {"code": error.code, "message": error.message, "details": {}}}
                return outbound.Reply(error.status, msgspec.json.encode(text))
        return outbound.Reply(200, msgspec.json.encode(answer))

    def answer(self, method: str, path: str, query: str, body: bytes, headers: Any) -> Any:
        if path == "/api/identity/":
            return own_identity(parse_qs(query)["challenge"][0])
        key = signer(method, path, body, headers, now=clock.now())
        if path == "/api/nodes/":
            node = actions.join(messages.decode(body, messages.Join), key=key, address="198.51.100.7", now=clock.now())
            return messages.Joined(id=node.id, state=State(node.state), reason=node.reason)
        self.pushes.append(messages.decode(body, messages.Push))
        return announcements.receive(self.pushes[-1], key=key, now=clock.now())


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Any:
    network = Grid()
    monkeypatch.setattr(outbound, "call", network.call)
    with override_settings(GRID_NETWORK_URL=URL, GRID_URL="https://ward.example"):
        yield network


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Any]]:
    """This node's listed datasets by revision; a test changes them."""
    datasets: dict[int, dict[str, Any]] = {1: metadata(1), 2: metadata(2)}

    def next_push(after: int | None) -> tuple[messages.Push, bool]:
        new = [revision for revision in sorted(datasets) if revision > (after or 0)][:1]
        push = push_of(*(datasets[r] for r in new), base=after, revision=new[-1] if new else after or 0)
        if after is None:
            push.keep = [messages.UUID(each["id"]) for each in datasets.values()]
        return push, bool(new)

    monkeypatch.setattr(announcer, "next_push", next_push)
    return datasets


def steps(*announcers: announcer.Announcer) -> list[float]:
    async def walk() -> list[float]:
        return [await each.step() for each in announcers]

    return asyncio.run(walk())


def let_in() -> User:
    operator = make_user("operator", "administrator")
    now = clock.now()
    Node.objects.update(state=State.APPROVED, joined=now, decided_at=now, decided_by=operator)
    return operator


def announced() -> set[str]:
    return {row.metadata["slug"] for row in Announcement.objects.all()}


def test_a_node_joins_waits_and_announces_once_it_is_let_in(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    pauses = steps(node, node, node)
    assert pauses == sorted(pauses) and pauses[-1] <= announcer.HEARTBEAT
    membership = Membership.objects.get()
    assert (membership.node_id, membership.state, announced()) == ("ward", State.PENDING, set())
    let_in()
    assert steps(node) == [announcer.HEARTBEAT]
    membership.refresh_from_db()
    assert announced() == {"births-1", "births-2"}
    assert (membership.state, membership.acked_revision) == (State.APPROVED, 2)
    assert AuditEvent.objects.filter(verb="network_pinned").count() == 1


def test_afterwards_only_changes_travel(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    steps(node), let_in(), steps(node)
    grid.pushes.clear()
    steps(node)
    assert [(push.base, push.revision, push.put) for push in grid.pushes] == [(2, 2, [])]
    listed[3] = metadata(3)
    steps(node)
    assert announced() == {"births-1", "births-2", "births-3"}


def test_a_restarted_node_begins_anew_and_leaves_nothing_stale(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    steps(node), let_in(), steps(node)
    del listed[1]
    steps(announcer.Announcer())
    assert announced() == {"births-2"}


def test_a_network_restored_from_a_backup_catches_up(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    steps(node), let_in(), steps(node)
    Announcement.objects.all().delete()
    Node.objects.update(revision=0)
    steps(node, node)
    assert announced() == {"births-1", "births-2"}


def test_a_network_that_forgot_the_node_is_asked_again(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    steps(node), let_in(), steps(node)
    Node.objects.all().delete()
    with pytest.raises(GridError):
        steps(node)
    steps(announcer.Announcer())
    assert Node.objects.get().state == State.PENDING


def test_a_removed_node_learns_it_and_stops_announcing(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    steps(node)
    operator = let_in()
    steps(node)
    actions.remove(Node.objects.get(), by=operator, reason="contract ended")
    steps(node)
    assert steps(node) == [announcer.PATIENCE]
    membership = Membership.objects.get()
    assert membership.state == State.REMOVED and "contract ended" in membership.problem


def test_a_taken_name_is_told_and_changes_nothing(grid: Grid, listed: dict[int, Any]) -> None:
    with acting_as("other") as key:
        actions.join(
            messages.Join(id="ward", name="Ward", url="https://other.example", public_key=key),
            key=key,
            address="198.51.100.8",
            now=clock.now(),
        )
    with pytest.raises(ConflictError, match="belongs to another key"):
        steps(announcer.Announcer())


def test_another_key_at_the_networks_address_freezes_the_membership(grid: Grid, listed: dict[int, Any]) -> None:
    node = announcer.Announcer()
    steps(node), let_in(), steps(node)
    grid.name = "usurper"
    with pytest.raises(AuthenticationError):
        steps(node)  # what was signed for the network is worth nothing to another
    node.greeted = False
    assert steps(node) == [announcer.PATIENCE]
    membership = Membership.objects.get()
    assert membership.frozen and Node.objects.count() == 1
    assert AuditEvent.objects.filter(verb="network_key_changed").count() == 1
    grid.pushes.clear()
    assert steps(node, announcer.Announcer()) == [announcer.PATIENCE] * 2
    assert not grid.pushes and AuditEvent.objects.filter(verb="network_key_changed").count() == 1


def test_the_task_lives_through_an_outage_and_hears_of_changes_at_once(
    grid: Grid, listed: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(announcer.Announcer()), let_in()
    monkeypatch.setattr(announcer, "LONGEST_BACK_OFF", 0.05)

    async def until(condition: Any) -> None:
        for _ in range(500):
            if await in_database(condition):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("It did not happen within ten seconds.")

    async def live() -> None:
        grid.down = True
        task = asyncio.create_task(announcer.run())
        await until(lambda: "cannot be reached" in Membership.objects.get().problem)
        grid.down = False
        await until(lambda: announced() == {"births-1", "births-2"})
        listed[3] = metadata(3)
        await in_database(wake.wake, "datasets")
        await until(lambda: "births-3" in announced())
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(live())
    assert Membership.objects.get().problem == ""


@pytest.mark.parametrize("change", [{"GRID_NETWORK_URL": ""}, {"GRID_ROLE": "network"}])
def test_without_a_network_there_is_nothing_to_do(change: dict[str, str]) -> None:
    with override_settings(**change):
        asyncio.run(announcer.run())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"{}"),
        (500, b""),
        (302, b""),
        (200, b'{"id":1}'),
        (200, b'{"id":"ward","state":"owner"}'),
        (403, b"[" * 100_000),
    ],
)
def test_a_network_that_talks_nonsense_is_one_typed_error(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    async def call(*_: Any, **__: Any) -> outbound.Reply:
        return outbound.Reply(status, body)

    monkeypatch.setattr(outbound, "call", call)
    with override_settings(GRID_NETWORK_URL=URL), pytest.raises(ConnectionLostError):
        steps(announcer.Announcer())
