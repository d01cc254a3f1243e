"""The guard of a connection's token: a failing database makes nobody trusted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from django.db import OperationalError

from apps.compute.release import Caller
from apps.compute.workers import Workers
from apps.core.clock import now
from apps.wire import conversation, guard
from apps.wire.hello import Greeted
from gridclient.wire.errors import AuthenticationError, GridError, InternalError


def test_a_database_that_fails_ends_the_connection_and_leaves_the_doubt(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [None, OperationalError("the server went away"), AuthenticationError("It was revoked.")]
    asked = asyncio.Event()
    said: list[GridError] = []

    async def answered(*_: Any) -> None:
        asked.set()
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    async def scenario() -> None:
        caller = Caller(uuid4(), 1, now() + timedelta(hours=1))
        one = conversation.Conversation(Greeted("ward", "dana", [], "", caller), cast(Workers, None))
        one.guard.doubt.set()

        async def goodbye(error: GridError) -> None:
            said.append(error)

        monkeypatch.setattr(one, "goodbye", goodbye)
        guard = asyncio.create_task(one._end_with_token())
        await asked.wait()
        one.guard.doubt.set()
        await guard
        with pytest.raises(AuthenticationError):
            await one.guard.check()

    monkeypatch.setattr(guard, "in_database", answered)
    asyncio.run(scenario())
    assert [type(error) for error in said] == [InternalError]
    assert answers == []
    assert "token could not be looked at" in caplog.text
