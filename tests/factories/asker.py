"""A person who asks for private answers, with a real worker in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from apps.accounts.models import AccessToken, User
from apps.accounts.token_actions import create_token
from apps.compute import private, release
from apps.compute.messages import Failed, Reply, Weigh
from apps.compute.spending import Wanted
from apps.compute.workers import Worker
from apps.datasets.models import Dataset
from apps.datasets.queries import asset_spec
from gridclient.program.graph import Ref
from tests.factories.programs import Recorded


class Asker:
    """A person with a session whose worker runs here. `asked`: what the worker was told, by class and in order."""

    def __init__(self, user: User, folder: Path) -> None:
        create_token(user=user, name=f"laptop {AccessToken.objects.count()}", expires=None, by=user)
        token = AccessToken.objects.filter(user=user).latest("pk")
        self.caller = release.Caller(user.pk, token.pk, token.expires)
        self.recorded = Recorded()
        self.folder = folder
        self.asked: list[str] = []
        self.before: Callable[[Any], None] = lambda question: None
        self._number = 0

    def total(self, *datasets: Dataset, times: float = 1.0) -> Ref:
        """The sum of everything in these datasets, `times` a number that makes it another question."""
        found = [self.rows(dataset) for dataset in datasets]
        sums = [self.recorded("aten::sum.dim_IntList", rows, [0]) for rows in found]
        while len(sums) > 1:
            sums.append(self.recorded("aten::add.Tensor", sums.pop(), sums.pop()))
        return self.recorded("aten::mul.Tensor", sums[0], times)

    def rows(self, dataset: Dataset) -> Ref:
        return self.recorded.bind(asset_spec(dataset.current))

    def take(self, value: Ref, epsilon: float = 1.0, *, key: str = "") -> release.Released:
        """Ask for a private answer, as a session does."""
        session = self.recorded.session
        weighed = private.weigh(session.program, session.reader, Weigh(1, value))
        self._number += 1
        path = self.folder / f"answer-{self._number}"
        return asyncio.run(
            release.private(
                cast(Worker, self), value, weighed, Wanted(epsilon), caller=self.caller, key=key, path=path
            )
        )  # fmt: skip

    def die_before_the_draw(self, value: Ref, *, key: str) -> None:
        """Ask, and end after the charge as a process that is killed."""

        def dies(question: Any) -> None:
            if type(question).__name__ == "Draw":
                raise KeyboardInterrupt

        self.before = dies
        with pytest.raises(KeyboardInterrupt):
            self.take(value, key=key)
        self.before = lambda question: None

    async def ask(self, question: Any) -> Reply:
        self.asked.append(type(question).__name__)
        await asyncio.to_thread(self.before, question)
        reply = self.recorded.session.handle(question, 0)
        assert reply is not None
        if isinstance(reply, Failed):
            raise reply.error()
        return reply


def number(answer: release.Released) -> float:
    return float(np.frombuffer(answer.answer.data or b"", np.float64)[0])
