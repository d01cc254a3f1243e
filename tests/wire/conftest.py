"""People of the hospital of the live grid: one scientist and one owner for each module that asks."""

from __future__ import annotations

import pytest

from tests.factories.grid import LiveGrid
from tests.factories.staff import Staff, names


@pytest.fixture(scope="module")
def staff(grid: LiveGrid) -> Staff:
    return Staff(grid.hospital)


@pytest.fixture(scope="module")
def scientist(staff: Staff) -> str:
    name = next(names)
    staff.hire(name, "scientist")
    return name


@pytest.fixture(scope="module")
def owner(staff: Staff) -> str:
    name = next(names)
    staff.hire(name, "owner")
    return name
