"""Private answers: with noise, within a budget, without anybody deciding on each."""

from __future__ import annotations

from typing import Any

import torch

import gridclient as grid
from demo import births
from demo.printing import StepFailed, short
from demo.stage import PASSWORD, Stage

FAR = 3
"""An answer is further from the truth than so many half-widths in less than one of a hundred million."""


def walk(stage: Stage) -> None:
    """On the table of the public node and the five births of the hospital. Raises StepFailed."""
    out = stage.out
    table = stage.search("#births")["public"][0]
    node, name = table.location, table.dataset
    complete = births.table().dropna()
    out.step("Olivia grants dana private answers about the table: half of what its people may be asked in all.")
    out.code('public.dataset("all-births").grant("dana@network", "release", epsilon=1.0, reason="...")')
    with grid.connect(stage.where["nodes"]["public"]["url"], username="olivia", password=PASSWORD) as owner:
        owner.dataset(name).grant("dana@network", "release", epsilon=1.0, reason="Overview for everybody.")
    out.step("What would the average weight cost, and how close would it be? That is free.")
    mean = table["weight_kg"].dp.mean()
    out.code('births["weight_kg"].dp.mean().estimate(epsilon=0.5)')
    out.show(repr(mean.estimate(epsilon=0.5)))
    out.step("She takes it: charged first, then drawn once. Nobody had to decide.")
    answer = mean.get(epsilon=0.5)
    out.code('births["weight_kg"].dp.mean().get(epsilon=0.5)')
    _near(stage, "average weight, kg", answer, [complete["weight_kg"].mean()])
    out.show(f"cost {answer.receipt.cost:.3f}; {answer.receipt.remaining:.3f} of 1 is left for dana")
    again = mean.get(epsilon=0.5)
    if not torch.equal(again, answer) or again.receipt.cost:
        raise StepFailed("The same question should get the same answer, for nothing.")
    out.show("asked once more: the same answer, cost 0")
    out.step("Quartiles of one noisy tree, and averages by group.")
    quartiles = table["weight_kg"].dp.quantile([0.25, 0.5, 0.75]).get(epsilon=0.5)
    out.code('births["weight_kg"].dp.quantile([0.25, 0.5, 0.75]).get(epsilon=0.5)')
    _near(stage, "quartiles, kg", quartiles, complete["weight_kg"].quantile([0.25, 0.5, 0.75]).to_list())
    groups = table.group_by("smoke")
    averages = groups.mean("weight_kg").get(epsilon=0.5)
    out.code('births.group_by("smoke").mean("weight_kg").get(epsilon=0.5)')
    clear = complete.groupby("smoke")["weight_kg"].mean()
    _near(
        stage,
        f"kg where the mother smokes: {', '.join(groups.categories)}",
        averages,
        clear[groups.categories].to_list(),
    )
    out.step("Five people are too few: the noise would drown the answer. That is said before anything is charged.")
    with grid.connect(stage.where["nodes"]["hospital"]["url"], username="olivia", password=PASSWORD) as owner:
        pilot = stage.search("#pilot-ward")["hospital"][0]
        owner.dataset(pilot.dataset).grant("dana@network", "release", epsilon=1.0, reason="Pilot.")
    out.code("five[:, 0].mean().get(epsilon=0.5)")
    try:
        pilot[:, 0].mean().get(epsilon=0.5)
    except grid.TooNoisyError as error:
        out.show(str(error))
    else:
        raise StepFailed("A mean of five people left the node.")
    out.step("Each answer has a certificate, and its place in the node's ledger.")
    certificate = node.certificate(answer.receipt.id)
    charge = certificate["charges"][0]
    out.show(
        f"epsilon {certificate['epsilon']:.3g}, delta {certificate['delta']:.0e}, unit: {certificate['unit']}\n"
        f"charged {charge['amount'] / charge['of']:.1%} of the pot of {charge['pot_epsilon']:g}, at position "
        f"{certificate['position']} of the ledger\n"
        f"left for everybody: {node.budget(name).left:.3f} of {charge['pot_epsilon']:g}"
    )


def _near(stage: Stage, name: str, answer: Any, clear: list[float]) -> None:
    """Print an answer with its interval, and stop where the truth is out of all reach of it."""
    truth = torch.tensor(clear, dtype=torch.float64).reshape(answer.shape)
    low, high = answer.interval
    if not bool(((truth >= answer - FAR * (answer - low)) & (truth <= answer + FAR * (high - answer))).all()):
        raise StepFailed(f"{name}: the grid says {answer}, in the clear it is {truth}")
    stage.out.show(f"{name}: {short(answer)}   between {short(low)} and {short(high)}")
