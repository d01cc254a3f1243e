"""Who counts in a private answer, and that nothing is drawn before it is paid for."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from apps.accounts.models import AccessToken
from apps.accounts.token_actions import create_token
from apps.budgets import ledger, pricing
from apps.budgets.models import Release
from apps.budgets.states import State
from apps.compute import drawing, private, release
from apps.compute.messages import Draw, Limits, Value, Weigh, Weighed
from apps.compute.models import KeptAnswers
from apps.compute.spending import FAILED, Wanted, expected
from apps.compute.workers import Worker
from apps.core.database import in_database
from apps.permissions.actions import give
from gridclient.program.graph import Ref
from gridclient.wire.errors import (
    BudgetExhaustedError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    TooNoisyError,
)
from gridclient.wire.messages import TensorHeader
from tests.factories.budgets import answer
from tests.factories.people import People
from tests.factories.programs import Recorded, tensor_asset
from tests.factories.queue import publish
from tests.factories.weighing import weighed_sum

QUIET = 1e-3
"""A unit of noise that hides nobody: what is drawn shows what was added up."""
VALUES = torch.arange(40, dtype=torch.float64) / 40


def drawn(recorded: Recorded, value: Ref, unit: float = QUIET) -> torch.Tensor:
    session = recorded.session
    weighed = private.weigh(session.program, session.reader, Weigh(1, value))
    return private.draw(session.program, session.reader, Draw(2, value, unit, weighed.clips, ""))


def test_null_records_contribute_nothing_after_every_map(tmp_path: Path) -> None:
    recorded = Recorded()
    there = torch.arange(40) % 2 == 0
    x = recorded.bind(tensor_asset(tmp_path, VALUES[:, None], columns=["a"], presence=there.tolist()))
    total = recorded("aten::sum.dim_IntList", recorded("aten::exp", recorded("aten::clamp", x, -1.0, 1.0)), [0])
    assert drawn(recorded, total).item() == pytest.approx(VALUES[there].exp().sum().item(), abs=0.1)


def test_rows_that_do_not_fit_into_memory_are_refused_before_they_are_charged(tmp_path: Path) -> None:
    recorded = Recorded(Limits(memory=2**12))
    x = recorded.bind(tensor_asset(tmp_path, VALUES[:, None], columns=["a"]))
    wide = recorded("aten::expand", x, [40, 30])
    total = recorded("aten::sum.dim_IntList", wide, [0])
    session = recorded.session
    with pytest.raises(LimitExceededError, match="memory"):
        private.weigh(session.program, session.reader, Weigh(1, total))


def test_what_was_charged_for_other_clips_is_not_drawn(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, VALUES[:, None], columns=["a"]))
    total = recorded("aten::sum.dim_IntList", x, [0])
    session = recorded.session
    with pytest.raises(InternalError, match="charged"):
        private.draw(session.program, session.reader, Draw(2, total, 8.0, [0.5], ""))


def test_the_price_depends_on_no_value(tmp_path: Path) -> None:
    """Two datasets that differ in every value, with the same declarations, weigh the same."""
    found = []
    for number, values in enumerate((VALUES, VALUES.flip(0) / 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        recorded = Recorded()
        x = recorded.bind(tensor_asset(folder, values[:, None], columns=["a"]))
        session = recorded.session
        value = recorded("aten::mul.Tensor", recorded("aten::sum.dim_IntList", x, [0]), 0.5)
        found.append(private.weigh(session.program, session.reader, Weigh(1, value)))
        assert not session.reader.has(x.node), "nothing private was computed"
    assert found[0] == found[1]


@pytest.mark.django_db(transaction=True)
class TestCharging:
    """With a worker that notes what it is asked."""

    @pytest.fixture
    def caller(self, people: People) -> release.Caller:
        create_token(user=people.scientist, name="laptop", expires=None, by=people.scientist)
        token = AccessToken.objects.get()
        return release.Caller(people.scientist.pk, token.pk, token.expires)

    @pytest.fixture
    def weighed(self, people: People) -> Weighed:
        births = publish(people.owner)
        give(births, to=people.scientist, right="release", epsilon=0.3, reason="Study 7", by=people.owner)
        return weighed_sum(births, 1_000)

    def take(
        self, weighed: Weighed, caller: release.Caller, path: Path, asked: list[Any], *, epsilon: float = 0.2,
        key: str = "", fails: bool = False,
    ) -> release.Released:  # fmt: skip
        async def ask(question: Any) -> Value:
            asked.append(question)
            if fails:
                raise InternalError("a secret text")
            return Value(1, TensorHeader("float64", [], 8), torch.tensor(4.5).double().numpy().tobytes(), "tensor")

        worker = cast(Worker, SimpleNamespace(ask=ask))
        wanted = Wanted(epsilon)
        return asyncio.run(release.private(worker, Ref(1), weighed, wanted, caller=caller, key=key, path=path))

    def test_a_charge_is_there_before_anything_is_drawn(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path
    ) -> None:
        asked: list[Any] = []
        refused: BudgetExhaustedError | None = None
        while refused is None and len(asked) < 100:
            before = len(asked)
            try:
                self.take(_other(weighed, len(asked)), caller, tmp_path / "answer", asked)
            except BudgetExhaustedError as error:
                refused = error
        assert refused is not None
        assert refused.remaining < 0.1
        assert len(asked) == before >= 1, "nothing more was drawn"
        assert {row.state for row in Release.objects.all()} == {State.DELIVERED}

    def test_the_same_key_is_drawn_and_charged_once(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path
    ) -> None:
        asked: list[Any] = []
        first = self.take(weighed, caller, tmp_path / "answer", asked, key="once")
        again = self.take(weighed, caller, tmp_path / "answer", asked, key="once")
        assert first.answer.data == again.answer.data
        assert (len(asked), Release.objects.count()) == (1, 1)

    def test_a_draw_that_fails_stays_charged_and_tells_one_text(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path
    ) -> None:
        for _ in range(2):
            with pytest.raises(InternalError) as caught:
                self.take(weighed, caller, tmp_path / "answer", [], key="once", fails=True)
            assert caught.value.message == FAILED
        row = Release.objects.get()
        assert (row.state, row.charges.count(), row.data) == (State.VOID, 1, None)

    def test_who_comes_back_for_an_answer_that_was_given_up_is_told_the_one_text(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def lost(*_: Any) -> None:
            raise asyncio.CancelledError  # the client, between charge and draw

        with monkeypatch.context() as before:
            before.setattr(drawing, "draw", lost)
            with pytest.raises(asyncio.CancelledError):
                self.take(weighed, caller, tmp_path / "answer", [], key="once")
        row = Release.objects.get()
        assert row.state == State.CHARGED
        assert ledger.give_up_unanswered(now=row.at + ledger.VOID_AFTER) == 1
        with pytest.raises(InternalError) as caught:
            self.take(weighed, caller, tmp_path / "answer", [], key="once")
        assert caught.value.message == FAILED

    def test_what_became_of_an_answer_meanwhile_is_told_and_nothing_is_drawn(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another attempt kept it, or it was given up, after this one found that it was charged."""
        draw = drawing.draw

        async def answered(worker: Worker, question: Draw, charged: Release) -> None:
            await in_database(answer, charged)
            await draw(worker, question, charged)

        async def given_up(worker: Worker, question: Draw, charged: Release) -> None:
            await in_database(ledger.void, charged, "Nobody came back for it.")
            await draw(worker, question, charged)

        asked: list[Any] = []
        monkeypatch.setattr(drawing, "draw", answered)
        assert self.take(weighed, caller, tmp_path / "answer", asked, key="1").answer.data == b"12345678"
        monkeypatch.setattr(drawing, "draw", given_up)
        with pytest.raises(InternalError) as caught:
            self.take(_other(weighed, 1), caller, tmp_path / "answer", asked, key="2", epsilon=0.1)
        assert (caught.value.message, asked) == (FAILED, [])

    def test_an_answer_leaves_at_a_time_that_follows_from_public_metadata(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path
    ) -> None:
        """However early a worker has drawn, or failed: never before the time that is expected of such a question."""
        fields = {name: getattr(weighed, name) for name in weighed.__struct_fields__}
        large = Weighed(**fields | {"numbers": 3_000_000})
        assert expected(large) >= 0.3
        for number, fails in enumerate((False, True)):
            begin = time.monotonic()
            try:
                self.take(_other(large, number), caller, tmp_path / "answer", [], fails=fails)
            except InternalError:
                assert fails
            assert time.monotonic() - begin >= expected(large)

    def test_what_the_kernel_would_refuse_is_not_charged(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So many people that a grid that fits is too coarse for so little noise."""
        monkeypatch.setattr(pricing, "_check_population", lambda *_: None)
        fields = {name: getattr(weighed, name) for name in weighed.__struct_fields__}
        asked: list[Any] = []
        with pytest.raises(InvalidInputError, match="smaller epsilon"):
            self.take(Weighed(**fields | {"entities": [2**34]}), caller, tmp_path / "answer", asked)
        assert (asked, Release.objects.count()) == ([], 0)

    def test_nobody_fills_the_disk_with_answers_that_cost_next_to_nothing(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path, settings: Any
    ) -> None:
        settings.GRID_MAX_ANSWER_BYTES = 3 * 8 * 2**16
        fields = {name: getattr(weighed, name) for name in weighed.__struct_fields__}
        asked: list[Any] = []
        wide = Weighed(**fields | {"shape": [2**16]})

        def ask(which: Weighed, number: int, key: str = "") -> None:
            question = _other(which, number, of_reach=1e-6)
            self.take(question, caller, tmp_path / "answer", asked, epsilon=1e-3, key=key)

        for number in range(2):
            ask(wide, number, f"{number}")
        with pytest.raises(LimitExceededError, match="GRID_MAX_ANSWER_BYTES") as caught:
            ask(wide, 2)
        assert caught.value.details["limit"] == settings.GRID_MAX_ANSWER_BYTES
        assert (len(asked), Release.objects.count()) == (2, 2)
        # What was kept is delivered as often as asked, and a smaller one has room.
        ask(wide, 1, "1")
        ask(weighed, 3)
        kept = KeptAnswers.objects.get()
        assert kept.user_id == caller.user and 2 * 8 * 2**16 < kept.nbytes < settings.GRID_MAX_ANSWER_BYTES

    def test_what_says_nothing_or_is_no_epsilon_is_not_charged(
        self, weighed: Weighed, caller: release.Caller, tmp_path: Path
    ) -> None:
        asked: list[Any] = []
        with pytest.raises(TooNoisyError):
            self.take(_other(weighed, 1, of_reach=1.0), caller, tmp_path / "answer", asked)
        for epsilon in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(InvalidInputError):
                self.take(weighed, caller, tmp_path / "answer", asked, epsilon=epsilon)
        assert (asked, Release.objects.count()) == ([], 0)


def _other(weighed: Weighed, number: int, *, of_reach: float = 1e-3) -> Weighed:
    """Another question like it."""
    fields = {name: getattr(weighed, name) for name in weighed.__struct_fields__}
    return Weighed(**fields | {"program_hash": f"{number:064x}", "of_reach": of_reach})
