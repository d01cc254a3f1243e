"""Caps of an upload, and the list of everything that is wrong with it."""

from __future__ import annotations

import msgspec

from gridclient.wire.errors import InvalidInputError


class IngestLimits(msgspec.Struct, frozen=True):
    """Bytes and counts. `bytes` holds for an upload and for the files made from it."""

    bytes: int = 4 * 2**30
    mock_bytes: int = 64 * 2**20
    mock_rows: int = 10_000
    rows: int = 2**31 - 1
    columns: int = 10_000
    categories: int = 10_000
    text: int = 200  # characters of a column name, a category or an identifier


class Problems:
    """Collects problems, each once, in the order they were found."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}

    def add(self, text: str) -> None:
        self._texts[text] = None

    def check(self) -> None:
        """Raise InvalidInputError with all of them, if there are any."""
        if self._texts:
            lines = "".join(f"\n- {text}" for text in self._texts)
            raise InvalidInputError(f"Nothing was published:{lines}", problems=list(self._texts))
