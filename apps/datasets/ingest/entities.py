"""Identifiers of people: canonical, counted, and kept as HMACs only."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apps.datasets.assets import ENTITIES, SUFFIXES, TABLE
from apps.datasets.ingest.files import write_arrow
from apps.datasets.ingest.limits import IngestLimits, Problems
from gridclient.wire.normal_form import nfc

HMAC_BYTES = 32
COLUMN = "entity"


class Entities:
    """The entity of each row, as codes [n] into a list of HMAC-SHA256 under the node's key."""

    def __init__(self, key: bytes, limits: IngestLimits) -> None:
        self._key = key
        self._longest = limits.text
        self._codes: dict[str, int] = {}
        self._rows: list[int] = []
        self._missing = self._too_long = False

    def extend(self, identifiers: Iterable[str | int | None]) -> None:
        """Append the identifiers of further rows. Integers count as their decimals."""
        for identifier in identifiers:
            text = "" if identifier is None else canonical(identifier)
            self._missing |= not text
            self._too_long |= len(text) > self._longest
            self._rows.append(self._codes.setdefault(text, len(self._codes)))

    def check(self, most: int, problems: Problems) -> None:
        """Add what is wrong: no identifier, one beyond the cap, or an entity with more than `most` rows."""
        if self._missing:
            problems.add("entities: a row has no identifier.")
        if self._too_long:
            problems.add(f"entities: an identifier has more than {self._longest} characters.")
        if self._rows and int(np.bincount(self._rows).max()) > most:
            problems.add("entities: an entity has more rows than max_rows_per_entity allows.")

    def count(self, present: np.ndarray[Any, Any] | None) -> int:
        """Entities with at least one record; `present` bool [n] says which rows are records."""
        codes = np.asarray(self._rows, dtype=np.int64)
        return int(np.unique(codes if present is None else codes[present]).size)

    def __len__(self) -> int:
        return len(self._rows)

    def write(self, out: Path, rows: int) -> None:
        """Write `entities.arrow` with `rows` rows; padding has 32 zero bytes."""
        hmacs = [hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256") for text in self._codes]
        data = b"".join(hmacs[code] for code in self._rows) + bytes(HMAC_BYTES * (rows - len(self._rows)))
        array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(HMAC_BYTES), rows, [None, pa.py_buffer(data)])
        write_arrow(out / f"{ENTITIES}{SUFFIXES[TABLE]}", [(COLUMN, array)])


def canonical(identifier: str | int) -> str:
    """One text for one person: NFC and trimmed; integers as decimals."""
    return nfc(str(identifier)).strip()
