"""Sockets of one conversation that come, wait and go: frames of one never leave over another, and none stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from apps.compute.release import Caller
from apps.compute.workers import Workers
from apps.core.clock import now
from apps.wire import conversation, guard, parked
from apps.wire.hello import Greeted
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError
from gridclient.wire.frames import pack_batch, pack_chunk, unpack


class Socket:
    """Keeps what it is given; one that is stuck takes nothing."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.frames: list[bytes] = []
        self.closed = self.gone = False
        self.free = asyncio.Event()
        if not stuck:
            self.free.set()

    async def put(self, frame: bytes) -> bool:
        await self.free.wait()
        if self.gone:
            return False
        self.frames.append(frame)
        return True

    def replace(self) -> None:
        self.closed = True

    async def close(self, code: int) -> None:
        self.closed = True

    @property
    def said(self) -> list[str]:
        """The kinds of the commands, and of the chunks."""
        found = []
        for frame in map(unpack, self.frames):
            found += ["Chunk"] if frame.kind else [type(c).__name__ for c in m.decode_node(frame.body).commands]
        return found


def greeting(user: UUID) -> Greeted:
    return Greeted("ward", "dana", [], "", Caller(user, 1, now() + timedelta(hours=1)))


async def alive(*_: object) -> None:
    """Stands for the database, to which every token is good."""
    await asyncio.sleep(0)


Scenario = Callable[[conversation.Conversation, Greeted], Awaitable[None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Run something on a new conversation whose token lives."""

    async def run(scenario: Scenario) -> None:
        greeted = greeting(uuid4())
        one = conversation.Conversation(greeted, cast(Workers, None))
        await one.begin()
        try:
            await scenario(one, greeted)
        finally:
            await one.end()
            assert not set(parked._by_digest.values())

    monkeypatch.setattr(guard, "in_database", alive)
    return lambda scenario: asyncio.run(run(scenario))


def test_a_chunk_for_a_socket_that_is_gone_does_not_leave_over_the_next(play: Callable[[Scenario], None]) -> None:
    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        older, newer = Socket(), Socket()
        assert await one.attach(older, greeted)
        older.free.clear()
        sending = [asyncio.create_task(one.chunk(pack_chunk(1, 0, b"0")))]
        await asyncio.sleep(0)
        coming = asyncio.create_task(one.attach(newer, greeted))
        await asyncio.sleep(0)
        sending.append(asyncio.create_task(one.chunk(pack_chunk(1, 1, b"1"))))
        await asyncio.gather(coming, *sending)
        assert (older.closed, newer.said) == (True, ["Welcome"])

    play(scenario)


def test_of_sockets_that_wait_only_the_last_is_welcomed_and_the_others_are_closed(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        sockets = [Socket(stuck=True), *(Socket() for _ in range(3))]
        coming = []
        for socket in sockets:  # the first takes nothing; each next one comes while those before are not done
            coming.append(asyncio.create_task(one.attach(socket, greeted)))
            await asyncio.sleep(0)
        assert all(await asyncio.gather(*coming))
        assert [socket.closed for socket in sockets] == [True, True, True, False]
        assert [socket.said for socket in sockets] == [[], [], [], ["Welcome"]]

    play(scenario)


def test_a_session_that_ended_while_a_socket_waited_is_not_gone_on_with(play: Callable[[Scenario], None]) -> None:
    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        late = Socket()
        async with one._turn:
            coming = asyncio.create_task(one.attach(late, greeted))
            await asyncio.sleep(0)
            await one.end()
        assert not await coming
        assert late.said == []

    play(scenario)


def test_what_was_kept_for_a_client_does_not_leave_once_its_token_is_revoked(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def revoked(*_: object) -> None:
        await asyncio.sleep(0)
        raise AuthenticationError("It was revoked.")

    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        first, second = Socket(), Socket()
        assert await one.attach(first, greeted)
        one.detach(first, left=False)
        await one.reply(m.Submitted(1, "kept"))
        monkeypatch.setattr(guard, "in_database", revoked)
        one.guard.doubt.set()  # the commit of the revocation does this
        with pytest.raises(AuthenticationError):
            await one.attach(second, greeted)
        assert second.said == []

    play(scenario)


@pytest.mark.parametrize("how", ["bye", "close"])
def test_who_leaves_while_the_node_speaks_has_left(play: Callable[[Scenario], None], how: str) -> None:
    """And does not keep a worker and a place for as long as one whose socket was lost."""

    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        socket = Socket()
        assert await one.attach(socket, greeted)
        socket.gone = True
        await one.reply(m.Submitted(1, "nobody takes it"))
        if how == "bye":
            await one.take(pack_batch(m.encode(m.ClientBatch(2, [m.Bye()]))), socket)
        one.detach(socket, left=how == "close")
        await asyncio.sleep(0)
        assert one.ended

    play(scenario)


def test_a_goodbye_closes_the_socket_that_came_while_it_was_said(play: Callable[[Scenario], None]) -> None:
    async def scenario(one: conversation.Conversation, greeted: Greeted) -> None:
        socket = Socket()
        async with one._sending:
            coming = asyncio.create_task(one.attach(socket, greeted))
            await asyncio.sleep(0)
            leaving = asyncio.create_task(one.goodbye(AuthenticationError("It expired.")))
            await asyncio.sleep(0)
        assert await coming
        await leaving
        assert (socket.said, socket.closed) == (["Welcome", "Goodbye"], True)

    play(scenario)


def test_who_fills_the_node_loses_their_own_waiting_session_first(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.GRID_MAX_SESSIONS = 2

    async def scenario() -> None:
        theirs, mine = greeting(uuid4()), greeting(uuid4())
        waiting = []
        for greeted in (theirs, mine):  # theirs has waited for longer
            socket = Socket()
            waiting.append(await conversation.carried_on(socket, greeted, cast(Workers, None)))
            waiting[-1].detach(socket, left=False)
        next_one = await conversation.carried_on(Socket(), mine, cast(Workers, None))
        assert [each.ended for each in waiting] == [False, True]
        for each in (*waiting, next_one):
            await each.end()

    monkeypatch.setattr(guard, "in_database", alive)
    asyncio.run(scenario())
