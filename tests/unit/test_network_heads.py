"""A network remembers how far it has seen a node's logs: none is set back unseen, by whatever copy of the node."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.test import Client, override_settings

from apps.audit import countersigned as audit_log
from apps.audit import head as outside_audit
from apps.audit.models import AuditEvent
from apps.audit.queries import verify as verify_audit
from apps.audit.restored import accept
from apps.budgets import actions, outside
from apps.budgets import countersigned as ledger
from apps.budgets.models import Domain
from apps.budgets.verification import verify as verify_ledger
from apps.core import countersigned, keys
from apps.core.heads import Head
from apps.network import announcements, announcer, heads, messages, witness
from apps.network.models import Membership, Node, NodeHead, State
from gridclient.wire.errors import ConflictError, InvalidInputError
from tests.factories.budgets import ask
from tests.factories.network import NOW, acting_as, member, push_of
from tests.factories.people import People
from tests.factories.queue import publish
from tests.unit.test_audit_log import write
from tests.unit.test_network_announcer import Grid, grid, listed, steps

__all__ = ["grid", "listed"]
pytestmark = pytest.mark.django_db(transaction=True)
LOGS = (audit_log.LOG, ledger.LOG)


@pytest.fixture
def hospital(people: People) -> Node:
    return member("hospital", people.administrator)


def head(number: int, branch: str = "a", log: str = "ledger", *, by: str = "hospital") -> messages.NamedHead:
    """A head that the node `by` has signed."""
    value = f"{number:x}".rjust(63, "0") + branch
    with acting_as(by):
        return messages.NamedHead(log, number, value, keys.sign(countersigned.SIGNED_UNDER[log], value.encode()))


def show(node: Node, *shown: messages.NamedHead, seconds: float = 0) -> list[tuple[int, str]]:
    """Number and last digit of each head that the network names in its answer."""
    now = NOW + timedelta(seconds=seconds)
    with acting_as("grid", "network"):
        answer = announcements.receive(push_of(base=None, heads=list(shown)), key=node.public_key, now=now)
    return [(each.number, each.hash[-1]) for each in answer.heads]


def rows() -> list[tuple[int, str, bool]]:
    return [(row.number, row.hash[-1], row.alarm) for row in NodeHead.objects.order_by("log", "pk")]


def test_the_network_follows_a_log_and_forgets_nothing_that_was_set_back(hospital: Node) -> None:
    assert show(hospital, head(3)) == [(3, "a")]
    assert show(hospital, head(20), seconds=1) == [(20, "a")]
    assert show(hospital, head(11, "b"), seconds=2) == [(20, "a"), (11, "b")]
    assert show(hospital, head(15, "b"), seconds=3) == [(20, "a"), (11, "b"), (15, "b")]
    assert show(hospital, head(30, "b"), seconds=4) == [(20, "a"), (11, "b"), (30, "b")]
    assert rows() == [(20, "a", False), (11, "b", True), (30, "b", False)]
    (event,) = AuditEvent.objects.filter(verb="node_set_back")
    assert event.target == "node:hospital"
    assert event.payload is not None and event.payload["seen_before"] == [20, head(20).hash]


def test_another_head_with_the_same_number_is_an_alarm(hospital: Node) -> None:
    show(hospital, head(3))
    assert show(hospital, head(3, "b")) == [(3, "a"), (3, "b")]
    assert rows() == [(3, "a", False), (3, "b", True)]


def test_a_heartbeat_that_shows_nothing_new_changes_nothing(hospital: Node) -> None:
    show(hospital, head(3))
    assert show(hospital, head(3), seconds=9) == [(3, "a")]
    assert NodeHead.objects.get().seen == NOW
    assert not AuditEvent.objects.filter(verb="node_set_back").exists()


def test_a_node_of_an_older_version_shows_none_and_is_told_what_was_seen(hospital: Node) -> None:
    old = messages.decode(b'{"base": null, "revision": 1}', messages.Push)
    assert (old.heads, show(hospital)) == ([], [])
    show(hospital, head(3))
    assert show(hospital) == [(3, "a")]


def test_each_log_is_followed_by_itself_and_a_log_of_a_later_version_is_passed_over(hospital: Node) -> None:
    later = messages.NamedHead("later", 1, "0" * 64, "0" * 128)
    assert show(hospital, head(9, log="audit"), head(2), later) == [(9, "a"), (2, "a")]
    assert show(hospital, head(3), seconds=1) == [(9, "a"), (3, "a")]


def test_nobody_puts_a_head_in_another_nodes_mouth(hospital: Node) -> None:
    with pytest.raises(InvalidInputError, match="not signed by the node's key"):
        show(hospital, head(3, by="impostor"))
    with pytest.raises(InvalidInputError):
        messages.decode(msgspec.json.encode({"log": "ledger", "number": 0}), messages.NamedHead)
    assert rows() == []


def test_a_node_that_waits_or_was_removed_is_not_witnessed(hospital: Node) -> None:
    Node.objects.update(state=State.REMOVED)
    assert show(hospital, head(3)) == [] and rows() == []


def test_a_hostile_node_fills_no_table(hospital: Node) -> None:
    for number in range(witness.MOST + 20, 0, -1):
        show(hospital, head(number))
    assert NodeHead.objects.count() == witness.MOST == AuditEvent.objects.filter(verb="node_set_back").count() + 1


def test_the_operator_and_the_auditor_see_the_alarm_and_nobody_else_the_heads(hospital: Node, people: People) -> None:
    show(hospital, head(20)), show(hospital, head(11, "b"))
    for who, sees in [("administrator", True), ("auditor", True), ("scientist", False)]:
        client = Client()
        client.force_login(getattr(people, who))
        with override_settings(GRID_ROLE="network"):
            page = client.get("/admin/network/node/hospital/change/").content.decode()
        assert ("ledger 11" in page, "SET BACK" in page, "1 times seen" in page) == (sees,) * 3


# --- the node's side --------------------------------------------------------------------------------------------


def lost(number: int, log: str = "ledger") -> Head:
    """A head that this node signed once, and that no log of it contains."""
    value = f"{number:x}".rjust(64, "f")
    return Head(number, value, keys.sign(countersigned.SIGNED_UNDER[log], value.encode()))


def said(lost: Head, log: str = "ledger", *, by: str = "grid") -> tuple[str, messages.SeenHead]:
    """The key of the network `by`, and what it says of this node's head."""
    node, seen = keys.public_key(), "2026-02-01T12:00:00.000000+00:00"
    with acting_as(by, "network") as network:
        text = countersigned.statement(network, node, log, lost.seq, lost.hash, seen)
        word = keys.sign(countersigned.DOMAIN, text)
    return network, messages.SeenHead(log, lost.seq, lost.hash, lost.signature, seen, word)


