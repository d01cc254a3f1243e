"""A few storms of each run of the tests; `make storm` makes many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gridclient import settings
from tests.faults import storm
from tests.faults.ground import Ground, ground_in

SEEDS = range(12)
# Their starts of the node, on a machine that is busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch, ground_in(tmp_path_factory.mktemp("storm")) as ground:
        patch.setattr(settings, "progress", False)
        yield ground


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_and_nothing_happens_twice(ground: Ground, seed: int) -> None:
    storm.run(ground, seed)
