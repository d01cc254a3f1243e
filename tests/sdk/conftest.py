"""Who works on the shared live grid in the tests of this folder, and two nodes without a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gridclient.node import Node
from tests.factories.crew import Crew, crew_of
from tests.factories.grid import LiveGrid
from tests.sdk.training_node import TrainingNode


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
