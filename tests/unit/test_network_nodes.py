"""Joining a network: the operator decides, a name belongs to a key, and an address must hold the key that asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import override_settings

from apps.audit.models import AuditEvent
from apps.network import actions, messages
from apps.network.models import NEXT, Node, State
from apps.network.queries import nodes_visible_to
from gridclient.wire.errors import (
    AuthenticationError,
    ConflictError,
    ConnectionLostError,
    GridError,
    InvalidInputError,
    LimitExceededError,
    NotPermittedError,
)
from tests.factories.network import NOW, acting_as, join_of, member, metadata, push_of
from tests.factories.people import People, make_user

pytestmark = pytest.mark.django_db


def ask(wanted: messages.Join, *, address: str = "198.51.100.7", **later: float) -> Node:
    return actions.join(wanted, key=wanted.public_key, address=address, now=NOW + timedelta(**later))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`answering(name)`: whoever is called holds the key of `name`."""

    def set_key(name: str) -> None:
        with acting_as(name) as key:
            pass

        async def ask_identity(url: str, *, role: str) -> messages.Identity:
            assert role == "node"
            return messages.Identity("node", name, name, 1, 1, key, "")

        monkeypatch.setattr(actions, "ask_identity", ask_identity)

    return set_key


def verbs() -> list[str]:
    return list(AuditEvent.objects.order_by("seq").filter(verb__startswith="node_").values_list("verb", flat=True))


def test_a_node_waits_until_the_operator_lets_it_in(people: People, answering: Callable[[str], None]) -> None:
    node = ask(join_of("hospital"))
    assert node.state == State.PENDING
    answering("hospital")
    node = actions.approve(node, by=people.administrator, reason="known", now=NOW)
    node.refresh_from_db()
    assert (node.state, node.decided_by, node.joined) == (State.APPROVED, people.administrator, NOW)
    assert verbs() == ["node_joined", "node_approved"]


def test_asking_again_is_harmless(people: People) -> None:
    first = ask(join_of("hospital"))
    assert ask(join_of("hospital"), seconds=5).pk == first.pk
    assert verbs() == ["node_joined"]


@pytest.mark.parametrize("state", [State.PENDING, State.APPROVED, State.REMOVED])
def test_nobody_else_joins_as_hospital(people: People, state: State) -> None:
    real = member("hospital", people.administrator)
    if state == State.PENDING:
        Node.objects.filter(pk=real.pk).update(state=state, decided_at=None, decided_by=None)
    else:
        Node.objects.filter(pk=real.pk).update(state=state)
    with acting_as("impostor") as key:
        pass
    with pytest.raises(ConflictError, match="belongs to another key"):
        ask(join_of("hospital", key=key))
    real.refresh_from_db()
    assert real.public_key != key and real.state == state


def test_a_rejected_squatter_does_not_keep_the_name(people: People) -> None:
    with acting_as("impostor") as key:
        pass
    actions.reject(ask(join_of("hospital", key=key)), by=people.administrator, reason="not the hospital")
    assert ask(join_of("hospital")).public_key != key


def test_a_member_cannot_take_a_second_name(people: People) -> None:
    with acting_as("hospital") as key:
        pass
    member("hospital", people.administrator)
    with pytest.raises(ConflictError, match="stands for the id 'hospital'"):
        ask(join_of("company", key=key))


def test_a_request_for_another_key_is_refused() -> None:
    wanted = join_of("hospital")
    with acting_as("impostor") as key, pytest.raises(AuthenticationError):
        actions.join(wanted, key=key, address="198.51.100.7", now=NOW)


def test_an_address_that_holds_another_key_is_not_let_in(people: People, answering: Callable[[str], None]) -> None:
    node = ask(join_of("impostor", url="https://hospital.example"))
    answering("hospital")
    with pytest.raises(ConflictError, match="another key"):
        actions.approve(node, by=people.administrator)
    node.refresh_from_db()
    assert node.state == State.PENDING and verbs() == ["node_joined"]


