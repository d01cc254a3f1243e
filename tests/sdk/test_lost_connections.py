"""A cut costs nobody anything: what was asked is answered, what was computed is there, nothing happens twice."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gridclient as grid
from gridclient.node import Node
from gridclient.wire import messages as m
from tests.sdk.cuts import CHUNK, VALUES, Cut, fake, hospital, quick
from tests.sdk.fake_node import FakeNode

__all__ = ["fake", "hospital", "quick"]

ANSWERED = {"state": "approved", "answered_at": "2026-02-01T00:00:00Z"}


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


@pytest.mark.parametrize("tens", range(10))
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