def hear(lost: Head, log: str = "ledger") -> None:
    network, seen = said(lost, log)
    heads.heed(LOGS, [seen], network=network)


def frozen() -> str:
    return Domain.objects.get(slug="default").frozen


def test_a_node_shows_its_heads_and_keeps_what_the_network_made_of_them(
    grid: Grid, listed: dict[int, Any], people: People
) -> None:
    ask(people.scientist, publish(people.owner), "first")
    node = announcer.Announcer(LOGS)
    steps(node)
    Node.objects.update(state=State.APPROVED, joined=NOW, decided_at=NOW, decided_by=people.administrator)
    steps(node)
    assert {(row.log, row.alarm) for row in NodeHead.objects.all()} == {("audit", False), ("ledger", False)}
    kept = countersigned.kept("ledger")
    newest = ledger.newest()
    assert kept is not None and newest is not None
    assert (kept.number, kept.hash, kept.signature) == newest
    assert kept.network == Membership.objects.get().public_key
    assert verify_ledger() and frozen() == ""


def test_a_network_of_an_older_version_says_nothing_of_heads() -> None:
    body = b'{"state": "approved", "revision": 3, "in_step": true}'
    assert messages.decode(body, messages.Receipt).heads == []


def test_an_empty_ledger_shows_nothing(people: People) -> None:
    assert [each.log for each in heads.shown(LOGS)] == ["audit"]


