"""A session of the SDK with a node whose sockets are cut when a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import gridclient as grid
from gridclient import backoff
from gridclient.node import Node
from gridclient.wire import messages as m
from tests.sdk.fake_node import FakeNode, running

CHUNK = 4096
VALUES = torch.arange(2048 * 6, dtype=torch.float64).reshape(-1, 6) / 8  # 24 chunks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST", 0.001)
    monkeypatch.setattr(backoff, "LONGEST", 0.01)
    monkeypatch.setattr("gridclient.transfers.CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("tests.sdk.fake_session.CHUNK_SIZE", CHUNK)


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        node.add("births", VALUES, [])
        yield node


@pytest.fixture
def hospital(fake: FakeNode) -> Iterator[Node]:
    with grid.connect(fake.url, username="bob", password="correct horse") as node:
        yield node


class Cut:
    """A verdict at the first such moment after `skip` others; of batches with a command of `kind` where it is given."""

    def __init__(self, moment: str, verdict: str, kind: type[Any] = object, skip: int = 0) -> None:
        self.moment, self.verdict, self.kind, self.left = moment, verdict, kind, skip
        self.happened = False

    def __call__(self, moment: str, what: Any) -> str | None:
        named = what.commands if isinstance(what, m.ClientBatch) else [what]
        if moment != self.moment or self.happened or not any(isinstance(each, self.kind) for each in named):
            return None
        self.left -= 1
        self.happened = self.left < 0
        return self.verdict if self.happened else None
