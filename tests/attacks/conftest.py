"""One ward for all attacks; each dataset is published once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.attacks.ward import Ward, open_ward, private_values
from tests.factories.grid import LiveGrid


@dataclass(frozen=True)
class Private:
    """A published dataset, and what only its owner should know."""

    dataset: dict[str, Any]
    values: np.ndarray


@pytest.fixture(scope="session")
def ward(grid: LiveGrid) -> Iterator[Ward]:
    opened = open_ward(grid)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def births(ward: Ward) -> Private:
    """24 people, 3 columns; the analyst may take aggregates of it."""
    values = private_values(24, 3, seed=1)
    private = Private(ward.publish(values, "Attacked births", description="For attacks.", tags=["#attacked"]), values)
    ward.grant(private.dataset, "analyst", "aggregate")
    return private


@pytest.fixture(scope="session")
def square(ward: Ward) -> Private:
    """As many people as columns; the analyst may take aggregates of it."""
    values = private_values(12, 12, seed=2)
    private = Private(ward.publish(values, "Attacked square"), values)
    ward.grant(private.dataset, "analyst", "aggregate")
    return private


@pytest.fixture(scope="session")
def single(ward: Ward) -> Private:
    """One column without an axis of its own; the analyst may take aggregates of it."""
    values = private_values(16, seed=3)
    private = Private(ward.publish(values, "Attacked single"), values)
    ward.grant(private.dataset, "analyst", "aggregate")
    return private


@pytest.fixture(scope="session")
def secret(ward: Ward) -> Private:
    """A dataset that exists for its owner only."""
    values = private_values(20, 2, seed=4)
    return Private(ward.publish(values, "Attacked secret", visibility="granted"), values)