def test_a_ledger_that_lacks_what_the_network_saw_is_frozen_until_two_people_write_it_off(
    people: People, caplog: pytest.LogCaptureFixture
) -> None:
    births = publish(people.owner)
    ask(people.scientist, births, "first")
    with caplog.at_level(logging.CRITICAL):
        hear(lost(7))
    words = "it ends at release 1, but the head that the network counter-signed names release 7"
    assert words in caplog.text and words in frozen() and verify_ledger().problem == words
    with pytest.raises(ConflictError, match="frozen"):
        ask(people.scientist, births, "second")
    town = actions.open_domain("town", statement="Others.", by=people.owner)
    hear(lost(7))
    town.refresh_from_db()
    assert town.frozen, "nor by a domain that is opened meanwhile"
    actions.confirm_epoch(
        actions.propose_epoch(Domain.objects.get(slug="default"), reason="Restored.", by=people.owner),
        by=people.reviewer,
    )
    hear(lost(7))
    assert frozen() == "" and verify_ledger()
    ask(people.scientist, births, "second")
    hear(lost(5))
    assert "it ends at release 2" in verify_ledger().problem and "names release 5" in frozen()


def test_what_the_network_said_last_is_heeded_at_the_start(people: People) -> None:
    ask(people.scientist, publish(people.owner), "first")
    network, seen = said(lost(7))
    countersigned.keep(countersigned.CounterSigned(
        "ledger", seen.number, seen.hash, seen.signature, seen.seen, network, seen.counter_signature))  # fmt: skip
    assert outside.problem() == ""
    for log in LOGS:
        countersigned.heed_kept(log)
    assert "names release 7" in outside.at_start() and frozen()


def test_an_audit_log_that_lacks_what_the_network_saw_is_not_whole_until_that_is_accepted(people: People) -> None:
    write(3)
    gone = lost(10**6, "audit")
    hear(gone, "audit")
    assert outside_audit.read() == gone
    assert "the head that the network counter-signed names event 1000000" in verify_audit().problem
    assert accept(reason="Backup of Monday.", by=None).target == f"head:{gone.seq}:{gone.hash}"
    hear(gone, "audit")
    assert verify_audit()


def test_a_network_cannot_freeze_a_node_by_what_the_node_never_signed(
    people: People, caplog: pytest.LogCaptureFixture
) -> None:
    ask(people.scientist, publish(people.owner), "first")
    newest = ledger.newest()
    assert newest is not None
    network, other = said(lost(7), by="usurper")
    hear(newest)
    pinned, _ = said(newest)
    heads.heed(LOGS, [other], network=pinned)
    hear(lost(8)._replace(signature=lost(9).signature))
    hear(newest._replace(seq=99))  # the hash covers the number
    assert caplog.text.count("did not sign") == 2
    assert frozen() == "" and outside.problem() == ""


def test_a_head_kept_by_hand_is_not_believed(people: People) -> None:
    hear(lost(7))
    path = countersigned.path("ledger")
    for wrong in (b"", b"[]", b"{}", path.read_bytes().replace(b'"number":7', b'"number":8')):
        path.write_bytes(wrong)
        assert countersigned.kept("ledger") is None


def test_the_newest_that_was_kept_is_not_replaced_by_an_older_one() -> None:
    hear(lost(7)), hear(lost(5))
    kept = countersigned.kept("ledger")
    assert kept is not None and kept.number == 7
