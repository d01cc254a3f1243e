"""One table says what may happen to a request, and the picture in the docs is drawn from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from apps.datarequests.models import REASON_LIMIT, DataRequest
from apps.datarequests.texts import checked_reason
from apps.datarequests.transitions import BY, NEXT, State, check_can_move, diagram
from gridclient.wire.errors import ConflictError, InvalidInputError

ROOM = Path(__file__).resolve().parents[2] / "apps" / "datarequests"


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    reached = {State.SUBMITTED}
    while True:
        more = reached.union(*(NEXT[state] for state in reached))
        if more == reached:
            break
        reached = more
    assert set(NEXT) == reached == set(State)
    assert set(BY) == set(State) - {State.SUBMITTED}


@pytest.mark.parametrize("state", State)
def test_what_was_decided_once_is_never_decided_again(state: State) -> None:
    for target in State:
        request = DataRequest(state=state)
        if target in NEXT[state]:
            check_can_move(request, target)
        else:
            with pytest.raises(ConflictError) as refused:
                check_can_move(request, target)
            assert refused.value.details == {"state": state.value}


def test_only_one_place_writes_the_state() -> None:
    writers = [
        path.name
        for path in ROOM.rglob("*.py")
        if re.search(r"\.state\s*=[^=]|update\([^)]*\bstate\s*=", path.read_text())
    ]
    assert writers == ["transitions.py"]


def test_the_picture_shows_every_transition_of_the_table() -> None:
    drawn = diagram()
    assert drawn.startswith("stateDiagram-v2\n")
    for state, followers in NEXT.items():
        for follower in followers:
            assert f"{state.value} --> {follower.value}: {BY[follower]}" in drawn
        assert (f"{state.value} --> [*]" in drawn) == (not followers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        "x" * (REASON_LIMIT + 1),
        "a\x00b",
        "a\x1b[2Jb",
        "approve\u202eyned",
        "a\u2066b",
        "pay\u200bpal",
        "\ufeff",
    ],
)
def test_a_reason_that_deceives_its_reader_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        checked_reason(text)
    assert refused.value.details["field"] == "reason"


@pytest.mark.parametrize(
    "text", ["Monthly report", "two\nlines", "Grüße, 分析", "x" * REASON_LIMIT, "<script>alert(1)</script>"]
)
def test_an_honest_reason_is_kept_as_it_is(text: str) -> None:
    assert checked_reason(f"  {text}\n") == text
