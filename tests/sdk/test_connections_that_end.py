"""A connection that is lost for long, or for good: who waits hears of it, can stop waiting, and can leave."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gridclient as grid
from gridclient import progress, settings
from gridclient.node import Node
from gridclient.program.graph import Node as Operation
from gridclient.program.graph import Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, ConnectionLostError, SessionStoppedError
from tests.sdk.cuts import VALUES, Cut, fake, hospital, quick
from tests.sdk.fake_node import FakeNode

__all__ = ["fake", "hospital", "quick"]


def test_it_says_what_it_is_doing(
    fake: FakeNode, hospital: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gridclient")
    births = hospital.dataset("births").pointer()
    births.sum().get()
    seen: list[str] = []

    class Line:
        def draw(self, label: str, text: str, share: float | None) -> None:
            seen.append(label)
            if label.startswith("reconnecting"):
                seen.append(repr(hospital))
                seen.append("reconnecting" if "reconnecting" in hospital._repr_html_() else "")
                fake.turned_away.clear()

        def end(self, *, keep: bool) -> None: ...

    monkeypatch.setattr(progress, "_LONG", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.01)
    monkeypatch.setattr(progress, "screen", Line)
    fake.turned_away = [m.Goodbye("limit_exceeded", "No more sessions now.")] * 10_000
    fake.happens = Cut("take", "forget")
    assert torch.equal(births.sum().get(), VALUES.sum())
    line = next(label for label in seen if label.startswith("reconnecting"))
    assert line.startswith(f"reconnecting to {fake.url} (attempt ")
    assert f"<Node hospital at {fake.url} as bob, reconnecting>" in seen
    assert "reconnecting" in seen
    assert "reconnecting" not in repr(hospital) + hospital._repr_html_()
    levels = [(record.levelname, record.message.split(",")[0].split(":")[0]) for record in caplog.records]
    assert ("WARNING", "The connection to http") in levels
    assert levels[-1][0] == "INFO"


def test_nobody_is_asked_again_after_a_goodbye(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    births.sum().get()
    fake.on_command = lambda command: [m.Goodbye("authentication", "This token was revoked; sign in again.")]
    with pytest.raises(AuthenticationError, match="revoked"):
        births.sum().get()
    assert hospital.lost
    time.sleep(0.05)
    assert fake.greetings == 1


def test_who_was_away_when_the_session_was_stopped_hears_so_and_tries_no_more(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    births.sum().get()
    away = m.Goodbye("session_stopped", "An administrator of this node ended this session: Maintenance.")
    fake.turned_away, fake.happens = [away], Cut("take", "cut")
    with pytest.raises(SessionStoppedError, match="Maintenance"):
        births.sum().get()
    assert hospital.lost and fake.greetings == 1


def test_a_token_that_ended_meanwhile_ends_the_attempts(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    births.sum().get()
    tokens = dict(fake.tokens)
    fake.tokens.clear()
    fake.happens = Cut("take", "cut")
    with pytest.raises(AuthenticationError, match="not known"):
        births.sum().get()
    assert hospital.lost
    fake.tokens |= tokens


def test_who_wants_no_second_attempt_gets_the_error_at_once(
    fake: FakeNode, hospital: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "reconnect_for", 0.0)
    births = hospital.dataset("births").pointer()
    births.sum().get()
    fake.happens = Cut("take", "cut")
    with pytest.raises(ConnectionLostError):
        births.sum().get()
    assert fake.greetings == 1
    assert repr(hospital).endswith("lost>")


def test_a_session_too_large_to_be_said_again_survives_only_short_cuts(
    fake: FakeNode, hospital: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "replay_memory", 3000)
    births = hospital.dataset("births").pointer()
    sums = [(births * number).sum() for number in range(20)]
    assert torch.equal(sums[3].get(), (VALUES * 3).sum())
    fake.happens = Cut("take", "cut")
    assert torch.equal(sums[4].get(), (VALUES * 4).sum())
    fake.happens = Cut("take", "forget")
    with pytest.raises(ConnectionLostError, match="replay_memory"):
        sums[5].get()


def interrupted(call: Callable[[], Any]) -> None:
    main = threading.main_thread().ident
    assert main is not None
    # A shell starts what runs in the background deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupted_wait_leaves_a_usable_connection(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    fake.on_command = lambda command: [] if isinstance(command, (m.Get, m.Upload)) else None
    interrupted(births.sum().get)
    interrupted(lambda: grid.private_tensor(torch.rand(5)).send(hospital))
    fake.on_command = None
    assert torch.equal(births.sum().get(), VALUES.sum())
    fake.turned_away = [m.Goodbye("limit_exceeded", "No more sessions now.")] * 10_000
    fake.happens = Cut("take", "forget")
    interrupted(births.sum().get)
    fake.turned_away.clear()
    assert torch.equal(births.get(), VALUES)


def test_interrupted_connecting_can_be_done_again(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    wait = threading.Event()

    def slow(token: str, default: Any = None) -> Any:
        wait.wait(5)
        return "bob"

    class Tokens(dict[str, str]):
        get = staticmethod(slow)  # type: ignore[assignment]

    before, fake.tokens = fake.tokens, Tokens(fake.tokens)
    interrupted(births.sum().get)
    wait.set()
    fake.tokens = before
    assert torch.equal(births.sum().get(), VALUES.sum())


def test_close_does_not_wait_for_a_node_that_is_gone(fake: FakeNode, hospital: Node) -> None:
    hospital.dataset("births").pointer().sum().get()
    fake.turned_away = [m.Goodbye("limit_exceeded", "No more sessions now.")] * 10_000
    fake.happens = Cut("take", "forget")
    hospital.append(Operation(1000, "aten::neg", [Ref(0)]))
    until = time.monotonic() + 5
    while not hospital.reconnecting and time.monotonic() < until:
        time.sleep(0.001)
    hospital.close()
    assert hospital.lost
    assert not hospital.reconnecting
    fake.wrong.clear()


def test_what_is_recorded_while_nobody_is_there_is_said_later(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    births.sum().get()
    fake.turned_away = [m.Goodbye("limit_exceeded", "No more sessions now.")] * 10_000
    fake.happens = Cut("take", "cut")
    value = births
    for _ in range(300):
        value = value + torch.ones(6, dtype=torch.float64)
    small = hospital.recorder.input_constant(torch.ones(2000))
    fake.turned_away.clear()
    assert torch.equal(value.get(), VALUES + 300)
    assert small.sum().get() == 2000
