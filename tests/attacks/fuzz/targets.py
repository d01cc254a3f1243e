"""Decoders that need no database: what a stranger's bytes meet first, on a node, on a network and in the SDK."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from apps.accounts import names
from apps.accounts.once import checked_key
from apps.api import inputs
from apps.api.network import AskAssertion, Pin, PresentAssertion, Reason
from apps.core.clock import now
from apps.datarequests.texts import checked_reason
from apps.datasets.ingest.arrow import read_table
from apps.datasets.ingest.files import read_header
from apps.network import announcements, assertions, messages, signing
from apps.network.models import Membership, State
from apps.tags import normal
from apps.wire import parked
from gridclient import values
from gridclient.program import graph
from gridclient.program.plan_format import decode_plan
from gridclient.wire import frames
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridclient.wire.tensors import check_header
from gridclient.wire.visible import visible
from tests.attacks.fuzz import seeds
from tests.attacks.fuzz.mutate import Mutator

LIMIT = 2**28


@dataclass(frozen=True)
class Target:
    """`make` gives an input, `take` reads it: a GridError is an answer, any other exception a finding."""

    name: str
    share: int
    make: Callable[[Mutator], Any]
    take: Callable[[Any], None]


def framed(mutator: Mutator, trees: list[Any]) -> bytes:
    """A batch in a frame; its checksum mostly fits, so that what is in it is read."""
    data = frames.pack_batch(mutator.packed(trees))
    return mutator.bytes(data) if mutator.random.random() < 0.1 else data


def _client(data: bytes) -> None:
    frame = frames.unpack(data)
    if frame.kind == frames.CHUNK:
        return
    batch = m.decode_client(frame.body)
    for command in batch.commands:
        if isinstance(command, (m.Upload, m.Constant)) and command.header is not None:
            with suppress(GridError):
                check_header(command.header, LIMIT)
    m.encode(batch)  # what is taken can be said again


def _node(data: bytes) -> None:
    frame = frames.unpack(data)
    if frame.kind == frames.CHUNK:
        return
    for command in m.decode_node(frame.body).commands:
        if isinstance(command, m.Answer):
            with suppress(GridError):
                values.decode(command, bytearray(command.data or b""))


def _plan(mutator: Mutator) -> bytes:
    head, body, tensors = mutator.one_of(seeds.PLANS)
    if mutator.random.random() < 0.3:
        tensors = _safetensors(mutator)
    else:
        body = mutator.packed([body])
    data = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    whole = head[:9] + struct.pack("<I", len(data)) + data + tensors
    return mutator.bytes(whole) if mutator.random.random() < 0.1 else whole


def _safetensors(mutator: Mutator) -> bytes:
    header, data = mutator.one_of(seeds.SAFETENSORS)
    text = mutator.written([header])
    whole = struct.pack("<Q", len(text)) + text + data
    return mutator.bytes(whole) if mutator.random.random() < 0.15 else whole


_FILE = Path(tempfile.mkdtemp(prefix="gridsite-fuzz-")) / "upload"


def _tensors(data: bytes) -> None:
    _FILE.write_bytes(data)
    with suppress(GridError):
        for stored in read_header(_FILE, LIMIT).values():
            stored.array(_FILE)
    values.decode_state(bytearray(data))


def _arrow(data: bytes) -> None:
    _FILE.write_bytes(data)
    with suppress(GridError):
        read_table(_FILE, LIMIT)
    values.decode(m.Answer(1, "table", m.TensorHeader("uint8", [len(data)], len(data))), bytearray(data))


def _push(data: bytes) -> None:
    for raw in messages.decode(data, messages.Push).put:
        try:
            metadata = messages.listed_metadata(raw)
            normal.tokens(metadata["name"], metadata["description"], metadata["tags"])
        except GridError:
            announcements._named(raw)


_MESSAGES = (messages.Join, messages.Joined, messages.Receipt, messages.Identity, messages.PublicMetadata)


def _message(data: bytes) -> None:
    for kind in _MESSAGES:
        with suppress(GridError):
            found = messages.decode(data, kind)
            if isinstance(found, messages.Join):
                messages.clean(found.name)
                messages.checked_url(found.url)


_BODIES = (
    inputs.SignIn, inputs.NewUser, inputs.UserChange, inputs.NewTeam, inputs.TeamChange, inputs.NewToken,
    inputs.DatasetChange, inputs.NewGrant, inputs.Judgement, AskAssertion, PresentAssertion, Pin, Reason,
)  # fmt: skip
_OF_NETWORK = Membership(state=State.APPROVED, public_key="0" * 64, fingerprint="0" * 16)


def _body(data: bytes) -> None:
    for kind in _BODIES:
        with suppress(GridError):
            body: Any = inputs.read(SimpleNamespace(body=data), kind)  # type: ignore[arg-type]
            if kind in (inputs.UserChange, inputs.DatasetChange):
                inputs.changes(body)
            if kind in (inputs.NewToken, inputs.NewGrant):
                inputs.moment(body.expires, "expires")
            if kind is PresentAssertion:
                assertions._checked(body.assertion, body.signature, _OF_NETWORK, now())


def _texts(mutator: Mutator) -> list[str]:
    text = mutator.one_of(seeds.WORDS)
    for _ in range(mutator.random.randrange(4)):
        text = mutator.text(text)
    return [text, mutator.text(mutator.one_of(seeds.WORDS))]


_READERS: list[Callable[[str], Any]] = [
    normal.normal, normal.fold, normal.beginning, lambda text: normal.wanted([text, "#tag"]), names.normal,
    names.problems_of, lambda text: names.federated(text, "0" * 16), checked_reason, visible, messages.checked_url,
    messages.clean, lambda text: inputs.moment(text, "expires"), checked_key,
    lambda text: assertions._challenge_bytes(text, now()),
    lambda text: parked._by_digest.get(parked._digest(names.encodable(text))),
]  # fmt: skip


def _words(texts: list[str]) -> None:
    for read in [*_READERS, _signed]:
        for text in texts:
            with suppress(GridError):
                read(text)


def _signed(text: str) -> None:
    given = {"Grid-Key": "0" * 64, "Grid-Timestamp": "0", "Grid-Nonce": "0" * 32, "Grid-Signature": "0" * 128}
    for name in given:
        with suppress(GridError):
            signing.signer("POST", "/api/announcements/", b"", given | {name: text}, now=now())


TARGETS = [
    Target("client frames", 26, lambda x: framed(x, seeds.CLIENT), _client),
    Target("node frames", 16, lambda x: framed(x, seeds.NODE), _node),
    Target("programs", 8, lambda x: x.packed(seeds.PROGRAMS), lambda data: _ignored(graph.decode_program(data))),
    Target("plans", 12, _plan, lambda data: _ignored(decode_plan(data))),
    Target("safetensors", 8, _safetensors, _tensors),
    Target("arrow", 4, lambda x: x.bytes(x.one_of(seeds.ARROW)), _arrow),
    Target("announcements", 8, lambda x: x.written(seeds.PUSHES), _push),
    Target("messages", 8, lambda x: x.written(seeds.MESSAGES), _message),
    Target("REST bodies", 8, lambda x: x.written(seeds.BODIES), _body),
    Target("texts", 2, _texts, _words),
]


def _ignored(_: object) -> None:
    """The value is right or not; here it only has to be one."""
