"""What an owner declares is what travels, and what is wrong with it is said at once."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

import gridclient as grid
from gridclient.node import Node
from gridclient.publish import replacement
from gridclient.publish import safetensors as write_safetensors
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column
from tests.sdk.fake_node import FakeNode, running

VALUES = torch.tensor([[3.1, 50.0], [2.9, 49.0], [4.0, 52.5]], dtype=torch.float64)
NAMES = ["weight_kg", "height_cm"]


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        yield node


@pytest.fixture
def hospital(fake: FakeNode) -> Iterator[Node]:
    with grid.connect(fake.url, username="bob", password="correct horse") as node:
        yield node


def joined(parts: list[Any]) -> bytes:
    return b"".join(bytes(part) for part in parts)


def problems(error: pytest.ExceptionInfo[InvalidInputError]) -> list[str]:
    return list(error.value.details["problems"])


def test_the_owner_s_steps_of_the_tutorial(fake: FakeNode, hospital: Node) -> None:
    records = (
        grid.private_tensor(
            VALUES,
            allowed_users=["bob", "ana", "alice"],
            bounds=([0.5, 30.0], [6.0, 60.0]),
            entities=None,
            columns=NAMES,
        )
        .tag("#February", "#birth-records")
        .describe("Births of February. Columns: weight in kilogram, height in centimetre.")
    )
    pointer = records.send(hospital)
    spec = fake.published[0].spec
    assert spec.columns == [Column("weight_kg", low=0.5, high=6.0), Column("height_cm", low=30.0, high=60.0)]
    assert spec.tags == ["#February", "#birth-records"]
    assert (spec.allowed_users, spec.entities, spec.visibility) == (["bob", "ana", "alice"], None, None)
    assert fake.published[0].mock == 0
    assert torch.equal(pointer.get(), VALUES)
    assert isinstance(pointer, torch.Tensor)


@pytest.mark.parametrize(
    ("bounds", "columns", "expected"),
    [
        (None, None, []),
        (None, NAMES, [Column(NAMES[0]), Column(NAMES[1])]),
        ((0, 9), None, [Column("", low=0.0, high=9.0)]),
        ((0, 9), NAMES, [Column(NAMES[0], low=0.0, high=9.0), Column(NAMES[1], low=0.0, high=9.0)]),
        (
            (np.array([0.0, 1.0]), np.array([2.0, 3.0])),
            None,
            [Column("0", low=0.0, high=2.0), Column("1", low=1.0, high=3.0)],
        ),
        ({"height_cm": (30, 60)}, NAMES, [Column(NAMES[0]), Column(NAMES[1], low=30.0, high=60.0)]),
    ],
)
def test_bounds_may_be_written_in_three_ways(bounds: Any, columns: Any, expected: list[Column]) -> None:
    assert grid.private_tensor(VALUES, bounds=bounds, columns=columns).spec().columns == expected


def test_all_problems_come_at_once(hospital: Node) -> None:
    with pytest.raises(InvalidInputError) as error:
        grid.private_tensor(
            VALUES,
            allowed_users="bob",
            bounds={"weight": (6.0, 0.5), "height_cm": (60.0, 30.0)},
            columns=NAMES,
            entities=["a", "b"],
            visibility="all",
            missing="mean",
            rows="private",
            mock=torch.ones(3, 3),
            domain=7,  # type: ignore[arg-type]
        )
    starts = [problem.split(":")[0] for problem in problems(error)]
    assert sorted(starts) == sorted(
        [
            "allowed_users",
            "visibility",
            "missing",
            "rows",
            "bounds",
            "bounds of column 'height_cm'",
            "entities",
            "mock",
            "domain",
        ]
    )


def test_rows_of_the_same_people_name_the_dataset_that_says_who_they_are(fake: FakeNode, hospital: Node) -> None:
    first = grid.private_tensor(VALUES, name="births").send(hospital)
    for same in (first, "births", hospital.dataset("births")):
        assert grid.private_tensor(VALUES, entities_of=same).spec().entities_of == "births"
    with pytest.raises(InvalidInputError, match="entities_of"):
        grid.private_tensor(VALUES, entities_of=7).spec()


@pytest.mark.parametrize(
    "declared",
    [
        {"bounds": ([0.0], [1.0])},
        {"bounds": (1.0, 1.0)},
        {"bounds": (0.0, float("inf"))},
        {"bounds": 5},
        {"columns": ["one"]},
        {"columns": "ab"},
        {"max_rows": 2},
        {"rows": "public", "max_rows": 9},
        {"entities": ["a", None, "c"]},
        {"entities": "abc"},
        {"entities": [1, 2, 3], "entities_of": "births"},
    ],
)
def test_a_declaration_that_cannot_be_is_refused_before_anything_travels(declared: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        grid.private_tensor(VALUES, **declared)


@pytest.mark.parametrize(
    "values", ["text", torch.ones(3, dtype=torch.complex64), torch.tensor(1.0), object(), torch.ones(0, 2)]
)
def test_values_that_are_none_are_refused(values: Any) -> None:
    with pytest.raises(InvalidInputError):
        grid.private_tensor(values)


@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        ([7, 8, 8], torch.tensor([7, 8, 8])),
        (np.array([7, 8, 8], dtype=np.int32), torch.tensor([7, 8, 8])),
        (torch.tensor([7, 8, 8]), torch.tensor([7, 8, 8])),
        (["a", "é", "abc"], torch.tensor([[97, 0, 0], [195, 169, 0], [97, 98, 99]], dtype=torch.uint8)),
        ([1, "1", 2**70], None),
    ],
)
def test_people_travel_as_numbers_or_texts(entities: Any, expected: torch.Tensor | None) -> None:
    publication = grid.private_tensor(VALUES, entities=entities, max_rows_per_entity=2)
    assert publication.spec().entities == ""
    found = safetensors.torch.load(joined(publication.values()))
    assert torch.equal(found["values"], VALUES)
    if expected is not None:
        assert torch.equal(found["entities"], expected)


def test_safetensors_are_read_by_the_library() -> None:
    tensors = {
        name: torch.ones(2, 3).to(getattr(torch, name)) for name in ("bool", "uint8", "int64", "bfloat16", "float64")
    }
    found = safetensors.torch.load(joined(write_safetensors(tensors)))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


TABLE = pa.table(
    {
        "mother_id": ["a", "b", "b"],
        "weight": [3.1, 2.9, 4.0],
        "ward": ["x", "y", "x"],
        "day": [datetime.date(2026, 2, day) for day in (1, 2, 3)],
        "smokes": [True, False, True],
    }
)
DECLARED: dict[str, Any] = {
    "entities": "mother_id",
    "bounds": {"weight": (0.5, 6.0), "day": ("2026-01-01", datetime.date(2026, 12, 31))},
    "categories": {"ward": ["x", "y", "z"]},
    "max_rows_per_entity": 4,
}


def sources(folder: Path) -> dict[str, Any]:
    pq.write_table(TABLE, folder / "births.parquet")
    frame = TABLE.to_pandas()
    frame.to_csv(folder / "births.csv", index=False)
    frame["ward"] = frame["ward"].astype("category")
    return {
        "arrow": TABLE,
        "parquet": folder / "births.parquet",
        "csv": str(folder / "births.csv"),
        "pandas": frame.set_index(pd.Index(["secret", "of", "mine"])),
        "polars": pl.from_arrow(TABLE),
        "lazy": pl.from_arrow(TABLE).lazy(),  # type: ignore[union-attr]
        "batch": TABLE.to_batches()[0],
    }


@pytest.mark.parametrize("source", ["arrow", "parquet", "csv", "pandas", "polars", "lazy", "batch"])
def test_a_table_is_the_same_wherever_it_comes_from(source: str, tmp_path: Path) -> None:
    publication = grid.private_table(sources(tmp_path)[source], **DECLARED)
    assert publication.spec().columns == [
        Column("weight", low=0.5, high=6.0),
        Column("ward", "category", categories=["x", "y", "z"]),
        Column("day", "date", 20454.0, 20818.0),
        Column("smokes", "boolean"),
    ]
    raw = joined(publication.values())
    assert b"secret" not in raw
    found = pa.ipc.open_stream(raw).read_all()
    assert found.column_names == TABLE.column_names
    assert found.column("ward").type == pa.string()
    assert found.column("mother_id").to_pylist() == ["a", "b", "b"]


def test_histograms_and_partitions_are_the_owners_to_declare() -> None:
    chosen = {"edges": {"weight": [0, 3, 6], "day": ["2026-01-01", "2027-01-01"]}, "partitions": ["ward", "smokes"]}
    weight, ward, day, smokes = grid.private_table(TABLE, **DECLARED, **chosen).spec().columns
    assert (weight.edges, day.edges, ward.edges) == ([0.0, 3.0, 6.0], [20454.0, 20819.0], None)
    assert [column.partition for column in (weight, ward, day, smokes)] == [False, True, False, True]
    rows = grid.private_tensor(VALUES, bounds=(0, 99), columns=NAMES, edges={NAMES[0]: [0, 50, 99]}).spec()
    assert rows.columns[0].edges == [0.0, 50.0, 99.0]


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({"edges": {"weight": [0.5, 3.0]}}, "from the lower bound to the upper one"),
        ({"edges": {"weight": [6.0, 0.5]}}, "rising"),
        ({"edges": {"weight": 3}}, "a list of numbers or dates"),
        ({"edges": {"smokes": [0, 1]}}, "declare its bounds too"),
        ({"edges": {"wait": [0, 1]}}, "no column 'wait'"),
        ({"edges": [1, 2]}, "write {column"),
        ({"partitions": ["station"]}, "no column 'station'"),
        ({"partitions": "ward"}, "a list of names"),
    ],
)
def test_a_wrong_histogram_or_partition_is_told_before_anything_travels(chosen: dict[str, Any], wanted: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        grid.private_table(TABLE, **DECLARED, **chosen)
    assert any(wanted in problem for problem in problems(error))


def test_a_table_s_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as error:
        grid.private_table(
            TABLE,
            entities="mother",
            bounds={"wait": (0, 1), "smokes": (0, 1), "weight": (1, "x")},
            categories={"station": ["x"]},
            mock=TABLE.select(["ward"]),
        )
    text = "\n".join(problems(error))
    for part in ("'mother'", "'wait'", "'station'", "'smokes'", "'weight'", "'ward': declare its categories", "mock"):
        assert part in text
    for path in (tmp_path / "none.csv", tmp_path / "births.xlsx", 7):
        with pytest.raises(InvalidInputError):
            grid.private_table(path)


def test_chosen_columns_and_a_mock_travel_in_order(fake: FakeNode, hospital: Node) -> None:
    mock = pa.table({"smokes": [True], "weight": [3.0], "other": ["?"]})
    table = grid.private_table(TABLE, columns=["weight", "smokes"], entities="mother_id", mock=mock).tag("#births")
    table.send(hospital)
    (published,) = fake.published
    values = pa.ipc.open_stream(fake.uploads[published.values]).read_all()
    assert values.column_names == ["weight", "smokes", "mother_id"]
    assert pa.ipc.open_stream(fake.uploads[published.mock]).read_all().column_names == ["weight", "smokes"]


def test_a_new_version_keeps_what_was_declared(fake: FakeNode, hospital: Node) -> None:
    grid.private_tensor(VALUES, bounds=([0, 30], [6, 60]), columns=NAMES, name="births").tag("#a").describe("b").send(
        hospital
    )
    dataset = hospital.dataset("births")
    dataset.replace(VALUES * 1.01)
    old, new = (published.spec for published in fake.published)
    assert new.replace == "births"
    assert (new.columns, new.tags, new.description) == (old.columns, old.tags, old.description)
    wider = replacement(dataset, VALUES, {"bounds": (0, 99)}).spec()
    assert wider.columns[0].high == 99.0
    fake.datasets["births"]["entities"] = "declared"
    with pytest.raises(InvalidInputError, match="who each row is"):
        hospital.dataset("births").replace(VALUES)
    with pytest.raises(InvalidInputError, match="is a tensor"):
        dataset.replace(grid.private_table(TABLE, **DECLARED))
