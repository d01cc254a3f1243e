"""A few storms of each run of the tests; `make storm` makes many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gridclient import settings
from tests.faults import storm
from tests.faults.neighbours import PLACES, Place, alone

# Their starts of the node, on a machine that is busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "progress", False)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with alone(tmp_path_factory.mktemp("storm")) as place:
        yield place


@pytest.mark.parametrize("seed", range(12))
def test_nothing_acknowledged_is_lost_and_nothing_happens_twice(place: Place, seed: int) -> None:
    storm.run(place, seed)


@pytest.mark.parametrize("neighbour", ["postgres", "network"])
def test_nor_when_what_the_node_leans_on_is_killed(neighbour: str, tmp_path: Path) -> None:
    with PLACES[neighbour](tmp_path) as place:
        for seed in range(2):
            storm.run(place, seed)
