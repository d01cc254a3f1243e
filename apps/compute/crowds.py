"""Whose rows stand behind a released number, so that no two released numbers differ by a few people. For workers only.

A crowd is kept in two forms, both as bitmaps of 32-bit numbers:

    people   by identifier: the first four bytes of each HMAC, one numbering for the whole node. Where each row is a
             person, the row's position in its sequence; such people can be told from those of the same rows only.
    prints   fingerprints of rows: of all their columns together, and of each answered column by itself.

Numbers that collide make a difference look smaller than it is, hence never safe when it isn't; whether two sets are
equal is decided by a digest of the whole identifiers. Two crowds may both be known where

    1. their people, if they can be compared, are the same or differ in at least k;
    2. their prints are equal, or differ in at least k times the rows of an entity, or in most of them: an overlapping
       dataset without common identifiers, or a corrected value, shows here. Of one version, and of equal data whose
       rows are people by their place, rule 1 says it, but where the people are the same and have several rows: then
       whole rows are the same or differ in so many;
    3. they are not of two versions of one dataset whose rows are people without identifiers and whose data differ:
       who left and who came cannot be known, so that only one version is answered by itself.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from apps.compute.messages import PEOPLE

DECLARED = "declared"
WHOLE_ROW = ""
MOST_KEPT = 2**26
"""Bytes of files."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SHARED = 4
"""Rows that agree in less than a quarter are those of other people; a few numbers are equal by chance."""

Hashes = NDArray[np.uint64]


class Numbers(msgspec.Struct, frozen=True, array_like=True):
    """A set: `bitmap` of 32-bit numbers, `digest` of what they stand for."""

    bitmap: bytes
    digest: bytes

    def loaded(self) -> Loaded:
        """To compare it with others."""
        return Loaded(BitMap.deserialize(self.bitmap), self.digest)


class Loaded(NamedTuple):
    """A set in memory."""

    numbers: BitMap
    digest: bytes

    def near(self, other: Loaded, most: int, *, shared: int = 0) -> bool:
        """Whether the two are not equal and fewer than `most` elements are in one of them only.

        With `shared`: and at least one element in so many of the smaller one is in both.
        """
        sizes = len(self.numbers), len(other.numbers)
        common = self.numbers.intersection_cardinality(other.numbers)
        # A lower bound: numbers that collide hide a difference.
        apart = sum(sizes) - 2 * common
        return self.digest != other.digest and apart < most and (not shared or shared * common >= min(sizes))


class Crowd(msgspec.Struct, frozen=True, array_like=True):
    """The people and the rows behind one cell. `prints` by column; `WHOLE_ROW` is all columns together."""

    people: Numbers
    prints: dict[str, Numbers]


class Crowds(msgspec.Struct, frozen=True, array_like=True):
    """All cells of one answer. `namespace`: "declared", or the sequence of rows that are people.

    `data`: digest of the version's values. `most`: rows that one entity may have.
    """

    dataset: str
    version: int
    data: str
    namespace: str
    most: int
    cells: list[Crowd]


class Read(NamedTuple):
    """Crowds in memory: of each cell, the people and the prints."""

    crowds: Crowds
    cells: list[tuple[Loaded, dict[str, Loaded]]]


class Earlier:
    """The crowds behind earlier answers, by file. Files never change: those used last are kept, up to `MOST_KEPT`."""

    def __init__(self) -> None:
        self._read: OrderedDict[str, tuple[Read, int]] = OrderedDict()
        self._nbytes = 0

    def read(self, path: str) -> Read:
        """What is in a file."""
        if path not in self._read:
            data = Path(path).read_bytes()
            self._read[path] = read(decode(data)), len(data)
            self._nbytes += len(data)
        self._read.move_to_end(path)
        found, _ = self._read[path]
        while self._nbytes > MOST_KEPT:
            self._nbytes -= self._read.popitem(last=False)[1][1]
        return found


def encode(crowds: Crowds) -> bytes:
    """As it is kept in a file."""
    return msgspec.msgpack.encode(crowds)


def decode(data: bytes) -> Crowds:
    """What `encode` wrote."""
    return msgspec.msgpack.decode(data, type=Crowds)


