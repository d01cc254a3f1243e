"""The closed set in a worker: its numbers are the records' own, its cells and crowds the people behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from apps.compute import crowds
from apps.compute.checks import DOMINANCE, FEW, OVERLAP
from apps.compute.messages import PEOPLE, Closed, Examine, Examined, Thresholds
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Ref
from gridclient.wire.errors import InvalidInputError, OperationNotAllowedError
from tests.factories.programs import Recorded, table_asset

LEAST = Thresholds(k=10, p=0.1, dominance=0.9, freedom=10)
N = 60
SOURCE = np.random.default_rng(8)
WEIGHT, HEIGHT = SOURCE.uniform(2, 5, N), SOURCE.uniform(40, 60, N)
WARD = np.arange(N) % 2
SMOKER = np.arange(N) % 3 == 0


def published(folder: Path, *, presence: Any = None, **changed: Any) -> AssetSpec:
    """A table of 60 rows: two numbers, a category and a boolean, the last two partitions."""
    columns = {"weight": WEIGHT, "height": HEIGHT, "ward": WARD, "smoker": SMOKER}
    columns |= changed.pop("columns", {})
    kinds = {"weight": "number", "height": "number", "ward": "category", "smoker": "boolean"}
    flags = None if presence is None else [bool(each) for each in presence]
    spec = table_asset(folder, {name: pa.array(values) for name, values in columns.items()}, kinds, flags)
    replace = msgspec.structs.replace
    declared = [
        replace(
            column, partition=column.kind != "number", edges=[2.0, 3.0, 4.0, 5.0] if column.name == "weight" else None
        )
        for column in spec.columns
    ]
    return replace(spec, columns=declared, **changed)


def declare(spec: AssetSpec, people: Any) -> None:
    """Say whose row each is."""
    who = pa.array([bytes([person]) * 32 for person in people], pa.binary(32))
    with pa.ipc.new_file(str(spec.path("entities")), pa.schema([("entity", pa.binary(32))])) as writer:
        writer.write_table(pa.table({"entity": who}))


class Table(Recorded):
    """A session that holds the table."""

    def __init__(self, spec: AssetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.table = self.bind(spec)

    def column(self, *names: str) -> Ref:
        return (
            self("grid::column", self.table, names[0])
            if len(names) == 1
            else self("grid::columns", self.table, list(names))
        )

    def examined(self, value: Ref, folder: Path, *, known: list[Path] | None = None, data: str = "data") -> Examined:
        closed = self.propose(value).closed
        assert closed is not None
        path = folder / f"crowds-{value.node}"
        question = Examine(1, closed, LEAST, data, list(map(str, known or [])), str(path))
        found = self.session.handle(question, 0)
        assert isinstance(found, Examined)
        return found


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(published(tmp_path / "births"))


KEPT = np.arange(N) % 5 != 0


@pytest.mark.parametrize("padded", [False, True])
def test_every_kind_is_numpys_number_of_the_records_alone(tmp_path: Path, padded: bool) -> None:
    """Null records are zeros in the files: one that counted would move every mean."""
    t = Table(published(tmp_path, presence=KEPT if padded else None))
    kept = KEPT if padded else np.ones(N, bool)
    both, ward = np.c_[WEIGHT, HEIGHT], [kept & (group == WARD) for group in (0, 1)]
    value, by = t.column("weight", "height"), t.column("ward")
    expected: list[tuple[Ref, Any]] = [
        (t("grid::aggregate", value, "sum"), both[kept].sum(0)),
        (t("grid::aggregate", value, "mean", by=by), [both[rows].mean(0) for rows in ward]),
        (t("grid::aggregate", value, "variance", None, by), [both[rows].var(0, ddof=1) for rows in ward]),
        (t("grid::aggregate", value, "product", value), both[kept].T @ both[kept]),
        (t("grid::aggregate", t.column("weight"), "product", value), WEIGHT[kept] @ both[kept]),
        (t("grid::aggregate", t.column("weight"), "histogram"), np.histogram(WEIGHT[kept], [2, 3, 4, 5])[0]),
        (t("grid::aggregate", t.column("smoker"), "histogram"), [(~SMOKER[kept]).sum(), SMOKER[kept].sum()]),
        (t("grid::aggregate", value, "count", by=by), [rows.sum() for rows in ward]),
    ]
    for ref, numbers in expected:
        np.testing.assert_allclose(t.value(ref).numpy(), np.asarray(numbers), rtol=1e-12)
        assert t.propose(ref).label == "tainted"


def test_what_torch_writes_is_the_same_answer(table: Table) -> None:
    weight, height = table.column("weight"), table.column("height")
    both = table.column("weight", "height")
    version = ("table", 1)
    for ref, closed in (
        (table("aten::var.correction", weight, [0], correction=1), Closed("variance", *version, ["weight"])),
        (table("aten::var.correction", both, [0]), Closed("variance", *version, ["weight", "height"])),
        (table("aten::dot", weight, height), Closed("product", *version, ["weight"], ["height"])),
        (table("aten::mm", table("aten::t", both), both), Closed("product", *version, *[["weight", "height"]] * 2)),
        (
            table("aten::mv", table("aten::t", both), weight),
            Closed("product", *version, ["weight", "height"], ["weight"]),
        ),
    ):
        assert table.propose(ref).closed == closed


@pytest.mark.parametrize(
    "program",
    [
        lambda t: t("aten::var.correction", t.column("weight"), [0], correction=0.5),
        lambda t: t("aten::std.correction", t.column("weight"), [0], correction=1),
        lambda t: t("aten::dot", t("aten::exp", t.column("weight")), t.column("height")),
        lambda t: t("aten::dot", t.column("weight"), t.constant(torch.ones(N, dtype=torch.float64))),
        lambda t: t(
            "aten::var.correction", t("aten::slice.Tensor", t.column("weight"), 0, 0, N - 1), [0], correction=1
        ),
        lambda t: t("aten::mul.Tensor", t("grid::aggregate", t.column("weight"), "sum"), 2.0),
    ],
)
def test_what_computes_on_rows_is_no_member(table: Table, program: Any) -> None:
    assert table.propose(program(table)).closed is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (lambda t: (t.column("weight"), "median"), "kind is one of"),
        (lambda t: (t("aten::exp", t.column("weight")), "sum"), "whole declared columns"),
        (lambda t: (t.table, "sum"), "whole declared columns"),
        (lambda t: (t.column("weight"), "sum", None, t.column("height")), "declared as a partition"),
        (lambda t: (t.column("height"), "histogram"), "edges that the owner declared"),
        (lambda t: (t.column("weight"), "product"), "second operand"),
        (lambda t: (t.column("weight"), "sum", t.column("height")), "second operand"),
    ],
)
def test_an_aggregate_of_anything_else_is_refused_by_name(table: Table, arguments: Any, text: str) -> None:
    ref = table("grid::aggregate", *arguments(table))
    with pytest.raises(InvalidInputError, match=text):
        table.propose(ref)


def test_a_product_with_null_records_is_made_by_the_aggregate_only(tmp_path: Path) -> None:
    t = Table(published(tmp_path, presence=KEPT))
    with pytest.raises(OperationNotAllowedError, match="null records"):
        t.propose(t("aten::dot", t.column("weight"), t.column("height")))


def test_ordinary_answers_pass(table: Table, tmp_path: Path) -> None:
    value, by = table.column("weight", "height"), table.column("ward")
    for ref in (
        table("aten::sum.dim_IntList", value, [0]),
        table("grid::aggregate", value, "variance", by=by),
        table("grid::aggregate", table.column("weight"), "histogram"),
        table("grid::aggregate", table.column("weight", "smoker"), "product", table.column("weight", "smoker")),
    ):
        assert table.examined(ref, tmp_path).failed == []


@pytest.mark.parametrize("kind", ["sum", "mean", "variance", "count"])
def test_a_partition_with_a_small_group_fails_as_a_whole(tmp_path: Path, kind: str) -> None:
    t = Table(published(tmp_path, columns={"ward": (np.arange(N) < 9).astype(np.int64)}))
    assert FEW in t.examined(t("grid::aggregate", t.column("weight"), kind, by=t.column("ward")), tmp_path).failed
    assert t.examined(t("grid::aggregate", t.column("weight"), kind), tmp_path).failed == []


def test_two_flags_are_not_multiplied_into_a_small_cell(tmp_path: Path) -> None:
    """Each splits people in halves; but three only have both."""
    first = np.arange(N) < 30
    second = (np.arange(N) >= 27) & (np.arange(N) < 57)
    t = Table(published(tmp_path, columns={"smoker": second, "ward": first.astype(np.int64)}))
    product = t("grid::aggregate", t.column("ward"), "product", t.column("smoker"))
    assert t.examined(product, tmp_path).failed == [FEW]


def test_a_flag_does_not_single_out_a_dominant_contributor(tmp_path: Path) -> None:
    weight = np.r_[[5.0, 4.9], np.full(29, 0.01) + np.arange(29) * 1e-4, np.full(29, 4.0) + np.arange(29) / 100]
    t = Table(published(tmp_path, columns={"weight": weight, "smoker": np.arange(N) < 31}))
    assert t.examined(t("aten::sum", t.column("weight")), tmp_path).failed == []
    product = t("grid::aggregate", t.column("weight"), "product", t.column("smoker"))
    assert DOMINANCE in t.examined(product, tmp_path).failed


def test_one_person_of_many_rows_counts_once(tmp_path: Path) -> None:
    """Sixty rows of nine people are nine people."""
    spec = published(tmp_path, entities="declared", max_rows_per_entity=10)
    declare(spec, np.arange(N) % 9)
    t = Table(spec)
    assert FEW in t.examined(t("aten::sum", t.column("weight")), tmp_path).failed
    behind = crowds.decode((tmp_path / "crowds-2").read_bytes())
    assert len(behind.cells[0].people.loaded().numbers) == 9 and behind.namespace == crowds.DECLARED


def test_two_partitions_that_differ_by_few_people_are_not_both_told(tmp_path: Path) -> None:
    t = Table(published(tmp_path, columns={"smoker": np.arange(N) % 2 == np.where(np.arange(N) < 3, 0, 1)}))
    by_ward = t("grid::aggregate", t.column("weight"), "sum", by=t.column("ward"))
    by_smoker = t("grid::aggregate", t.column("weight"), "sum", by=t.column("smoker"))
    assert t.examined(by_ward, tmp_path).failed == t.examined(by_smoker, tmp_path).failed == []
    known = [tmp_path / f"crowds-{by_ward.node}"]
    assert t.examined(by_smoker, tmp_path, known=known).failed == [OVERLAP]
    assert t.examined(by_ward, tmp_path, known=known).failed == []


def test_two_partitions_of_the_same_people_that_differ_by_few_rows_are_not_both_told(tmp_path: Path) -> None:
    """Each of twenty people has a row in one half and two in the other; one row of one of them changes sides."""
    ward = np.arange(N) % 3 > 0
    smoker = ward & (np.arange(N) != 11)
    spec = published(
        tmp_path, columns={"ward": ward.astype(np.int64), "smoker": smoker}, entities="declared", max_rows_per_entity=3
    )
    declare(spec, np.arange(N) // 3)
    t = Table(spec)
    weight, sides = t.column("weight"), ("ward", "smoker")
    by_ward, by_smoker = (t("grid::aggregate", weight, "sum", by=t.column(each)) for each in sides)
    first = t.examined(by_ward, tmp_path)
    assert first.failed == []
    known = [tmp_path / f"crowds-{by_ward.node}"]
    second = t.examined(by_smoker, tmp_path, known=known)
    assert second.failed == [OVERLAP]
    assert first.crowds[:PEOPLE] != second.crowds[:PEOPLE], "or later answers would be compared with one of them only"
    again = t.examined(t("grid::aggregate", t.column("height"), "sum", by=t.column("ward")), tmp_path, known=known)
    assert (again.failed, again.crowds[:PEOPLE]) == ([], first.crowds[:PEOPLE])


def test_a_session_that_asks_about_two_datasets_in_turn_has_each_ones_people_behind_its_answers(tmp_path: Path) -> None:
    """What answers have in common is kept for the next one, and must be that of its own version."""
    one = published(tmp_path / "births")
    other = published(tmp_path / "moved", dataset="moved", entities="declared", max_rows_per_entity=3)
    declare(other, np.arange(N) // 3)
    t = Table(one)
    sums = [t("aten::sum", t("grid::column", table, "weight")) for table in (t.table, t.bind(other))]
    people = []
    for number in (0, 1, 0):
        t.examined(sums[number], tmp_path)
        behind = crowds.decode((tmp_path / f"crowds-{sums[number].node}").read_bytes())
        people.append((behind.dataset, len(behind.cells[0].people.loaded().numbers)))
    assert people == [(one.dataset, N), ("moved", N // 3), (one.dataset, N)]


def test_a_reply_holds_the_names_of_checks_and_nothing_of_a_value(tmp_path: Path) -> None:
    """T3: whatever one person's values are, only the names of checks cross to the web process."""
    shapes = set()
    for number, worst in enumerate((5.0, 2.0, 1e300, -1e300, 0.0, 5e-324)):
        weight = WEIGHT.copy()
        weight[3] = worst
        t = Table(published(tmp_path / str(number), columns={"weight": weight}))
        found = t.examined(t("aten::sum", t.column("weight")), tmp_path)
        assert set(found.failed) <= {FEW, "p-percent", DOMINANCE, "freedom", OVERLAP}
        shapes.add((len(found.crowds), type(found).__name__))
    assert len(shapes) == 1
