"""A crash while people are charged each by itself: nobody takes part uncharged, is charged twice, or is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories import databases
from tests.factories.accounts_node import BEFORE, LENGTH, LOUD, PEOPLE, QUIET, SEALED
from tests.factories.ledger_node import Node

pytestmark = pytest.mark.timeout(1800)
WITHOUT = str((PEOPLE - LOUD) * QUIET)
"""The sum of those who have something left."""


@pytest.fixture(params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    """A deployment whose people who contribute the most have nothing left."""
    name = f"accounts_{request.param}_{tmp_path.name}"
    database = databases.make_database(name) if request.param == "postgres" else ""
    node = Node(tmp_path, database, "tests.factories.accounts_node")
    found = node.run("prepare")
    assert (found["whole"], found["charged"]) == ("", [BEFORE, BEFORE])
    return node


def test_killed_at_any_step_people_are_charged_for_what_they_take_part_in_and_for_nothing_else(node: Node) -> None:
    uncharged = SEALED[: SEALED.index("committed")]
    charged, removed = 0, {"named": 1, "transaction": 1}
    expected: dict[str, list[object]] = {}
    # Each process finds what the last one left, ends it, and is killed one step later.
    for before, step in zip((None, *SEALED), (*SEALED, "never"), strict=True):
        found = node.run("die", step, step)
        assert found["killed"] == (step != "never")
        assert (found["problem"], found["whole"], found["removed"]) == ("", "", removed.get(before or "", 0))
        if before is not None and before not in uncharged:
            charged += 1
            expected[before] = ["answered", WITHOUT, True]
        assert found["charged"] == [BEFORE + charged, BEFORE]
        assert found["most"] <= found["cap"]
        after = found["after"]
        assert after["releases"] == expected, "the draw that runs again is of those who were charged"
        assert (after["charged"], after["whole"]) == (found["charged"], "")
    assert charged == len(SEALED) - len(uncharged) and LENGTH > QUIET
