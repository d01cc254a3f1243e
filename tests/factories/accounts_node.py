"""A process that charges people each by itself, as a web process and its worker do, and dies where it's told.

Commands as of `ledger_node`. There are 20 people: the first ten contribute the most, the others a tenth of that.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

SEALED = ("written", "synced", "named", "transaction", "committed", "charged", "attempted", "drawn", "answered")
"""Where a process can be killed, in the order of one answer."""
PEOPLE, LOUD = 20, 10
LENGTH, QUIET = 1_000, 100
"""Of the contributions, in units of the grid."""
BEFORE = 11
"""Answers after which there may be people with nothing left."""


def main(command: str, *arguments: str) -> dict[str, Any]:
    import django

    django.setup()
    return dict(globals()[f"_{command}"](*arguments))


def _prepare() -> dict[str, Any]:
    from django.core.management import call_command

    from tests.factories.individuals import publish, town
    from tests.factories.people import make_user

    call_command("migrate", verbosity=0)
    owner, _ = make_user("owner", "owner"), make_user("scientist", "scientist")
    publish(owner, [0.5] * PEOPLE, range(PEOPLE), town(owner))
    for number in range(BEFORE):
        _answer(f"before-{number}", "")
    return _look()


def _contributions() -> Any:
    """int64 [people, 1], in the order of the identifiers."""
    import numpy as np

    return np.array([LENGTH] * LOUD + [QUIET] * (PEOPLE - LOUD), dtype=np.int64)[:, None]


def _identifiers() -> Any:
    import numpy as np

    names = sorted(hashlib.sha256(str(number).encode()).digest() for number in range(PEOPLE))
    return np.array(names, dtype="S32")


def _priced() -> tuple[Any, Any, Any]:
    from apps.accounts.models import User
    from apps.datasets.models import Dataset
    from tests.factories.budgets import held, priced, question

    user, dataset = User.objects.get(username="scientist"), Dataset.objects.get()
    asked = question(dataset, clips=(float(LENGTH),))
    grants = [held(dataset, 2.0, grant) for grant in range(1, 4)]
    return user, asked, priced(user, asked, *grants)


def _answer(key: str, step: str) -> None:
    """Seal, charge, draw and deliver; be killed at `step`."""
    from django.db import transaction

    from apps.budgets import accounts, ledger, outside, records

    def reached(place: str) -> None:
        if place == step:
            os.kill(os.getpid(), signal.SIGKILL)

    user, asked, price = _priced()
    keep, publish, sealed = records.keep, outside.publish, None

    def keeping(*given: Any) -> None:
        keep(*given)
        reached("named")

    def publishing(*given: Any, **named: Any) -> None:
        reached("committed")
        publish(*given, **named)

    records.keep, outside.publish = keeping, publishing
    try:
        while True:
            try:
                with transaction.atomic():
                    release = ledger.charge(user, asked, price, key=key, sealed=sealed)
                    reached("transaction")
                break
            except accounts.Unsealed as unsealed:
                sealed = _sealed(unsealed, price, reached)
    finally:
        records.keep, outside.publish = keep, publish
    reached("charged")
    number = ledger.attempt(release)
    reached("attempted")
    total = _drawn(release)
    reached("drawn")
    ledger.answered(release, number, data=str(total).encode(), dtype="uint8", shape=[1])
    reached("answered")
    ledger.delivered(release)


def _sealed(unsealed: Any, price: Any, reached: Any) -> Any:
    from django.conf import settings

    from apps.budgets import accounts, records
    from apps.compute import kernel, vector
    from apps.compute.costs import costs, factor
    from apps.compute.messages import Account
    from apps.core.durable import sync
    from tests.factories.ledger_node import _dataset

    pot, file = unsealed.pot, Path(settings.GRID_STORAGE_DIR) / "sealed"
    account = Account(
        str(records.folder(pot.id)), accounts.log(pot.id), pot.uniform, unsealed.limit, unsealed.worst, pot.order_grid,
        unsealed.tested,
    )  # fmt: skip
    cost = costs(kernel.squared_norms(_contributions()), factor(pot.order_grid, price.sigmas[0]), unsealed.worst)
    part = vector.Contribution(str(_dataset().pk), 1, cost, _identifiers)
    digest, alone = vector.seal(file, account, [part])
    reached("written")
    sync(file)
    reached("synced")
    return records.Sealed(digest, file, pot.id, unsealed.worst, pot.spent, unsealed.tested, alone)


def _drawn(release: Any) -> int:
    """The sum of whoever takes part, without noise: who did is what the test must see."""
    from apps.budgets import records
    from apps.compute import kernel, vector

    (charge,) = release.charges.all()
    record = vector.opened(records.place(charge.pot_id, release.record))
    ((dataset, version),) = json.loads(release.question)["versions"]
    return int(kernel.integer_sum(_contributions(), record.active(dataset, version, PEOPLE))[0])


def _die(step: str, key: str) -> dict[str, Any]:
    """Start, say what was found, answer a question, and be killed at `step`."""
    from apps.budgets import ledger, outside, records

    seen = _look()
    seen["problem"] = outside.at_start()
    seen["removed"] = records.remove_orphans()
    for release in ledger.unanswered():
        number = ledger.attempt(release)
        ledger.answered(release, number, data=str(_drawn(release)).encode(), dtype="uint8", shape=[1])
    print(json.dumps(seen | {"after": _look()}), flush=True)
    with suppress(BrokenPipeError):
        _answer(key, step)
    return {}


def _look() -> dict[str, Any]:
    from apps.budgets.models import Release
    from apps.budgets.verification import verify
    from tests.factories.individuals import pot_of, spent

    pot = pot_of(_domain())
    rows = Release.objects.exclude(key__startswith="before").order_by("seq")
    worst = Release.objects.get(seq=1).charges.get().amount
    due = [Fraction(amount, worst) * LENGTH**2 for amount in spent(_domain())]
    return {
        "releases": {row.key: [row.state, bytes(row.data or b"").decode(), row.may_exclude] for row in rows},
        "most": max(spent(_domain())), "cap": pot.cap, "whole": verify().problem,
        "charged": [round(float(due[place]) / size**2, 3) for place, size in ((0, QUIET), (-1, LENGTH))],
    }  # fmt: skip


def _domain() -> Any:
    from apps.budgets.models import Domain

    return Domain.objects.get(slug="town")


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)
