"""A session over sockets that are lost at any point, between the SDK's and the node's real ends.

Whoever keeps to the protocol gets each answer once and right, whatever is cut, resumed, repeated or killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from hypothesis import Phase
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from apps.core.clock import now
from apps.wire import answers, guard, transfers
from gridclient.batches import hello
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, ConnectionLostError, InternalError
from tests.property.pair import LONG, Client, Line, Workers, caller, content, greet, numbers

T = TypeVar("T")
ENOUGH = 25
"""Passes of the loop after which nothing is left to do by itself."""


async def _at_once(function: Any, *args: object) -> Any:
    return function(*args)


class SessionAndResume(RuleBasedStateMachine):
    revoked = False

    def __init__(self) -> None:
        super().__init__()
        type(self).revoked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.who = caller(now())
        self.client, self.workers = Client(), Workers()
        self.line: Line | None = None
        self.node: Any = None
        self.nodes_seen: list[Any] = []
        self.unnoticed: list[tuple[Any, Line]] = []
        """Lost sockets that the node has not noticed yet."""
        self.killed = self.over = False
        self.puts_at_end: dict[Line, int] = {}
        self.tokens: list[str] = []
        self.held: set[int] = set()
        self.last_up: bytes | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        # At the first need: a machine that is only looked at is never torn down.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def do(self, work: Awaitable[T] | None = None) -> T | None:
        """Do it, and all that follows from it by itself."""

        async def settle() -> T | None:
            found = None if work is None else await asyncio.wait_for(work, 2)
            for _ in range(ENOUGH):
                await asyncio.sleep(0)
            return found

        return self.loop.run_until_complete(settle())

    def say(self, act: Any, *args: Any) -> None:
        async def within() -> None:
            act(*args)

        self.do(within())

    # --- what the client does ---

    @rule(nbytes=st.sampled_from([8, 24, LONG]))
    def runs(self, nbytes: int) -> None:
        self.say(self.client.run, nbytes)
        self.held.add(max(self.client.lengths))

    @precondition(lambda self: self.held and not self.over)
    @rule(data=st.data())
    def asks(self, data: st.DataObject) -> None:
        self.say(self.client.get, data.draw(st.sampled_from(sorted(self.held))))

    @precondition(lambda self: self._idle())
    @rule(data=st.data())
    def drops(self, data: st.DataObject) -> None:
        """A pointer is dropped; whoever still waits for its value holds it."""
        node = data.draw(st.sampled_from(self._idle()))
        self.held.discard(node)
        self.client.drop(node)

    def _idle(self) -> list[int]:
        waited = {node for node, ask in self.client.asked.values() if not self._settled(ask)}
        return sorted(self.held - waited)

    # --- what the line does ---

    @precondition(lambda self: self.line and self.line.up)
    @rule(most=st.integers(1, 5))
    def carries_up(self, most: int) -> None:
        assert self.line is not None
        for _ in range(min(most, len(self.line.up))):
            self.last_up = self.line.up.popleft()
            self.do(self.node.take(self.last_up, self.line))

    @precondition(lambda self: self.line and self.line.down)
    @rule(most=st.integers(1, 5))
    def carries_down(self, most: int) -> None:
        line = self.line
        assert line is not None
        for _ in range(min(most, len(line.down))):
            frame = line.down.popleft()
            self.say(self.client.hear, line, frame)
            if (welcome := self.client.dialogue.welcome) is not None and welcome.resume not in self.tokens:
                self.tokens.append(welcome.resume)

    @precondition(lambda self: self.line and not self.over)
    @rule(rounds=st.integers(1, 3), answered=st.booleans())
    def is_calm(self, rounds: int, answered: bool) -> None:
        """Everything arrives for a while; the last answers are on their way yet."""
        for number in range(rounds):
            if self.line and self.line.down and number:
                self.carries_down(len(self.line.down))
            if self.line and self.line.up:
                self.carries_up(len(self.line.up))
            if answered:
                self.answers(4)

    @precondition(lambda self: self.line)
    @rule(noticed=st.booleans())
    def is_cut(self, noticed: bool) -> None:
        """What was on its way is lost. The node may notice later than the client, or never."""
        line, self.line = self.line, None
        assert line is not None
        line.open = False
        if noticed:
            self.say(lambda: self.node.detach(line, left=False))
        else:
            self.unnoticed.append((self.node, line))
        if line.on_lost is not None:
            self.say(line.on_lost, None, "")

    @precondition(lambda self: self.unnoticed)
    @rule()
    def is_noticed(self) -> None:
        node, line = self.unnoticed.pop()
        self.say(lambda: node.detach(line, left=False))

    @precondition(lambda self: self.line is None and not self.over)
    @rule()
    def comes_back(self) -> None:
        self.line = Line()
        self.node = self.do(greet(self.who, self.client.hello(), self.workers, self.line))
        if self.node not in self.nodes_seen:
            self.nodes_seen.append(self.node)

    @precondition(lambda self: self.line and self.last_up and not self.over)
    @rule()
    def repeats(self) -> None:
        """A batch that comes again changes nothing."""
        if self.last_up and self.last_up[:1] == b"\0":
            self.do(self.node.take(self.last_up, self.line))

    # --- what the node does ---

    @precondition(lambda self: self.workers.living)
    @rule(times=st.integers(1, 4))
    def answers(self, times: int) -> None:
        for _ in range(times):
            for worker in self.workers.living:
                self.say(worker.answer)

    @precondition(lambda self: self.workers.living)
    @rule()
    def worker_dies(self) -> None:
        self.killed = True
        self.say(self.workers.living[-1].die)

    @precondition(lambda self: self.node and not self.line)
    @rule(again=st.integers(0, 3))
    def expires(self, again: int) -> None:
        """Nobody came back within a minute, or the process was started again. Rarer than a cut."""
        for node in self.nodes_seen:
            if not again:
                self.do(node.end())

    # --- who is somebody else ---

    @precondition(lambda self: self.tokens and not self.over)
    @rule(stale=st.booleans())
    def a_stranger_comes(self, stale: bool) -> None:
        """With another's token, or with one that its owner has long replaced: neither goes on with the session."""
        if stale and len(self.tokens) < 3:
            return
        who = self.who if stale else caller(now())
        resume = self.tokens[0 if stale else -1]
        line = Line()
        first = hello(m.Hello("token", m.PROTOCOL_VERSION, 1, "other", resume), 0)
        theirs = self.do(greet(who, first, Workers(), line))
        assert theirs is not None and theirs not in self.nodes_seen
        self.do(theirs.end())

    @precondition(lambda self: self.line and not self.over)
    @rule()
    def token_is_revoked(self) -> None:
        type(self).revoked = self.over = True
        for node in self.nodes_seen:
            if not node.ended:
                self.say(node.guard.doubt.set)

    # --- what holds ---

    @invariant()
    def replies_are_right(self) -> None:
        for node, ask in self.client.asked.values():
            if not ask.reply.done():
                continue
            error = ask.reply.exception()
            if error is None:
                answer = ask.reply.result()
                wanted = content(node, self.client.lengths[node])
                assert isinstance(answer, m.Answer)
                assert answer.data is None or answer.data == wanted
                if ask.incoming is not None and ask.incoming.received == len(wanted):
                    assert bytes(ask.incoming.buffer) == wanted
            else:
                allowed = [InternalError] * self.killed + [AuthenticationError, ConnectionLostError] * self.over
                assert isinstance(error, tuple(allowed)), error

    @invariant()
    def nothing_goes_wrong_beside(self) -> None:
        assert self.client.dialogue.error is None
        assert self.client.dialogue.failure is None or self.over, self.client.dialogue.failure

    @invariant()
    def batches_grow_and_nothing_follows_the_end(self) -> None:
        if self.line is None:
            return
        found = numbers([*self.line.down])
        assert found == sorted(set(found))
        if self.node.ended:
            assert self.puts_at_end.setdefault(self.line, self.line.puts) == self.line.puts

    def teardown(self) -> None:
        """In calm weather everybody is answered."""
        try:
            for _ in range(60 if not self.over else 0):
                if self.line is None:
                    self.comes_back()
                if self.line and self.line.up:
                    self.carries_up(5)
                if self.line and self.line.down:
                    self.carries_down(5)
                if self.workers.living:
                    self.answers(4)
                if self.node.ended and self.line is not None:
                    self.is_cut(True)
                if all(self._settled(ask) for _, ask in self.client.asked.values()):
                    break
            assert self.over or all(self._settled(ask) for _, ask in self.client.asked.values()), "nobody answers"
            self.replies_are_right()
        finally:
            for node in self.nodes_seen:
                self.do(node.end())
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.do()
            self.loop.close()

    def _settled(self, ask: Any) -> bool:
        incoming = ask.incoming
        if incoming is None or not ask.reply.done():
            return bool(ask.reply.done())
        return incoming.received == len(incoming.buffer) or incoming._error is not None


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and the token's row are looked at where the rest runs, so that a run is the same each time."""

    async def live(function: Any, token: int) -> None:
        if SessionAndResume.revoked:
            raise AuthenticationError("This token was revoked.")

    monkeypatch.setattr(guard, "in_database", live)
    monkeypatch.setattr(answers, "on_disk", _at_once)
    monkeypatch.setattr(transfers, "on_disk", _at_once)


def test_whoever_keeps_to_the_protocol_is_answered_once_and_right() -> None:
    # Not made smaller: that takes longer than a test may.
    run_state_machine_as_test(
        SessionAndResume,
        settings=limits(max_examples=120, stateful_step_count=40, derandomize=True, phases=[Phase.generate]),
    )
