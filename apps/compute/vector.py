"""What every entity of a pot has spent: replayed from the sealed records of its releases. For workers only.

A pot has a folder. `records/<sha256>` are its records, each written once; `cache/` holds what is made from them and can
be removed at any time. Which records count, and in which order, the ledger says: `log`, their digests.

    record     identifiers that are new to the pot; who takes part; what each entity is charged, by number
    spent      a snapshot of all charges up to one record
    places     the numbers of the entities of one dataset version

An entity's number is its place among the identifiers of all records, in the order of the log: it stays, whatever
happens to datasets. Each file is `u32 length · header (MessagePack) · zeros to a multiple of 8 · arrays`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray

from apps.compute.messages import LENGTH, Account
from apps.core.durable import sync
from gridclient.wire.errors import InternalError

IDENTIFIER = 32
EVERY = 8
"""A snapshot is written where so many records came after the last one."""
BLOCK = 2**18
_ALIGNED = 8

Bits = NDArray[np.bool_]
Amounts = NDArray[np.uint64]
Identifiers = NDArray[np.bytes_]


class Contribution(NamedTuple):
    """What the entities of one dataset version cost: uint64 [n], n at least their number, and without those 0.

    `identifiers`: of its entities, S32 [entities] in ascending order, which are the order of `costs`.
    """

    dataset: str
    version: int
    costs: Amounts
    identifiers: Callable[[], Identifiers]


class Mask(msgspec.Struct, frozen=True, array_like=True):
    """Of which version's entities a record says who takes part, and how many there are."""

    dataset: str
    version: int
    entities: int


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Header of a record. `salt`: its digest is public, and must not tell what is in it. `known`: entities before it.

    `masks` is empty where everybody takes part.
    """

    salt: bytes
    known: int
    new: int
    charged: int
    masks: list[Mask]


class Cached(msgspec.Struct, frozen=True, array_like=True):
    """Header of what was made from the first `applied` records, the last of which is `last`. `size`: numbers in it."""

    applied: int
    last: str
    size: int


class Record(NamedTuple):
    """A sealed record. `charges`: uint64 [charged]; `identifiers`: S32 [new]; `bits`: by mask, packed."""

    head: Head
    charges: Amounts
    identifiers: Identifiers
    bits: list[NDArray[np.uint8]]

    def active(self, dataset: str, version: int, entities: int) -> Bits | None:
        """Who takes part: bool [entities], in the order of the version's identifiers; None: everybody.

        Raises InternalError where the record was not made for this version.
        """
        if not self.head.masks:
            return None
        for mask, packed in zip(self.head.masks, self.bits, strict=True):
            if (mask.dataset, mask.version) == (dataset, version) and mask.entities <= entities:
                found = np.zeros(entities, dtype=np.bool_)
                found[: mask.entities] = np.unpackbits(packed, count=mask.entities).astype(np.bool_)
                return found
        raise InternalError("This is not the data that was charged.")


def seal(path: Path, account: Account, contributions: Iterable[Contribution]) -> tuple[str, bool]:
    """Write the record of a release to `path`: its sha256, and whether it holds on this state of the pot only.

    An entity is charged what it costs over all contributions, at most `account.worst`; where the test is made, only
    if with all it was charged before that is within the limit. Who isn't, contributes nothing and is charged nothing.
    """
    folder = Path(account.folder)
    before = spent(folder, account.log)
    total = np.zeros(len(before), dtype=np.uint64)
    known, placed = len(before), []
    fresh: list[Identifiers] = []
    worst = np.uint64(account.worst)
    for dataset, version, costs, identifiers in contributions:
        place, new = places(folder, account.log, known, dataset, version, identifiers, fresh)
        fresh += [new] if len(new) else []
        total = _longer(total, known + sum(map(len, fresh)))
        for some in _blocks(len(place)):
            at = place[some]
            total[at] = np.minimum(total[at] + np.minimum(costs[some], worst), worst)
        placed.append((dataset, version, place))
    active = None
    if account.tested:
        before, active = _longer(before, len(total)), np.empty(len(total), dtype=np.bool_)
        limit = np.uint64(max(0, account.limit - account.uniform))
        for some in _blocks(len(total)):
            active[some] = before[some] + total[some] <= limit
            total[some] *= active[some]
    masks = [] if active is None else [Mask(dataset, version, len(place)) for dataset, version, place in placed]
    new = np.concatenate(fresh) if fresh else _none()
    head = Head(os.urandom(32), known, len(new), len(total), masks)
    bits = [] if active is None else [np.packbits(active[place]) for _, _, place in placed]
    return _write(path, head, [total, new, *bits]), account.tested or len(new) > 0


def opened(path: Path) -> Record:
    """The record of this name. Raises InternalError where it is not what its name says."""
    with path.open("rb") as file:
        data = np.memmap(file, dtype=np.uint8, mode="r")
    if hashlib.sha256(data.data).hexdigest() != path.name:
        raise InternalError("A record of charges is damaged.")
    return _record(data)


def spent(folder: Path, log: Sequence[str]) -> Amounts:
    """What each entity was charged by these records: uint64 [entities]. Not to be written to."""
    applied, found = 0, np.zeros(0, dtype=np.uint64)
    if (kept := _cached(folder / "cache" / "spent", log)) is not None:
        applied, found = kept[0].applied, kept[1].view(np.uint64)
    if applied == len(log):
        return found
    found = found.copy()
    for digest in log[applied:]:
        record = opened(folder / "records" / digest)
        if record.head.new and record.head.known != len(found):
            raise InternalError("The records of charges do not fit each other.")
        found = _longer(found, record.head.charged)
        found[: record.head.charged] += record.charges
    if len(log) - applied >= EVERY:
        _keep(folder / "cache" / "spent", log, found)
    return found


def places(
    folder: Path, log: Sequence[str], known: int, dataset: str, version: int, identifiers: Callable[[], Identifiers],
    fresh: Sequence[Identifiers],
) -> tuple[NDArray[np.int64], Identifiers]:  # fmt: skip
    """The numbers of a version's entities, int64 [entities], and the identifiers that are new, which follow.

    `known`: how many are numbered by the log; `fresh`: those that this release numbers already.
    """
    path = folder / "cache" / f"places-{dataset}-{version}"
    if (kept := _cached(path, log)) is not None:
        return kept[1].view(np.int64), _none()
    found = identifiers()
    numbered = np.concatenate([*_numbered(folder, log), *fresh]) if known or fresh else _none()
    if len(numbered) != known + sum(map(len, fresh)):
        raise InternalError("The records of charges do not fit each other.")
    place = np.full(len(found), -1, dtype=np.int64)
    if len(numbered):
        order = np.argsort(numbered, kind="stable")
        at = np.minimum(np.searchsorted(numbered[order], found), len(numbered) - 1)
        there = numbered[order[at]] == found
        place[there] = order[at[there]]
    new = place < 0
    place[new] = len(numbered) + np.arange(np.count_nonzero(new))
    if log and not fresh and not new.any():
        _keep(path, log, place)
    return place, found[new]


def _numbered(folder: Path, log: Sequence[str]) -> Iterator[Identifiers]:
    """The identifiers of each record. What is in it was looked at when its charges were added."""
    for digest in log:
        with (folder / "records" / digest).open("rb") as file:
            head = msgspec.msgpack.decode(file.read(LENGTH.unpack(file.read(LENGTH.size))[0]), type=Head)
            if head.new:
                yield _record(np.memmap(file, dtype=np.uint8, mode="r")).identifiers


def _blocks(count: int) -> Iterator[slice]:
    return (slice(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK))


def _none() -> Identifiers:
    return np.zeros(0, dtype=f"S{IDENTIFIER}")


def _longer(amounts: Amounts, size: int) -> Amounts:
    missing = size - len(amounts)
    return amounts if missing <= 0 else np.concatenate([amounts, np.zeros(missing, dtype=np.uint64)])


# --- files --------------------------------------------------------------------------------------------------------


def _start(data: NDArray[np.uint8]) -> tuple[bytes, int]:
    """The header of a file, and where its arrays begin."""
    (length,) = LENGTH.unpack(data[: LENGTH.size].tobytes())
    end = LENGTH.size + length
    return data[LENGTH.size : end].tobytes(), -(-end // _ALIGNED) * _ALIGNED


def _record(data: NDArray[np.uint8]) -> Record:
    header, begin = _start(data)
    head = msgspec.msgpack.decode(header, type=Head)
    lengths = [8 * head.charged, IDENTIFIER * head.new, *(-(-mask.entities // 8) for mask in head.masks)]
    ends = np.cumsum([begin, *lengths])
    charges, identifiers, *bits = (data[low:high] for low, high in pairwise(ends))
    return Record(head, charges.view(np.uint64), identifiers.view(f"S{IDENTIFIER}"), bits)


def _cached(path: Path, log: Sequence[str]) -> tuple[Cached, NDArray[np.uint8]] | None:
    """What was kept, if it was made from the first records of this log."""
    try:
        with path.open("rb") as file:
            data = np.memmap(file, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        return None
    header, begin = _start(data)
    head = msgspec.msgpack.decode(header, type=Cached)
    if head.applied > len(log) or log[head.applied - 1] != head.last:
        return None
    return head, data[begin : begin + 8 * head.size]


def _keep(path: Path, log: Sequence[str], numbers: NDArray[Any]) -> None:
    """On the disk before it has its name: after a power cut, no half of it is believed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid4().hex}")
    _write(aside, Cached(len(log), log[-1], len(numbers)), [numbers])
    sync(aside)
    os.replace(aside, path)
    sync(path.parent)


def _write(path: Path, head: Head | Cached, arrays: Sequence[NDArray[Any]]) -> str:
    """Write a file; its sha256."""
    header = msgspec.msgpack.encode(head)
    begin = LENGTH.pack(len(header)) + header
    parts: list[bytes | memoryview] = [begin + bytes(-len(begin) % _ALIGNED), *map(_bytes, arrays)]
    made = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
            made.update(part)
    return made.hexdigest()


def _bytes(numbers: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(numbers).view(np.uint8).data
