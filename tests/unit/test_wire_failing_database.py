"""A database that fails for a moment costs nobody a value, and nobody waits for an answer that never comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from apps.wire import asks, conversation
from apps.wire.hello import Greeted
from gridclient.program.graph import constant
from gridclient.wire import messages as m
from gridclient.wire.frames import pack_batch, unpack
from tests.unit.test_wire_sockets import Scenario, Socket, play

__all__ = ["play"]


async def failing(*_: Any) -> None:
    raise OperationalError("the server went away")


def said(socket: Socket) -> list[Any]:
    return [command for frame in socket.frames for command in m.decode_node(unpack(frame).body).commands]


def saying(number: int, *commands: m.ClientCommand) -> bytes:
    return pack_batch(m.encode(m.ClientBatch(number, list(commands), 0)))


async def until_said(socket: Socket, kind: type[Any]) -> Any:
    for _ in range(200):
        for command in said(socket):
            if isinstance(command, kind):
                return command
        await asyncio.sleep(0.01)
    raise AssertionError(said(socket))


def test_nodes_that_could_not_be_taken_are_asked_for_again(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "AGAIN_AFTER", 0.01)

    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        socket = Socket()
        assert await one.attach(socket, greeted)
        monkeypatch.setattr(one.session, "append", failing)
        await one.take(saying(2, m.Run([constant(0, "0" * 64)])), socket)
        await until_said(socket, m.Lost)
        assert not [command for command in said(socket) if isinstance(command, m.Error)]

    play(scenario)


def test_an_upload_that_could_not_begin_is_answered_by_its_number(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asks, "check_upload", failing)

    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        socket = Socket()
        assert await one.attach(socket, greeted)
        await one.take(saying(2, m.Upload(7, 8, "0" * 64, "values")), socket)
        error = await until_said(socket, m.Error)
        assert (error.code, error.transfer) == ("internal", 7)

    play(scenario)
