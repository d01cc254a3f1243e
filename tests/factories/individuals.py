"""People with accounts of their own, in one process: a domain that charges each by itself, and a worker beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from django.db import transaction
from numpy.typing import NDArray
from safetensors.numpy import save_file

from apps.accounts.models import AccessToken, User
from apps.accounts.token_actions import create_token
from apps.budgets import accounts, records
from apps.budgets.actions import open_domain, place
from apps.budgets.models import Domain, Pot, Release
from apps.compute import private, release, vector
from apps.compute.messages import Failed, Reply, Weigh
from apps.compute.spending import Wanted
from apps.compute.workers import Worker
from apps.datasets.actions import create_dataset
from apps.datasets.ingest import ingest
from apps.datasets.models import Dataset
from apps.datasets.queries import asset_spec
from apps.permissions.actions import give, own
from gridclient.program.graph import Ref
from gridclient.wire.messages import Column, PublishSpec
from tests.factories.programs import Recorded


def town(owner: User, slug: str = "town", accounting: str = "individual") -> Domain:
    return open_domain(slug, statement="Others.", entities=2_000, accounting=accounting, by=owner)


def publish(
    owner: User, values: Sequence[float], people: Sequence[int] | None, domain: Domain | None, *, name: str = "Visits",
    most: int = 1,
) -> Dataset:  # fmt: skip
    """A column of numbers from 0 to 1, each with whose it is, placed in a domain."""
    spec = PublishSpec(
        kind="tensor", name=name, columns=[Column("a", low=0.0, high=1.0)],
        entities=None if people is None else "", max_rows_per_entity=most,
    )  # fmt: skip
    tensors: dict[str, NDArray[Any]] = {"values": np.array(values, dtype=np.float64)[:, None]}
    if people is not None:
        tensors["entities"] = np.array(people, dtype=np.int64)
    with TemporaryDirectory() as folder:
        upload, out = Path(folder) / "upload", Path(folder) / "out"
        save_file(tensors, upload)
        out.mkdir()
        ingested = ingest(spec, upload, None, b"k" * 32, out)
        with transaction.atomic():
            dataset = create_dataset(spec=spec, ingested=ingested, folder=out)
            own(dataset, owner=owner)
    if domain is not None:
        place(dataset, domain, by=owner)
    return dataset


def allow(dataset: Dataset, user: User, by: User, *, times: int = 3) -> None:
    """So many allowances of the whole pot: together, they are more than it holds."""
    for _ in range(times):
        give(dataset, to=user, right="release", epsilon=2.0, reason="Study 7", by=by)


class Asker:
    """A person with a session whose worker runs here. `asked`: what the worker was told, by class and in order."""

    def __init__(self, user: User, folder: Path) -> None:
        create_token(user=user, name="laptop", expires=None, by=user)
        token = AccessToken.objects.get(user=user)
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


def pot_of(domain: Domain) -> Pot:
    return Pot.objects.get(domain=domain, kind="queries", epoch=domain.epoch)


def spent(domain: Domain) -> list[int]:
    """What each entity was charged by itself, in ascending order."""
    pot = pot_of(domain)
    return sorted(vector.spent(records.folder(pot.pk), accounts.log(pot.pk)).tolist())


def charged() -> int:
    """How many releases there are."""
    return Release.objects.count()
