"""What a network says of a node's logs: up to which head it has seen each of them, under its own signature.

A network keeps what a node can lose with its database and its keys folder together. It is told numbers and hashes, and
repeats only heads that carry the node's own signature: it can neither invent a head nor lift what follows from one.
The newest is kept as `<log>.head.countersigned` in the keys folder, which is in no backup set.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from apps.core import keys
from apps.core.canonical import canonical
from apps.core.durable import sync
from apps.core.heads import Head

logger = logging.getLogger(__name__)
DOMAIN = "gridsite/head/1"
"""Of the network's signature."""
AUDIT, LEDGER = "audit", "ledger"
SIGNED_UNDER = {AUDIT: "gridsite/audit/1", LEDGER: "gridsite/ledger/1"}
"""Under which domain a node signs the hashes of each log."""


class CounterSigned(NamedTuple):
    """A head of a node's log as its network saw it. `seen`: when, as text; `network`: its public key, in hex."""

    log: str
    number: int
    hash: str
    signature: str
    seen: str
    network: str
    counter_signature: str

    def fits(self, node: str) -> bool:
        """Whether the node of this key signed the head, and the network named here the whole."""
        text = statement(self.network, node, self.log, self.number, self.hash, self.seen)
        return signed_by(node, self.log, self.hash, self.signature) and keys.verify(
            self.network, DOMAIN, text, self.counter_signature
        )


@dataclass(frozen=True)
class Log:
    """A log of this node, as far as its network is concerned.

    `newest` is its last head, signed; None of an empty log. `heed` is told each head that the network has seen: where
    the log neither contains it nor has written it down as lost, it does what is to be done.
    """

    name: str
    newest: Callable[[], Head | None]
    heed: Callable[[Head], None]


def statement(network: str, node: str, log: str, number: int, value: str, seen: str) -> bytes:
    """What a network signs: its key's and the node's fingerprint, the log, number and hash of the head, and when."""
    return canonical(
        {
            "network": keys.fingerprint(network),
            "node": keys.fingerprint(node),
            "log": log,
            "number": number,
            "hash": value,
            "time": seen,
        }
    )


def signed_by(node: str, log: str, value: str, signature: str) -> bool:
    """Whether the node of this key signed a head with this hash. False for a log that isn't known."""
    return log in SIGNED_UNDER and keys.verify(node, SIGNED_UNDER[log], value.encode(), signature)


def path(log: str) -> Path:
    """Where the newest is kept."""
    return Path(settings.GRID_KEYS_DIR) / f"{log}.head.countersigned"


def kept(log: str) -> CounterSigned | None:
    """The newest that is kept; None where there is none, or nothing that this node and a network signed."""
    try:
        found = CounterSigned(**json.loads(path(log).read_bytes()))
        return found if found.log == log and found.fits(keys.public_key()) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def keep(said: CounterSigned) -> None:
    """Keep what was checked, unless a further head is kept. On the disk when this returns."""
    present = kept(said.log)
    if present is not None and present.number >= said.number:
        return
    aside = path(said.log).with_name(f"{path(said.log).name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(canonical(said._asdict()))
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path(said.log))
    sync(path(said.log).parent)


def heed_kept(log: Log) -> None:
    """At start, before the network can be asked: what it said last."""
    if (said := kept(log.name)) is not None:
        log.heed(Head(said.number, said.hash, said.signature))


def source(log: str, head: Head) -> str:
    """In words, who names this head."""
    said = kept(log)
    if said is not None and (said.number, said.hash) == head[:2]:
        return "the head that the network counter-signed"
    return "the head kept outside"
