"""A session that gets no worker begins anew: what its client said meanwhile would be missing otherwise."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import pytest

from apps.compute import sessions
from apps.compute.release import Caller
from apps.compute.workers import NO_WORKER, Workers
from apps.core.clock import now
from gridclient.program.graph import constant
from gridclient.wire.errors import InternalError


class Full:
    """Stands for machines that have no place."""

    async def open(self, *_: Any) -> None:
        raise InternalError(NO_WORKER)


def test_a_session_without_a_place_says_so_and_is_lost_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "AGAIN_AFTER", 0.01)

    async def scenario() -> None:
        lost = asyncio.Event()
        caller = Caller(uuid4(), 1, now() + timedelta(hours=1))
        session = sessions.Session(cast(Workers, Full()), caller=caller, on_lost=lost.set)
        with pytest.raises(InternalError, match="No worker could be started"):
            await session.append([constant(0, "0" * 64)])
        assert not lost.is_set()
        with pytest.raises(InternalError, match="ask again"):
            await session.append([constant(1, "0" * 64)])
        await lost.wait()
        session.close()
        assert not session.folder.exists()

    asyncio.run(scenario())
