"""People with accounts of their own: a domain that charges each by itself, and datasets in it. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from django.db import transaction
from numpy.typing import NDArray
from safetensors.numpy import save_file

from apps.accounts.models import User
from apps.budgets import accounts, records
from apps.budgets.actions import open_domain, place
from apps.budgets.models import Domain, Pot, Release
from apps.compute import vector
from apps.datasets.actions import create_dataset
from apps.datasets.ingest import ingest
from apps.datasets.models import Dataset
from apps.permissions.actions import give, own
from gridclient.wire.messages import Column, PublishSpec


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


def pot_of(domain: Domain) -> Pot:
    return Pot.objects.get(domain=domain, kind="queries", epoch=domain.epoch)


def spent(domain: Domain) -> list[int]:
    """What each entity was charged by itself, in ascending order."""
    pot = pot_of(domain)
    return sorted(vector.spent(records.folder(pot.pk), accounts.log(pot.pk)).tolist())


def charged() -> int:
    """How many releases there are."""
    return Release.objects.count()
