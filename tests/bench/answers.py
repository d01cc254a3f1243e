"""A private answer end to end, beside an exact one of the same run: over loopback, charged, drawn, stored, delivered.

Each question is another column, so that none is answered from the store. A private answer leaves at a time that is a
power of two of a millisecond: what is waited for that is part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import gridclient as grid
from apps.budgets import accountant
from tests.bench.slice import PASSWORD, one_node, repeat

QUESTIONS = 60
TIMES = 3.0
"""At most so many exact answers."""
STEP_MS = 5.0
"""Most for one charge of the accountant."""


def run() -> bool:
    """Print the table; whether every target was met."""
    with one_node() as (place, _):
        return _table(place)


def _table(place: dict[str, Any]) -> bool:
    admin = grid.connect(place["url"], **place["admin"])
    for name, role in (("olivia", "owner"), ("bob", "scientist")):
        admin.create_user(name, password=PASSWORD, roles=[role])
    owner = grid.connect(place["url"], username="olivia", password=PASSWORD)
    values = torch.rand(1000, 2 * QUESTIONS, dtype=torch.float64)
    columns = [f"c{number}" for number in range(2 * QUESTIONS)]
    records = grid.private_tensor(values, bounds=(0.0, 1.0), columns=columns)
    name = records.tag("#bench").describe("Numbers for a benchmark.").send(owner).dataset
    for right in ("aggregate", "release"):
        owner.dataset(name).grant("bob", right, reason="Benchmark.", **({"epsilon": 2.0} if right == "release" else {}))
    node = grid.connect(place["url"], username="bob", password=PASSWORD)
    pointer = node.search("#bench")[0]
    exact = _each([pointer[:, number].sum() for number in range(QUESTIONS)], lambda each: each.get())
    noisy = _each([pointer[:, number].sum() for number in range(QUESTIONS)], lambda each: each.get(epsilon=0.05))
    estimate = _each([pointer[:, -1].sum()] * QUESTIONS, lambda each: each.estimate(epsilon=0.05))
    order = accountant.order_of(2.0, 1e-6)
    step = repeat(lambda: accountant.charge(order, accountant.ratio([1.0], [8.06])), 50)
    print("answers: medians over loopback in milliseconds")
    met = noisy <= TIMES * exact, step <= STEP_MS
    print(f"  {'an exact answer, audited':<46}{exact:9.3f}")
    print(f"  {'a private answer':<46}{noisy:9.3f}{f'{noisy / exact:.1f} of at most {TIMES:g} x':>24}{_missed(met[0])}")
    print(f"  {'    its estimate':<46}{estimate:9.3f}")
    print(f"  {'a charge, by the accountant alone':<46}{step:9.3f}{f'at most {STEP_MS:g} ms':>24}{_missed(met[1])}")
    return all(met)


def _each(questions: list[Any], ask: Callable[[Any], object]) -> float:
    left = iter(questions)
    return repeat(lambda: ask(next(left)), len(questions))


def _missed(met: bool) -> str:
    return "" if met else "   missed"