def test_the_operator_hears_of_a_node_that_hangs(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(url: str, *, role: str) -> messages.Identity:
        raise ConnectionLostError("hospital.example did not answer within 10 seconds.")

    node = ask(join_of("hospital"))
    monkeypatch.setattr(actions, "ask_identity", hang)
    with pytest.raises(ConnectionLostError, match="did not answer"):
        actions.approve(node, by=people.administrator)
    node.refresh_from_db()
    assert node.state == State.PENDING


def test_approval_does_not_call_addresses_inside(people: People) -> None:
    node = ask(join_of("hospital", url="https://169.254.169.254"))
    with pytest.raises(InvalidInputError, match="GRID_OUTBOUND_ALLOW"):
        actions.approve(node, by=people.administrator)


@pytest.mark.django_db(transaction=True)
def test_the_database_is_not_held_while_a_node_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    administrator = make_user("admin", "administrator")
    node, held = ask(join_of("hospital")), []

    async def ask_identity(url: str, *, role: str) -> messages.Identity:
        return messages.Identity("node", "hospital", "hospital", 1, 1, node.public_key, "")

    def called(function: Any) -> Any:
        held.append(connection.in_atomic_block)
        from asgiref.sync import async_to_sync

        return async_to_sync(function)

    monkeypatch.setattr(actions, "ask_identity", ask_identity)
    monkeypatch.setattr(actions, "async_to_sync", called)
    actions.approve(node, by=administrator)
    assert held == [False]


def test_an_address_changed_during_the_check_is_not_let_in(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    node = ask(join_of("hospital"))

    def while_checked(function: Any) -> Any:
        def checked(url: str, *, role: str) -> messages.Identity:
            ask(join_of("hospital", url="https://elsewhere.example"))
            return messages.Identity("node", "hospital", "hospital", 1, 1, node.public_key, "")

        return checked

    monkeypatch.setattr(actions, "async_to_sync", while_checked)
    with pytest.raises(ConflictError, match="changed while"):
        actions.approve(node, by=people.administrator)


@pytest.mark.parametrize("change", [{"name": "University"}, {"url": "https://elsewhere.example"}])
def test_a_member_that_changes_its_face_waits_again(people: People, change: dict[str, str]) -> None:
    member("hospital", people.administrator)
    wanted = join_of("hospital")
    for field, value in change.items():
        setattr(wanted, field, value)
    assert ask(wanted).state == State.PENDING
    assert verbs() == ["node_joined"]


@pytest.mark.parametrize("person", ["stranger", "scientist", "owner", "reviewer", "auditor"])
@pytest.mark.parametrize("verb", [actions.approve, actions.reject, actions.remove])
def test_only_the_operator_decides(people: People, person: str, verb: Callable[..., Node]) -> None:
    waiting, inside = ask(join_of("company")), member("hospital", people.administrator)
    for node in (waiting, inside):
        with pytest.raises(NotPermittedError):
            verb(node, by=getattr(people, person))
    assert {node.state for node in Node.objects.all()} == {State.PENDING, State.APPROVED}


def test_a_removed_node_is_forgotten_and_keeps_its_name_for_its_key(people: People) -> None:
    from apps.network import announcements, queries

    node = member("hospital", people.administrator)
    announcements.receive(push_of(metadata()), key=node.public_key, now=NOW)
    assert len(queries.search(people.scientist, ["#february"], limit=5, now=NOW).rows) == 1
    actions.remove(node, by=people.administrator, reason="left", now=NOW)
    assert queries.search(people.scientist, [], limit=5, now=NOW).rows == []
    assert node.announcements.count() == 0
    assert ask(join_of("hospital")).state == State.REMOVED


def test_each_state_goes_only_where_the_table_says(people: People) -> None:
    node = member("hospital", people.administrator)
    with pytest.raises(ConflictError, match="cannot become"):
        actions.approve(node, by=people.administrator)
    actions.remove(node, by=people.administrator)
    with pytest.raises(ConflictError, match="cannot become"):
        actions.remove(node, by=people.administrator)
    with pytest.raises(ConflictError, match="remove it instead"):
        actions.reject(node, by=people.administrator)
    with pytest.raises(ConflictError, match="reject it instead"):
        actions.remove(ask(join_of("company")), by=people.administrator)
    assert set(NEXT) == set(State)


def test_a_flood_of_requests_to_join_ends_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_PENDING_PER_ADDRESS", 2)
    monkeypatch.setattr(actions, "MOST_PENDING", 3)
    ask(join_of("a")), ask(join_of("b"))
    with pytest.raises(LimitExceededError):
        ask(join_of("c"))
    ask(join_of("d"), address="203.0.113.9")
    with pytest.raises(LimitExceededError):
        ask(join_of("e"), address="203.0.113.10")
    ask(join_of("a"), seconds=1)  # who waits already may still ask what became of it


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hospital.example",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "https://x?y",
        "https://x#y",
        "https://x y",
        "https://x\n",
        "https://x:99999",
        "https://\u202ex",
    ],
)
def test_a_bad_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        ask(join_of("hospital", url=url or " "))


def test_tokens_do_not_travel_in_the_clear_outside_development() -> None:
    with override_settings(GRID_DEVELOPMENT=False), pytest.raises(InvalidInputError, match="in the clear"):
        ask(join_of("hospital", url="http://hospital.example"))


def test_a_name_cannot_hide_direction_marks_or_be_empty() -> None:
    wanted = join_of("hospital")
    wanted.name = "Hos\u202epital\x00\n"
    assert ask(wanted).name == "Hospital"
    wanted.name = "\u202e\x00"
    with pytest.raises(InvalidInputError):
        ask(wanted)


@pytest.mark.parametrize("id", ["", "Hospital", "hos pital", "-x", "x-", "х", "a" * 41, "../x", "x/approve"])
def test_an_id_is_plain(id: str) -> None:
    body = messages.msgspec.json.encode({"id": id, "name": "x", "url": "https://x", "public_key": "a" * 64})
    with pytest.raises(GridError):
        messages.decode(body, messages.Join)


def test_who_is_not_let_in_is_shown_to_operator_and_auditor_only(people: People) -> None:
    ask(join_of("company")), member("hospital", people.administrator)
    for person in (people.stranger, people.scientist, people.owner, people.reviewer):
        assert [node.id for node in nodes_visible_to(person)] == ["hospital"]
    for person in (people.administrator, people.auditor):
        assert nodes_visible_to(person).count() == 2


def test_the_database_refuses_an_approval_without_a_decision(people: People) -> None:
    node = ask(join_of("hospital"))
    node.state = State.APPROVED
    with pytest.raises(IntegrityError), transaction.atomic():
        node.save()
