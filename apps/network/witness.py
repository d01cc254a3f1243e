"""The network as a witness: how far it has seen the logs of its members, so that none is set back unseen.

What was seen is never forgotten: the row of a log's newest head moves forward only, and a head that isn't beyond it
is an alarm, kept beside it; what the node shows after that is a row of its own. All of them are named to the node with
each heartbeat, under our signature. Which of them its logs contain, only the node knows: a message that was long under
way looks like a log that was set back, and harms nobody, since the node finds its head on its chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from django.db.models import QuerySet

from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.core import keys
from apps.core.countersigned import DOMAIN, SIGNED_UNDER, signed_by, statement
from apps.network.messages import NamedHead, SeenHead
from apps.network.models import Node, NodeHead
from gridclient.wire.errors import InvalidInputError

MOST = 32
"""Most heads of one log that are kept. A node that is set back more often stays known by these."""


def checked(heads: Iterable[NamedHead], *, key: str) -> list[NamedHead]:
    """The heads of logs that we know. Raises InvalidInputError for one of them that `key` did not sign."""
    known = [head for head in heads if head.log in SIGNED_UNDER]
    for head in known:
        if not signed_by(key, head.log, head.hash, head.signature):
            raise InvalidInputError(f"The head of the log '{head.log}' is not signed by the node's key.")
    return known


def see(node: Node, heads: Iterable[NamedHead], *, now: datetime) -> list[SeenHead]:
    """Take in checked heads of a member whose row is locked; all that was ever seen of it, counter-signed."""
    rows = list(seen(node))
    for head in heads:
        _see(node, head, rows, now)
    return [_counter_signed(keys.public_key(), node.public_key, row) for row in rows]


def seen(node: Node) -> QuerySet[NodeHead]:
    """What was seen of a node, by log, in the order in which it was seen."""
    return NodeHead.objects.filter(node=node).order_by("log", "pk")


def _see(node: Node, head: NamedHead, rows: list[NodeHead], now: datetime) -> None:
    """Move one of the node's rows, or add one."""
    before = [row for row in rows if row.log == head.log]
    if any((row.number, row.hash) == (head.number, head.hash) for row in before):
        return
    last = before[-1] if before else None
    forward = last is None or head.number > last.number
    if last is not None and forward and not last.alarm:
        last.number, last.hash, last.signature, last.seen = head.number, head.hash, head.signature, now
        last.save(update_fields=["number", "hash", "signature", "seen"])
    elif len(before) < MOST:
        row = NodeHead.objects.create(
            node=node, log=head.log, number=head.number, hash=head.hash, signature=head.signature, seen=now,
            alarm=not forward,
        )  # fmt: skip
        rows.append(row)
        if last is not None and not forward:
            record(
                Verb.NODE_SET_BACK, by=None, target=f"node:{node.pk}", log=head.log, number=head.number,
                hash=head.hash, seen_before=[last.number, last.hash],
            )  # fmt: skip


def _counter_signed(network: str, node: str, row: NodeHead) -> SeenHead:
    moment = row.seen.astimezone(UTC).isoformat(timespec="microseconds")
    word = _word(network, node, row.log, row.number, row.hash, moment)
    return SeenHead(row.log, row.number, row.hash, row.signature, moment, word)


@lru_cache(4096)
def _word(network: str, node: str, log: str, number: int, value: str, moment: str) -> str:
    """Cached: a heartbeat mostly repeats what the last one said. By key: another of ours signs anew."""
    return keys.sign(DOMAIN, statement(network, node, log, number, value, moment))
