"""A cut costs nobody anything: what was asked is answered, what was computed is there, nothing happens twice."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import gridclient as grid
from gridclient import backoff, progress, settings
from gridclient.node import Node
from gridclient.program.graph import Node as Operation
from gridclient.program.graph import Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, ConnectionLostError, SessionStoppedError
from tests.sdk.fake_node import FakeNode, running

CHUNK = 4096
VALUES = torch.arange(2048 * 6, dtype=torch.float64).reshape(-1, 6) / 8  # 24 chunks

ANSWERED = {"state": "approved", "answered_at": "2026-02-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST", 0.001)
    monkeypatch.setattr(backoff, "LONGEST", 0.01)
    monkeypatch.setattr("gridclient.transfers.CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("tests.sdk.fake_session.CHUNK_SIZE", CHUNK)


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        node.add("births", VALUES, [])
        yield node


@pytest.fixture
def hospital(fake: FakeNode) -> Iterator[Node]:
    with grid.connect(fake.url, username="bob", password="correct horse") as node:
        yield node


class Cut:
    """A verdict at the first such moment after `skip` others; of batches with a command of `kind` where it is given."""

    def __init__(self, moment: str, verdict: str, kind: type[Any] = object, skip: int = 0) -> None:
        self.moment, self.verdict, self.kind, self.left = moment, verdict, kind, skip
        self.happened = False

    def __call__(self, moment: str, what: Any) -> str | None:
        named = what.commands if isinstance(what, m.ClientBatch) else [what]
        if moment != self.moment or self.happened or not any(isinstance(each, self.kind) for each in named):
            return None
        self.left -= 1
        self.happened = self.left < 0
        return self.verdict if self.happened else None


def heard(fake: FakeNode, kind: type[Any]) -> list[Any]:
    return [command for command in fake.commands if isinstance(command, kind)]


def requested(node: Node, fake: FakeNode) -> Any:
    request = node.dataset("births").pointer().sum().request("Monthly report")
    assert len(fake.requests) == 1
    fake.requests[request.id] |= ANSWERED
    return request.get()


def published(node: Node, fake: FakeNode) -> Any:
    values = VALUES[:500]
    pointer = grid.private_tensor(values, name="wards", mock=values[:100]).send(node)
    assert len(fake.published) == 1
    return pointer.get()


def planned(node: Node, fake: FakeNode) -> Any:
    answer = node.keep_plan(b"plan" * CHUNK, name="plan", allow_download=False)
    assert fake.plans == [b"plan" * CHUNK]
    return torch.tensor(answer["nbytes"])


def state(node: Node, fake: FakeNode) -> Any:
    births = node.dataset("births").pointer()
    return node.take("module", ["weight"], [births + 1])["weight"]


ASKS: dict[str, tuple[Callable[[Node, FakeNode], Any], type[Any]]] = {
    "a value in the batch": (lambda node, _: node.dataset("births").pointer().sum().get(), m.Get),
    "a value in chunks": (lambda node, _: (node.dataset("births").pointer() * 2).get(), m.Get),
    "the state of a module": (state, m.Take),
    "a request": (requested, m.Request),
    "the answer of a request": (requested, m.Fetch),
    "a publication": (published, m.Publish),
    "a plan": (planned, m.Plan),
}
MOMENTS = [
    ("take", "cut"), ("take", "forget"), ("take", "lose"),
    ("taken", "cut"), ("taken", "forget"), ("taken", "lose"),
]  # fmt: skip


@pytest.mark.parametrize(("moment", "verdict"), MOMENTS, ids=lambda word: word)
@pytest.mark.parametrize("ask", ASKS)
def test_an_ask_is_answered_once_whatever_is_cut(
    fake: FakeNode, hospital: Node, ask: str, moment: str, verdict: str
) -> None:
    steps, kind = ASKS[ask]
    fake.happens = cut = Cut(moment, verdict, kind)
    found = steps(hospital, fake)
    assert cut.happened
    fake.happens = lambda *_: None
    fake.requests.clear(), fake.published.clear(), fake.plans.clear()
    with grid.connect(fake.url, username="bob", password="correct horse") as undisturbed:
        assert torch.equal(found, steps(undisturbed, fake))


@pytest.mark.parametrize("verdict", ["cut", "forget"])
@pytest.mark.parametrize("ask", ASKS)
def test_a_reply_that_was_lost_is_said_again(fake: FakeNode, hospital: Node, ask: str, verdict: str) -> None:
    kinds = (m.Answer, m.Submitted, m.Estimated, m.Published, m.Planned)
    cut = Cut("reply", verdict)
    fake.happens = lambda moment, what: (
        cut(moment, what) if moment == "reply" and what and isinstance(what[0], kinds) else None
    )
    assert ASKS[ask][0](hospital, fake) is not None
    assert cut.happened


@pytest.mark.parametrize("verdict", ["cut", "forget"])
@pytest.mark.parametrize("offset", [0, 1, 8, 9, 23])
def test_an_answer_in_chunks_survives_a_cut_anywhere(fake: FakeNode, hospital: Node, verdict: str, offset: int) -> None:
    fake.happens = cut = Cut("send chunk", verdict, skip=offset)
    births = hospital.dataset("births").pointer()
    assert torch.equal((births + 1).get(), VALUES + 1)
    assert cut.happened
    assert len(heard(fake, m.Get)) == (1 if verdict == "cut" else 2)


@pytest.mark.parametrize("verdict", ["cut", "forget"])
@pytest.mark.parametrize("offset", [0, 1, 8, 9, 23])
def test_a_constant_in_chunks_survives_a_cut_anywhere(
    fake: FakeNode, hospital: Node, verdict: str, offset: int
) -> None:
    taken: list[Any] = []
    cut = Cut("chunk", verdict, skip=offset)

    def happens(moment: str, what: Any) -> str | None:
        if moment == "chunk":
            taken.append(what)
        return cut(moment, what)

    fake.happens = happens
    pointer = hospital.recorder.input_constant(VALUES) * 2
    assert torch.equal(pointer.get(), VALUES * 2)
    assert cut.happened
    if verdict == "cut":  # no chunk but the one that was lost came twice
        assert len(taken) == 24 + 1
        assert len(heard(fake, m.Upload)) == 1


def test_what_was_computed_before_a_cut_is_equal_after_it(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    noise = torch.rand(6, dtype=torch.float64)
    weighted = (births * noise).sum(0)
    before = weighted.get()
    for verdict in ("forget", "cut", "lose"):
        fake.happens = Cut("take", verdict)
        assert torch.equal(weighted.get(), before)
        assert torch.equal((weighted * 1).get(), before)
    assert fake.sessions == 2


def test_dropped_values_are_computed_again_only_where_live_ones_need_them(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    for _ in range(20):
        (births * 2.5).sum().get()
    needed = births * 3
    kept = (needed + 1).sum()
    del needed
    before = kept.get()
    fake.happens = Cut("take", "forget")
    fake.commands.clear()
    assert torch.equal(kept.get(), before)
    again = fake.commands[1 + next(i for i, command in enumerate(fake.commands) if isinstance(command, m.Hello)) :]
    operations = [node.op for command in again if isinstance(command, m.Run) for node in command.nodes]
    assert operations == ["grid::asset", "aten::mul.Tensor", "aten::add.Tensor", "aten::sum"]
    # What nobody holds is dropped there too.
    assert [len(command.values) for command in again if isinstance(command, m.Drop)] == [2]


def test_many_threads_ask_across_a_cut(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births").pointer()
    chance, left = random.Random(7), [12]

    def happens(moment: str, what: Any) -> str | None:
        if moment == "lose" or left[0] == 0 or chance.random() > 0.05:
            return None
        left[0] -= 1
        return chance.choice(["cut", "forget"])

    fake.happens = happens
    wrong: list[Any] = []

    def many(number: int) -> None:
        for turn in range(12):
            here = float(number * 100 + turn)
            found = (births[:2] * here).sum().get()
            if not torch.equal(found, (VALUES[:2] * here).sum()):
                wrong.append((number, turn, found))

    threads = [threading.Thread(target=many, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def script(seed: int, node: Node, fake: FakeNode) -> list[Any]:
    """What a random program gives: computed, dropped, asked, requested and published."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    pool, found = [node.dataset("births").pointer()[:400]], list[Any]()
    for _ in range(14):
        one, other = chance.choice(pool), chance.choice(pool)
        match chance.randrange(10):
            case 0:
                pool.append(one + torch.rand(6, dtype=torch.float64))
            case 1:
                pool.append(one * torch.rand(400, 6, dtype=torch.float64))
            case 2 | 3:
                pool.append(one - other if chance.random() < 0.5 else torch.relu(one * 0.5))
            case 4:
                values, _ = one.sort(0)
                pool.append(values)
            case 5 if len(pool) > 1:
                del one, other
                pool.pop(chance.randrange(len(pool)))
            case 6:
                found.append(one.get())
            case 7:
                request = one.mean(0).request("Why not")
                fake.requests[request.id] |= ANSWERED
                found.append(request.get())
            case 8:
                found.append(grid.private_tensor(torch.rand(900, 2), name=f"d{seed}").send(node).get())
            case _:
                found.append(one.sum().get())
    return [*found, *(pointer.get() for pointer in pool)]


@pytest.mark.parametrize("tens", range(20))
def test_a_random_program_gives_the_same_with_and_without_cuts(fake: FakeNode, tens: int) -> None:
    happened = 0
    for seed in range(10 * tens, 10 * tens + 10):
        results = []
        for disturbed in (False, True):
            chance = random.Random(seed)
            left = [8 if disturbed else 0]

            def happens(moment: str, _: Any, chance: random.Random = chance, left: list[int] = left) -> str | None:
                if not left[0] or chance.random() > 0.1:
                    return None
                left[0] -= 1
                if moment in ("take", "taken") and chance.random() < 0.2:
                    return "lose"
                return "forget" if chance.random() < 0.3 else "cut"

            fake.happens = happens
            fake.requests.clear(), fake.published.clear()
            with grid.connect(fake.url, token="grd_12345678_bob") as node:
                results.append((script(seed, node, fake), len(fake.requests), len(fake.published)))
            fake.happens = lambda *_: None
            happened += 8 - left[0] if disturbed else 0
        (calm, *counts), (rough, *same) = results
        assert counts == same
        assert len(calm) == len(rough)
        assert all(torch.equal(one, other) for one, other in zip(calm, rough, strict=True))
    assert happened > 10


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
