"""The two first use cases, step by step, on a running grid; every result is compared with the one in the clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import gridclient as grid
from demo import births

PASSWORD = "a-long-demo-password"


class StepFailed(Exception):
    """A step of the walk did not hold."""


@dataclass
class Printer:
    """Numbers the steps and prints what happened."""

    steps: int = 0

    def step(self, text: str) -> None:
        self.steps += 1
        print(f"\n{self.steps:2}. {text}", flush=True)

    def show(self, text: str) -> None:
        print("    " + text.replace("\n", "\n    "), flush=True)

    def equal(self, name: str, got: torch.Tensor, clear: torch.Tensor) -> None:
        """Print a result, and stop unless it is the one in the clear to the last bit."""
        if not torch.equal(got, clear):
            raise StepFailed(f"{name}: the grid says {got}, in the clear it is {clear}")
        self.show(f"{name}: {_short(got)}   (the same in the clear)")


def _short(value: torch.Tensor) -> str:
    numbers = [f"{number:.4f}".rstrip("0").rstrip(".") for number in value.double().reshape(-1).tolist()]
    return numbers[0] if value.dim() == 0 else "[" + ", ".join(numbers) + "]"


def refused(action: Callable[[], Any]) -> grid.GetNotPermittedError:
    """Run an action that must be refused, and return the error."""
    try:
        action()
    except grid.GetNotPermittedError as error:
        return error
    raise StepFailed("A value left the node without a right to it.")


def walk(where: dict[str, Any]) -> None:
    """Walk through the use cases on an empty grid. `where` is the ready file's content. Raises StepFailed."""
    out = Printer()
    nodes = where["nodes"]
    accounts(where, out)
    february = publish(nodes["hospital"]["url"], out)
    for node, number in (("company", 3), ("university", 4)):
        publish_month(nodes[node]["url"], number, out)
    publish_table(nodes["public"]["url"], out)
    network = grid.connect_network(where["network"]["url"], username="dana", password=PASSWORD)
    found = explore(network, out)
    compute(network, found, nodes["hospital"]["url"], february, out)
    five_rows(network, nodes["hospital"]["url"], out)


def accounts(where: dict[str, Any], out: Printer) -> None:
    out.step("The administrators make accounts: an owner on each node, a data scientist on the network.")
    for name, node in where["nodes"].items():
        admin = grid.connect(node["url"], **node["admin"])
        admin.create_user("olivia", password=PASSWORD, roles=["owner"])
        for scientist in ("bob", "ana", "alice") if name == "hospital" else ():
            admin.create_user(scientist, password=PASSWORD, roles=["scientist"])
    operator = grid.connect_network(where["network"]["url"], **where["network"]["admin"])
    operator.create_user("dana", password=PASSWORD, roles=["scientist"])
    out.show(f"olivia owns data on {', '.join(where['nodes'])}; dana searches the network.")


def publish(url: str, out: Printer) -> torch.Tensor:
    """The owner's six steps. Returns the values in the clear, to compare with."""
    out.step("Olivia connects to the hospital's node.")
    hospital = grid.connect(url, username="olivia", password=PASSWORD)
    out.show(repr(hospital))
    out.step("She loads the births of February.")
    february = births.month(2)
    out.show(
        f"{february.rows} births; {february.incomplete} without the mother's height is left out: "
        f"{len(february.values)} complete ones.\n"
        "Columns: weight in kilogram; the table has no newborn's length, so the height is the mother's, in centimetre."
    )
    out.step("She makes them private; bob, ana and alice may read them.")
    records = grid.private_tensor(
        february.values, allowed_users=["bob", "ana", "alice"], bounds=births.BOUNDS, columns=births.COLUMNS
    )
    out.step("She tags them.")
    records = records.tag("#February", "#birth-records")
    out.step("She describes them.")
    records = records.describe("Births of February. Columns: weight in kilogram, mother's height in centimetre.")
    out.step("She sends them to the node, where they stay.")
    pointer = records.send(hospital)
    out.show(repr(pointer))
    return february.values


def publish_month(url: str, number: int, out: Printer) -> None:
    names = {3: "March", 4: "April"}
    found = births.month(number)
    node = grid.connect(url, username="olivia", password=PASSWORD)
    records = grid.private_tensor(found.values, bounds=births.BOUNDS, columns=births.COLUMNS)
    records = records.tag(f"#{names[number]}", "#birth-records")
    pointer = records.describe(f"Births of {names[number]}: weight in kilogram, mother's height in centimetre.").send(
        node
    )
    out.step(f"The {node.name} publishes {len(found.values)} births of {names[number]}.")
    out.show(repr(pointer))


