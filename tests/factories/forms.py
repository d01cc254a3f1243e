"""The ways to write one call: by position, by name, and both mixed. They must mean the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apps.compute.targets import TARGETS

Form = tuple[list[Any], dict[str, Any]]


def forms(op: str, args: list[Any], kwargs: dict[str, Any]) -> Iterator[Form]:
    """Positional, all by name (in order, and in reverse), and the first by position and the others by name."""
    names = [parameter.name for parameter in TARGETS[op].parameters if not parameter.keyword]
    named = dict(zip(names, args, strict=False))
    yield args, kwargs
    yield [], named | kwargs
    yield [], dict(reversed((named | kwargs).items()))
    if len(args) > 1:
        yield args[:1], dict(list(named.items())[1:]) | kwargs
