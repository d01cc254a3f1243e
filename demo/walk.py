"""The first use cases, step by step, on a running grid; every result is compared with the one in the clear."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

import gridclient as grid
from demo import births, federated, private
from demo.digits import Digits
from demo.printing import StepFailed
from demo.stage import PASSWORD, Stage, refused

MONTHS = {"company": (3, "March"), "university": (4, "April")}


def walk(where: dict[str, Any], digits: Digits) -> None:
    """Walk through the use cases on an empty grid. `where` is the ready file's content.

    Raises StepFailed.
    """
    with ExitStack() as connections:
        stage = Stage(where, connections)
        _Births(stage).walk()
        federated.walk(stage, digits)


class _Births:
    """The first use case. What its steps hand on to each other."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.out = stage, stage.out

    def walk(self) -> None:
        self.accounts()
        february = self.publish_february()
        self.publish_the_others()
        self.publish_table()
        place = self.stage.where["network"]
        self.stage.network = self.stage.enter(grid.connect_network(place["url"], username="dana", password=PASSWORD))
        pointer = self.explore()
        self.compute(pointer, february)
        self.average_of_three(pointer)
        self.table()
        self.five_rows(february[:5].clone())
        private.walk(self.stage)
        self.log()

    # --- the owners ---------------------------------------------------------------------------------------------

    def accounts(self) -> None:
        self.out.step("Administrators make accounts: an owner on each node, a scientist on the network.")
        for name, place in self.stage.where["nodes"].items():
            with grid.connect(place["url"], **place["admin"]) as admin:
                admin.create_user("olivia", password=PASSWORD, roles=["owner"])
                for scientist in ("bob", "ana", "alice") if name == "hospital" else ():
                    admin.create_user(scientist, password=PASSWORD, roles=["scientist"])
        place = self.stage.where["network"]
        with grid.connect_network(place["url"], **place["admin"]) as operator:
            operator.create_user("dana", password=PASSWORD, roles=["scientist"])
        self.out.show(f"olivia owns data on {', '.join(self.stage.where['nodes'])}.")
        self.out.show("dana is known to the network only; bob, ana and alice to the hospital.")

    def publish_february(self) -> torch.Tensor:
        """The owner's six steps. Returns the values in the clear, to compare with."""
        out = self.out
        out.step("Olivia connects to the hospital's node.")
        hospital = self.stage.node("hospital", "olivia")
        out.show(repr(hospital))
        out.step("She loads the births of February.")
        february = births.month(2)
        out.show(
            f"{february.rows} births; {february.incomplete} of them lacks the mother's height and is left out: "
            f"{len(february.values)} complete ones.\n"
            "Two columns: weight in kilogram, and height in centimetre. The table has no newborn's length: the "
            "height is the mother's."
        )
        out.step("She makes them private: bob, ana and alice may read them, nobody else.")
        out.code(
            "records = grid.private_tensor(values, columns=..., bounds=...,",
            '                              allowed_users=["bob", "ana", "alice"])',
        )
        records = grid.private_tensor(
            february.values, allowed_users=["bob", "ana", "alice"], bounds=births.BOUNDS, columns=births.COLUMNS
        )
        out.step("She tags them.")
        out.code('records = records.tag("#February", "#birth-records")')
        records = records.tag("#February", "#birth-records")
        out.step("She describes them.")
        out.code('records = records.describe("Births of February. Columns: ...")')
        records = records.describe("Births of February. Columns: weight in kilogram, mother's height in centimetre.")
        out.step("She sends them to the node, where they stay. What comes back is a pointer.")
        out.code("records.send(hospital)")
        out.show(repr(records.send(hospital)))
        return february.values

    def publish_the_others(self) -> None:
        self.out.step("The owners of the company and the university publish March and April in the same way.")
        for name, (number, month) in MONTHS.items():
            records = grid.private_tensor(births.month(number).values, bounds=births.BOUNDS, columns=births.COLUMNS)
            records = records.tag(f"#{month}", "#birth-records")
            records = records.describe(
                f"Births of {month}. Columns: weight in kilogram, mother's height in centimetre."
            )
            self.out.show(repr(records.send(self.stage.node(name, "olivia"))))

    def publish_table(self) -> None:
        self.out.step("The public node publishes all births as a table: dates, categories, missing values.")
        frame = births.table()
        records = grid.private_table(
            frame,
            name="All births",
            bounds=births.TABLE_BOUNDS,
            categories={"smoke": sorted(frame["smoke"].dropna().unique())},
            missing="null",
        )
        records = records.tag("#births").describe("1,236 single births with date, weight, and facts about the mother.")
        self.out.show(repr(records.send(self.stage.node("public", "olivia"))))

    # --- the scientist ------------------------------------------------------------------------------------------

    def explore(self) -> Any:
        out = self.out
        out.step("Dana connects to the network and searches.")
        out.code('found = network.search("#February", "#birth-records")')
        found = self.stage.search("#February", "#birth-records")
        out.code('list(found["hospital"])')
        out.show(str(list(found["hospital"])))
        pointer = found["hospital"][0]
        out.step("She takes a reference and explores it. All of this is public; no value travels.")
        out.code('births = found["hospital"][0]')
        out.show(
            f"description   {pointer.description}\n"
            f"tags          {', '.join(pointer.tags)}\n"
            f"columns       {', '.join(pointer.columns)}\n"
            f"shape, dtype  {tuple(pointer.shape)}, {pointer.dtype}\n"
            f"bounds        {pointer.bounds}\n"
            f"mock rows     {[[round(x, 2) for x in row] for row in pointer.mock[:2].tolist()]}, made from the bounds"
        )
        out.step("She asks for a copy, and is refused.")
        out.code("births.get()")
        out.show(str(refused(pointer.get)))
        return pointer

    def compute(self, pointer: Any, clear: torch.Tensor) -> None:
        out = self.out
        out.step("She writes plain torch on the pointer. The results are pointers too; no value travels.")
        out.code("births.sum(0), births.mean(0)")
        total, mean = pointer.sum(0), pointer.mean(0)
        out.show(f"{total!r}\n{mean!r}")
        out.step("Without a right, a sum is refused as well.")
        out.code("births.sum(0).get()")
        out.show(str(refused(total.get)))
        out.step("Olivia grants dana exact aggregates of this dataset: count, sum and mean of whole columns.")
        out.code('hospital.dataset(name).grant("dana@network", "aggregate", reason="...")')
        self.stage.grant("hospital", pointer.dataset, "aggregate", "Monthly report of the ward.")
        out.step("Now sums and averages are released, exactly. Each release is an event in the audit log.")
        out.equal("births", pointer.count().get(), torch.tensor(len(clear)))
        out.equal("sum of weights, kg", pointer[:, 0].sum().get(), clear[:, 0].sum())
        out.equal("sum of mothers' heights, cm", pointer[:, 1].sum().get(), clear[:, 1].sum())
        out.equal("both sums at once", total.get(), clear.sum(0))
        out.equal("average weight and mother's height", mean.get(), clear.mean(0))
        out.step("One birth is not an aggregate, and stays where it is.")
        out.code("births[2].get()")
        out.show(str(refused(pointer[2].get)))
        out.step("Bob, whom the owner named, may copy the values.")
        bob = self.stage.node("hospital", "bob")
        out.equal("first row", bob.search("#February")[0].get()[0], clear[0])

    def average_of_three(self, february: Any) -> None:
        """Sum and count from each node; the average over all of them is made by dana."""
        out = self.out
        out.step("An average over three nodes: each releases its own sum and count, dana puts them together.")
        out.code('found = network.search("#birth-records")')
        pointers = [found[0] for _, found in sorted(self.stage.search("#birth-records", nodes=3).items())]
        for pointer in pointers:
            if pointer.location.id in MONTHS:
                # Her refused question is also how a node gets to know the account that a grant can name.
                refused(pointer.count().get)
                self.stage.grant(pointer.location.id, pointer.dataset, "aggregate", "Monthly report of the ward.")
        total, count = torch.zeros(2, dtype=torch.float64), 0
        for pointer in pointers:
            part, size = pointer.sum(0).get(), int(pointer.count().get())
            out.show(f"{pointer.location.id}: {size} births, {part[0]:.4f} kg in all")
            total, count = total + part, count + size
        clear = torch.cat([births.month(number).values for number in (2, 3, 4)])
        out.equal("births of three months", torch.tensor(count), torch.tensor(len(clear)))
        out.equal("average weight and height", total / count, clear.mean(0), exact=False)
        error = different_nodes(lambda: february.sum(0) + pointers[0].sum(0))
        out.show(f"Adding pointers of two nodes is an error, since no value goes from node to node: {error}")

    def table(self) -> None:
        out = self.out
        out.step("The table on the public node. Rows with a missing value are null records: no result counts them.")
        out.code('births = network.search("#births")["public"][0]')
        pointer = self.stage.search("#births")["public"][0]
        out.show(f"{pointer!r}\ncolumns {', '.join(pointer.columns)}")
        smoke = next(column for column in pointer.schema if column.name == "smoke")
        out.show(f"smoke is one of: {', '.join(smoke.categories or [])}")
        refused(pointer["weight_kg"].get)
        self.stage.grant("public", pointer.dataset, "aggregate", "Overview.")
        complete = births.table().dropna()
        out.show(f"{len(pointer)} rows; {len(pointer) - len(complete)} of them have a missing value somewhere.")
        out.code('births["weight_kg"].mean().get()')
        for column, name in (
            ("weight_kg", "weight, kg"),
            ("gestation_days", "gestation, days"),
            ("mother_age", "mother's age"),
        ):
            clear = torch.tensor(complete[column].mean(), dtype=torch.float64)
            out.equal(f"average {name}", pointer[column].mean().get(), clear, exact=False)
        weights = torch.tensor(complete["weight_kg"].sum(), dtype=torch.float64)
        out.equal("sum of weights, kg", pointer["weight_kg"].sum().get(), weights, exact=False)
        out.equal("births behind each of these", pointer.count().get(), torch.tensor(len(complete)))

    def five_rows(self, clear: torch.Tensor) -> None:
        out = self.out
        out.step("Five births of February become a dataset of their own, and dana gets the same grant on it.")
        hospital = self.stage.node("hospital", "olivia")
        records = grid.private_tensor(clear, bounds=births.BOUNDS, columns=births.COLUMNS)
        records = records.tag("#pilot-ward").describe(
            "Five births of a pilot ward: weight in kilogram, mother's height."
        )
        self.stage.grant("hospital", records.send(hospital).dataset, "aggregate", "Pilot.")
        weight = self.stage.search("#pilot-ward")["hospital"][0][:, 0].sum()
        out.step("The exact sum over five people is refused: too few stand behind it.")
        out.code("births[:, 0].sum().get()")
        error = refused(weight.get)
        out.show(str(error))
        out.step("The error carries the way to ask: a request, which people decide on.")
        out.code('request = error.request(reason="Total weight of the pilot ward, for its yearly report.")')
        request = error.request(reason="Total weight of the pilot ward, for its yearly report.")
        out.show(repr(request))
        out.step("Olivia reads the program in words, and approves it.")
        asked = hospital.requests(state="submitted")[0]
        out.show(asked.words)
        asked.approve(reason="A total of five weights is fine for this report.")
        out.step("The stored program runs again on the node; dana receives the answer, as often as she asks.")
        out.code("request.wait().get()")
        out.equal("sum of five weights, kg", request.wait(timeout=60).get(), clear[:, 0].sum())
        out.equal("once more", request.get(), clear[:, 0].sum())
        if request.status != "delivered":
            raise StepFailed(f"The request should be delivered; it is {request.state}.")
        out.show(repr(request))

    def log(self) -> None:
        self.out.step("The hospital's administrator verifies the audit log: who took what, and by which right.")
        place = self.stage.where["nodes"]["hospital"]
        with grid.connect(place["url"], **place["admin"]) as admin:
            report = admin.audit(verify=True)
            if not report:
                raise StepFailed(f"The audit log does not verify: {report.problem}")
            self.out.show(f"The chain of {report.events} events holds. What left the node last:")
            left = [event for event in admin.audit() if event.verb in ("value_released", "request_delivered")]
            for event in left[:4]:
                self.out.show(f"{event.verb:<19}{event.actor:<14}{event.payload.get('route', 'approved')}")


def different_nodes(action: Callable[[], Any]) -> grid.DifferentNodesError:
    """Run an action that needs values of two nodes, and return the error."""
    try:
        action()
    except grid.DifferentNodesError as error:
        return error
    raise StepFailed("Values of two nodes were put together.")
