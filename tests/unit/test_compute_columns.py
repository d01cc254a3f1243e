"""Which columns a value depends on: a grant limited to some columns is decided on that."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.compute.messages import Export, Exported
from gridclient.program.graph import Ref
from gridclient.wire.errors import GridError
from tests.factories.programs import Recorded, table_asset, tensor_asset

NAMES = ["weight", "height", "age"]


def recorded_births(folder: Path, values: torch.Tensor) -> tuple[Recorded, Ref]:
    recorded = Recorded()
    return recorded, recorded.bind(tensor_asset(folder, values, columns=NAMES))


def columns(recorded: Recorded, ref: Ref) -> list[str] | None:
    (found,) = recorded.propose(ref).inputs
    return found.columns


def run(recorded: Recorded, ref: Ref, steps: list[tuple[Any, ...]]) -> Ref:
    for op, *args in steps:
        outputs = 2 if op in ("aten::sort", "aten::max.dim") else 1
        ref = recorded(f"aten::{op}" if "::" not in op else op, ref, *args, outputs=outputs)
    return ref


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("select.int", 1, 0)], ["weight"]),
        ([("select.int", 1, -1)], ["age"]),
        ([("select.int", 0, 2), ("select.int", 0, 1)], ["height"]),
        ([("slice.Tensor", 0, 0, 2), ("select.int", 1, 0)], ["weight"]),
        ([("slice.Tensor", 1, 1, 3), ("select.int", 1, 0)], ["height"]),
        ([("slice.Tensor", 1, -1), ("sum",)], ["age"]),
        ([("slice.Tensor", 1, 0, 9, 2)], ["age", "weight"]),
        ([("t",), ("select.int", 0, 1)], ["height"]),
        ([("unsqueeze", 0), ("permute", [2, 0, 1]), ("select.int", 0, 1)], ["height"]),
        ([("mul.Tensor", 2.0), ("exp",), ("select.int", 1, 1)], ["height"]),
        ([("sum.dim_IntList", [0]), ("select.int", 0, 1)], ["height"]),
        ([("sum.dim_IntList", [0], True), ("select.int", 1, 1)], ["height"]),
        ([("amax", [0]), ("select.int", 0, 2)], ["age"]),
        ([("flip", [0]), ("select.int", 1, 1)], ["height"]),
        ([("flip", [1]), ("select.int", 1, 0)], sorted(NAMES)),
        ([("view", [-1]), ("select.int", 0, 0)], sorted(NAMES)),
        ([("view", [3, 4]), ("select.int", 1, 0)], sorted(NAMES)),
        ([("sum.dim_IntList", [1]), ("select.int", 0, 1)], sorted(NAMES)),
        ([("_softmax", 1, False), ("select.int", 1, 1)], sorted(NAMES)),
        ([("select.int", 0, 0)], sorted(NAMES)),
    ],
)
def test_a_chosen_column_is_what_a_grant_must_cover(
    tmp_path: Path, steps: list[tuple[Any, ...]], expected: list[str]
) -> None:
    recorded, x = recorded_births(tmp_path, torch.rand(4, 3))
    assert columns(recorded, run(recorded, x, steps)) == expected


def test_square_values_do_not_confuse_rows_with_columns(tmp_path: Path) -> None:
    recorded, x = recorded_births(tmp_path, torch.rand(3, 3))
    assert columns(recorded, recorded("aten::select.int", recorded("aten::t", x), 1, 0)) == sorted(NAMES)
    mixed = recorded("aten::add.Tensor", x, recorded("aten::t", x))
    assert columns(recorded, recorded("aten::select.int", mixed, 1, 0)) == sorted(NAMES)
    product = recorded("aten::mm", x, recorded.constant(torch.rand(3, 3)))
    assert columns(recorded, recorded("aten::select.int", product, 1, 0)) == sorted(NAMES)
    both = recorded("aten::sub.Tensor", x, recorded("aten::mean.dim", x, [0]))
    assert columns(recorded, recorded("aten::select.int", both, 1, 2)) == ["age"]


def test_two_datasets_are_never_taken_for_one(tmp_path: Path) -> None:
    recorded = Recorded()
    x, y = (
        recorded.bind(tensor_asset(tmp_path / name, torch.rand(4, 3), columns=NAMES, dataset=name, sequence="s"))
        for name in "xy"
    )
    found = recorded.propose(recorded("aten::select.int", recorded("aten::add.Tensor", x, y), 1, 0))
    assert {entry.dataset: entry.columns for entry in found.inputs} == {"x": sorted(NAMES), "y": sorted(NAMES)}


def test_columns_of_a_table_are_narrowed_too(tmp_path: Path) -> None:
    recorded = Recorded()
    content = {"age": [30.0, 40.0], "size": [1.0, 2.0]}
    table = recorded.bind(table_asset(tmp_path, content, dict.fromkeys(content, "number"), None))
    both = recorded("grid::columns", table, ["size", "age"])
    assert columns(recorded, recorded("aten::select.int", recorded("aten::neg", both), 1, 0)) == ["size"]
    assert columns(recorded, recorded("grid::column", table, "age")) == ["age"]


PADDED = [True, True, False, True]


@pytest.mark.parametrize(
    "steps",
    [
        [("select.int", 1, 0)],
        [("slice.Tensor", 1, 1, 2), ("exp",)],
        [("select.int", 1, 0), ("sum",)],
        [("sum.dim_IntList", [0]), ("select.int", 0, 1)],
        [("mul.Tensor", 2.0), ("select.int", 1, 1)],
        [("t",), ("select.int", 0, 2), ("mean",)],
        [("grid::count",)],
        [("select.int", 1, 2), ("grid::count",)],
    ],
)
def test_null_records_tell_of_every_column(tmp_path: Path, steps: list[tuple[Any, ...]]) -> None:
    """A value missing in one column makes its row a null record, which every other column shows."""
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(4, 3), columns=NAMES, presence=PADDED))
    assert columns(recorded, run(recorded, x, steps)) == sorted(NAMES)
    proposal = recorded.propose(recorded("aten::sum", recorded("aten::select.int", x, 1, 1)))
    assert proposal.closed is not None
    assert proposal.closed.columns == ["height"]


def test_null_records_of_a_table_tell_of_every_column(tmp_path: Path) -> None:
    recorded = Recorded()
    content = {"age": [30.0, 40.0], "size": [1.0, 0.0]}
    table = recorded.bind(table_asset(tmp_path, content, dict.fromkeys(content, "number"), [True, False]))
    both = recorded("grid::columns", table, ["size", "age"])
    age = recorded("grid::column", table, "age")
    mean, one = recorded("aten::mean", age), recorded("aten::select.int", both, 1, 1)
    for ref in (age, mean, one, recorded("grid::count", age)):
        assert columns(recorded, ref) == ["age", "size"]
    reply = recorded.session.handle(Export(1, mean, str(tmp_path / "constants"), {"table": "people"}), 0)
    assert isinstance(reply, Exported)
    assert "the mean of column age over" in reply.words


def test_two_datasets_of_one_sequence_widen_only_the_padded_one(tmp_path: Path) -> None:
    recorded = Recorded()
    x, y = (
        recorded.bind(
            tensor_asset(
                tmp_path / name, torch.rand(4, 3), columns=NAMES, dataset=name, sequence="s",
                presence=PADDED if name == "x" else None,
            )
        )
        for name in "xy"
    )  # fmt: skip
    first, second = (recorded("aten::select.int", value, 1, 0) for value in (x, y))
    found = recorded.propose(recorded("aten::sum", recorded("aten::mul.Tensor", first, second)))
    assert {entry.dataset: entry.columns for entry in found.inputs} == {"x": sorted(NAMES), "y": ["weight"]}


OPS: list[tuple[Any, ...]] = [
    ("select.int", 0, 0), ("select.int", 1, 0), ("select.int", -1, -1), ("slice.Tensor", 0, 0, 2),
    ("slice.Tensor", 1, 1, 3), ("slice.Tensor", 1, 0, 2), ("slice.Tensor", -1, -2), ("slice.Tensor", 1, 0, 9, 2),
    ("slice.Tensor", 0, 1, 9, 2), ("t",), ("transpose.int", 0, -1), ("transpose.int", 1, 2), ("permute", [1, 0]),
    ("permute", [2, 0, 1]), ("unsqueeze", 0), ("unsqueeze", -1), ("unsqueeze", 1), ("squeeze.dim", 0),
    ("squeeze.dim", 1), ("squeeze.dims", [0, 1]), ("exp",), ("neg",), ("mul.Tensor", 3.0), ("gt.Scalar", 0.5),
    ("sum.dim_IntList", [0]), ("sum.dim_IntList", [1], True), ("sum.dim_IntList", [0], True), ("sum",),
    ("mean.dim", [-1]), ("mean.dim", [0]), ("amax", [0]), ("amin", [1], True), ("amax", []), ("sort", 0),
    ("sort", 1), ("max.dim", 0), ("argmax", 0), ("argmax",), ("var.correction", [0]), ("_softmax", 0, False),
    ("_softmax", 1, False), ("flip", [0]), ("flip", [1]), ("flip", [0, 1]), ("view", [-1]), ("view", [3, -1]),
    ("expand", [2, -1, -1]), ("clone",), ("cumulate",), ("index",), ("itself",), ("turned",), ("stack",), ("cat",),
]  # fmt: skip


def grown(recorded: Recorded, x: Ref, seed: int) -> Ref:
    """A random program over `x`, the same for the same seed; steps that fail are left out."""
    source = random.Random(seed)
    ref = x
    for _ in range(source.randint(1, 6)):
        op, *args = source.choice(OPS)
        if op == "cumulate":
            after = recorded("aten::add.Tensor", ref, x)
        elif op == "index":
            after = recorded("aten::index_select", ref, source.randint(-2, 1), recorded.constant(torch.tensor([1, 0])))
        elif op == "itself":
            after = recorded("aten::sub.Tensor", ref, recorded("aten::mean.dim", ref, [0]))
        elif op == "turned":
            after = recorded("aten::mul.Tensor", ref, recorded("aten::transpose.int", ref, 0, -1))
        elif op in ("stack", "cat"):
            after = recorded(f"aten::{op}", [ref, ref], source.randint(0, 1))
        else:
            after = run(recorded, ref, [(op, *args)])
        try:
            recorded.propose(after)
        except GridError:
            continue
        ref = after
    return ref


@pytest.mark.parametrize("rows", [3, 1, 4])
def test_other_columns_change_no_bit_of_a_value(tmp_path: Path, rows: int) -> None:
    """Differential execution: what the proposal doesn't name may be anything, also inf and nan."""
    values = torch.rand(rows, 3)
    narrow = 0
    for seed in range(250):
        recorded, x = recorded_births(tmp_path / f"{seed}", values)
        ref = grown(recorded, x, seed)
        proposal = recorded.propose(ref)
        if not proposal.inputs:
            continue
        names = columns(recorded, ref)
        assert names is not None
        others = [place for place, name in enumerate(NAMES) if name not in names]
        narrow += bool(others)
        for hostile in (7.5, float("nan"), float("inf"), -3e38):
            changed = values.clone()
            changed[:, others] = hostile
            again, y = recorded_births(tmp_path / f"{seed} changed", changed)
            before, after = recorded.value(ref), again.value(grown(again, y, seed))
            assert before.numpy().tobytes() == after.numpy().tobytes(), (seed, names)
            if not others:
                break
    assert narrow > 40