def publish_table(url: str, out: Printer) -> None:
    out.step("The public node publishes the whole table, with dates, categories and missing values.")
    node = grid.connect(url, username="olivia", password=PASSWORD)
    frame = births.table()
    smoke = sorted(frame["smoke"].dropna().unique())
    table = grid.private_table(
        frame,
        name="All births",
        bounds={
            "born": ("1964-01-01", "1966-12-31"),
            "weight_kg": (0.5, 6.0),
            "mother_height_cm": (120.0, 200.0),
            "gestation_days": (120.0, 400.0),
            "mother_age": (10.0, 60.0),
        },
        categories={"smoke": smoke},
        missing="null",
    )
    pointer = (
        table.tag("#births")
        .describe("1,236 single births with date, weight and the mother's height, age, smoking.")
        .send(node)
    )
    out.show(repr(pointer))


def explore(network: Any, out: Printer) -> Any:
    out.step("Dana asks the network for '#February' and '#birth-records'.")
    found = _search(network, "#February", "#birth-records")
    out.show(str(found))
    pointer = found["hospital"][0]
    out.step("She takes a reference and explores it: description, tags, columns, shape, bounds. No value travels.")
    out.show(
        f"{pointer.description}\ntags {', '.join(pointer.tags)}\n"
        f"columns {', '.join(pointer.columns)}, shape {tuple(pointer.shape)}, {pointer.dtype}, on {pointer.location}\n"
        f"bounds {pointer.bounds}\nmock rows, made from the bounds: {pointer.mock[:2].tolist()}"
    )
    out.step("She asks for a copy, and is refused.")
    error = refused(pointer.get)
    out.show(str(error))
    return pointer


def _search(network: Any, *terms: str) -> dict[str, list[Any]]:
    """Announcements travel with the heartbeat: give them a moment."""
    import time

    for _ in range(100):
        if found := network.search(*terms):
            return dict(found)
        time.sleep(0.1)
    raise StepFailed(f"The network never heard of {' '.join(terms)}.")


def compute(network: Any, pointer: Any, url: str, clear: torch.Tensor, out: Printer) -> None:
    out.step("She writes plain torch on the pointer; sums and averages are computed where the data are.")
    total, mean = pointer.sum(0), pointer.mean(0)
    out.show(f"{total!r}\n{mean!r}")
    error = refused(total.get)
    out.show(f"Without a right, a sum is refused too: {error}")
    out.step("Olivia grants dana exact aggregates of this dataset.")
    hospital = grid.connect(url, username="olivia", password=PASSWORD)
    hospital.dataset(pointer.dataset).grant("dana@network", "aggregate", reason="Monthly report of the ward.")
    out.step("Now the sums and averages are released, exactly; each release is in the audit log.")
    out.equal("births", pointer.count().get(), torch.tensor(len(clear)))
    out.equal("sum of weights, kg", pointer[:, 0].sum().get(), clear[:, 0].sum())
    out.equal("sum of mothers' heights, cm", pointer[:, 1].sum().get(), clear[:, 1].sum())
    out.equal("average weight and mother's height", mean.get(), clear.mean(0))
    error = refused(pointer[2].get)
    out.show(f"One row stays refused: {error}")
    out.step("Bob, whom the owner named, may copy the values.")
    bob = grid.connect(url, username="bob", password=PASSWORD)
    out.equal("first row", bob.search("#February")[0].get()[0], clear[0])


def five_rows(network: Any, url: str, out: Printer) -> None:
    out.step("Five births of February are published as a dataset of their own, and dana gets the same grant.")
    clear = births.month(2).values[:5].clone()
    hospital = grid.connect(url, username="olivia", password=PASSWORD)
    records = grid.private_tensor(clear, bounds=births.BOUNDS, columns=births.COLUMNS).tag(
        "#pilot-ward", "#birth-records"
    )
    published = records.describe(
        "Five births of a pilot ward: weight in kilogram, mother's height in centimetre."
    ).send(hospital)
    hospital.dataset(published.dataset).grant("dana@network", "aggregate", reason="Pilot.")
    pilot = _search(network, "#pilot-ward")["hospital"][0]
    weight = pilot[:, 0].sum()
    out.step("The exact sum over five people is refused: too few stand behind it. The error carries the way to ask.")
    error = refused(weight.get)
    out.show(str(error))
    request = error.request(reason="Total weight of the pilot ward, for its yearly report.")
    out.show(repr(request))
    out.step("Olivia reads the request in words, and approves it.")
    asked = hospital.requests(state="submitted")[0]
    out.show(asked.words)
    asked.approve(reason="A total of five weights is fine for this report.")
    out.step("The stored program runs again on the node; dana receives the answer.")
    request.wait(timeout=60)
    out.equal("sum of five weights, kg", request.get(), clear[:, 0].sum())
    out.show(repr(request))
