"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One mistake. `alone`: its tests need no deployment, so that conftest.py and Django are left out."""

    name: str
    file: str
    original: str
    replacement: str
    tests: tuple[str, ...]
    alone: bool = False
