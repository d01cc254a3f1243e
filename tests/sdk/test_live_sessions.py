"""Sessions of a live node, seen and ended from Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gridclient.wire.errors import InvalidInputError, NotFoundError, NotPermittedError, SessionStoppedError
from tests.factories.crew import Crew, crew_of, eventually, sent
from tests.factories.grid import LiveGrid


@pytest.fixture(scope="module")
def crew(grid: LiveGrid) -> Iterator[Crew]:
    with crew_of(grid.hospital) as crew:
        yield crew


def session_of(viewer: Any, user: str) -> Any:
    found = eventually(lambda: [session for session in viewer.sessions() if session.user == user])
    assert len(found) == 1
    return found[0]


def test_an_administrator_lists_sessions_and_ends_one_for_good(crew: Crew) -> None:
    ana = crew.hire("scientist")
    values = sent(torch.ones(3), ana)
    assert values.sum().get() == 3
    listed = crew.admin.sessions()
    session = session_of(crew.admin, ana.user)
    assert ana.user in repr(crew.admin.sessions()) and "connected" in session._repr_html_()
    assert {"id", "user", "client", "opened", "open_asks", "worker"} <= set(dir(session)) and isinstance(listed, list)
    session.stop(reason="Maintenance tonight.")
    assert session.state == "stopping"
    assert eventually(lambda: ana.lost, seconds=1)
    for _ in range(2):
        with pytest.raises(SessionStoppedError, match=r"^An administrator of this node .*: Maintenance"):
            values.sum().get()
    assert eventually(lambda: ana.user not in {each.user for each in crew.admin.sessions()})
    with pytest.raises(NotFoundError):
        session.stop(reason="Once more.")


def test_one_sees_and_ends_ones_own_sessions_only(crew: Crew) -> None:
    ana, bob, auditor = crew.hire("scientist"), crew.hire("scientist"), crew.hire("auditor")
    assert sent(torch.ones(3), ana).sum().get() == 3
    mine = session_of(ana, ana.user)
    assert bob.sessions() == []
    with pytest.raises(NotPermittedError):
        session_of(auditor, ana.user).stop(reason="Because.")
    with pytest.raises(InvalidInputError):
        mine.stop(reason=" ")
    mine.stop(reason="From my phone.")
    assert eventually(lambda: ana.lost, seconds=1)