def name(crowds: Crowds, encoded: bytes) -> str:
    """Of its file, see `messages.Examined`."""
    cells = sorted({cell.people.digest + cell.prints[WHOLE_ROW].digest for cell in crowds.cells})
    people = hashlib.sha256(b"".join(cells)).hexdigest()
    return people[:PEOPLE] + hashlib.sha256(encoded).hexdigest()[PEOPLE:]


def read(crowds: Crowds) -> Read:
    """To compare it with others."""
    return Read(
        crowds,
        [
            (cell.people.loaded(), {column: each.loaded() for column, each in cell.prints.items()})
            for cell in crowds.cells
        ],
    )


def compatible(new: Read, known: Read, k: int) -> bool:
    """Whether an answer may be known beside another one: see the rules above. Every pair of cells is compared.

    Of answers from the same version, nothing but the people and their whole rows is compared.
    """
    one, other = new.crowds, known.crowds
    by_place = one.data == other.data and DECLARED not in (one.namespace, other.namespace)
    told = one.namespace == other.namespace or by_place
    # Elsewhere the people of equal data may have other identifiers, or none.
    same_rows = by_place or (one.dataset, one.version) == (other.dataset, other.version)
    most = max(one.most, other.most)
    rows = k * most
    known_people = told or DECLARED in (one.namespace, other.namespace)
    fine = known_people or one.dataset != other.dataset or not (new.cells and known.cells)
    for ours, theirs in product(new.cells, known.cells):
        if told:
            fine &= not ours[0].near(theirs[0], k)
        if not same_rows:
            # Each with each: a column may have another name there.
            pairs = product(ours[1].values(), theirs[1].values())
            fine &= not sum(mine.near(far, rows, shared=SHARED) for mine, far in pairs)
        elif most > 1:
            alike = ours[0].digest == theirs[0].digest
            fine &= not (ours[1][WHOLE_ROW].near(theirs[1][WHOLE_ROW], rows) & alike)
    return fine


def people(codes: NDArray[np.int64], identifiers: NDArray[np.uint8] | None) -> Numbers:
    """The people with these codes (int64, any number of times); `identifiers`: uint8 [entities, 32], or None where
    each row is a person and its code its position."""
    found = np.unique(codes)
    if identifiers is None:
        return Numbers(_bitmap(found.astype(np.uint32)), hashlib.sha256(found.astype("<i8").tobytes()).digest())
    chosen = identifiers[found]
    digest = hashlib.sha256(b"".join(sorted(map(bytes, chosen)))).digest()
    return Numbers(_bitmap(np.unique(np.ascontiguousarray(chosen[:, :4]).view("<u4").ravel())), digest)


def printed(hashes: Hashes) -> Numbers:
    """A multiset of hashes, as a set: equal ones are numbered."""
    ordered = np.sort(hashes)
    first = np.searchsorted(ordered, ordered, side="left")
    again = (np.arange(len(ordered)) - first).astype(np.uint64)
    numbers = (_mixed(ordered + again * GOLDEN) >> np.uint64(32)).astype(np.uint32)
    return Numbers(_bitmap(np.unique(numbers)), hashlib.sha256(ordered.astype("<u8").tobytes()).digest())


def telling(hashes: Hashes) -> bool:
    """Whether most values differ, so that two columns which agree in nearly all of them are of the same people."""
    return 2 * len(np.unique(hashes)) >= len(hashes) > 0


def row_hashes(values: NDArray[np.float64]) -> Hashes:
    """A hash of each row of float64 [n, d]; -0 is 0."""
    seeds = _mixed(np.arange(1, values.shape[1] + 1, dtype=np.uint64) * GOLDEN)
    bits = (np.ascontiguousarray(values) + 0.0).view(np.uint64)
    hashes: Hashes = _mixed(bits ^ seeds).sum(axis=1, dtype=np.uint64)
    return hashes


def _mixed(numbers: Hashes) -> Hashes:
    """A bijection that spreads every bit (Steele, Lea, Flood 2014, splitmix64)."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _bitmap(numbers: NDArray[Any]) -> bytes:
    return bytes(BitMap(array("I", numbers.astype("<u4").tobytes())).serialize())
