"""Two deployments in one test: act as the other one for a while, and let outbound calls reach what a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.test import override_settings

from apps.core import keys
from apps.network import messages, outbound
from apps.network.models import Node, State

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
DATASET = UUID("11111111-1111-4111-8111-111111111111")

Call = Callable[..., Awaitable[outbound.Reply]]


@contextmanager
def acting_as(name: str, role: str = "node", **more: Any) -> Iterator[str]:
    """Be another deployment, with keys of its own; its public key."""
    folder = Path(settings.GRID_STORAGE_DIR).parent / f"keys-of-{name}"
    with override_settings(GRID_KEYS_DIR=folder, GRID_NAME=name, GRID_ROLE=role, **more):
        yield keys.public_key()


def join_of(name: str, url: str | None = None, *, key: str | None = None) -> messages.Join:
    """What the deployment `name` says when it asks for its own name."""
    with acting_as(name) as own:
        return messages.Join(id=name, name=name.title(), url=url or f"https://{name}.example", public_key=key or own)


def member(name: str, by: Any, *, now: datetime = NOW) -> Node:
    """A node that was let in and is alive at `now`."""
    from datetime import timedelta

    with acting_as(name) as key:
        return Node.objects.create(
            id=name,
            name=name.title(),
            url=f"https://{name}.example",
            public_key=key,
            fingerprint=keys.fingerprint(key),
            address="198.51.100.7",
            state=State.APPROVED,
            asked=now,
            joined=now,
            decided_at=now,
            decided_by=by,
            last_seen=now,
            expires=now + timedelta(seconds=45),
        )


def metadata(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Public metadata of a listed dataset."""
    return {
        "id": str(UUID(int=DATASET.int + number)),
        "slug": f"births-{number}",
        "name": "Births of February",
        "description": "Weight in kilogram.",
        "tags": ["#February", "#birth-records"],
        "visibility": "listed",
        "version": 1,
        "kind": "tensor",
        "shape": [84, 2],
        "dtype": "float64",
        "rows_public": True,
        "columns": [{"name": "weight_kg", "kind": "number", "low": 0.5, "high": 6.0, "categories": None}],
        "max_rows_per_entity": 1,
        "entities": "rows",
        "missing": "refuse",
        "created": "2026-02-01T12:00:00Z",
        "sequence": str(DATASET),
    } | changes


def push_of(*datasets: dict[str, Any], base: int | None = None, revision: int = 1, **more: Any) -> messages.Push:
    """An announcement of these datasets."""
    raws = [msgspec.Raw(msgspec.json.encode(each)) for each in datasets]
    return messages.Push(base=base, revision=revision, put=raws, **more)


def session_key() -> tuple[Ed25519PrivateKey, str]:
    """A scientist's key of one session, and its public half."""
    private = Ed25519PrivateKey.generate()
    return private, private.public_key().public_bytes_raw().hex()
