"""A node before its network: it shows how far its logs go, and is held to what the network has seen of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from apps.core import keys
from apps.core.countersigned import CounterSigned, Log, keep
from apps.core.heads import Head
from apps.network.messages import NamedHead, SeenHead

logger = logging.getLogger(__name__)


def shown(logs: Sequence[Log]) -> list[NamedHead]:
    """The newest head of each log that isn't empty: number, hash and signature, and nothing of what is in it."""
    newest = ((log.name, log.newest()) for log in logs)
    return [NamedHead(name, head.seq, head.hash, head.signature) for name, head in newest if head is not None]


def heed(logs: Sequence[Log], heads: Sequence[SeenHead], *, network: str) -> None:
    """Hold each log to the heads that the network names. `network` is its pinned key.

    What it did not sign, or names although this node never signed it, is no evidence, and holds nobody.
    """
    by_name, own = {log.name: log for log in logs}, keys.public_key()
    for head in heads:
        log = by_name.get(head.log)
        if log is None:
            continue
        said = CounterSigned(
            head.log, head.number, head.hash, head.signature, head.seen, network, head.counter_signature
        )
        if not said.fits(own):
            logger.warning("The network named a head of the %s log that it or this node did not sign.", log.name)
            continue
        keep(said)
        log.heed(Head(said.number, said.hash, said.signature))
