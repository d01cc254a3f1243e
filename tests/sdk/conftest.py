"""Who works on the shared live grid in the tests of this folder, and two nodes without a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gridclient.node import Node
from tests.factories.crew import Crew, crew_of
from tests.factories.grid import LiveGrid
from tests.sdk.training_node import TrainingNode


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads here as a node's worker has: with another number sums are added in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hospital() -> TrainingNode:
    """Where models learn without a server."""
    return TrainingNode("hospital")


@pytest.fixture
def company() -> TrainingNode:
    return TrainingNode("company")


@pytest.fixture(scope="session")
def crew(grid: LiveGrid) -> Iterator[Crew]:
    """The hospital's people."""
    with crew_of(grid.hospital) as crew:
        yield crew


@pytest.fixture(scope="session")
def owner(crew: Crew) -> Node:
    return crew.hire("owner")


@pytest.fixture(scope="session")
def scientist(crew: Crew) -> Node:
    return crew.hire("scientist")


@pytest.fixture(scope="session")
def reviewer(crew: Crew) -> Node:
    return crew.hire("reviewer")
