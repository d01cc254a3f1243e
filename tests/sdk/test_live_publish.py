"""What owners publish arrives as it was declared, in every form they keep it in, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import gridclient
from gridclient.node import Node
from tests.factories.crew import Crew, fresh, refused

Q = "A question."
FRAME = pd.DataFrame(
    {
        "born": [date(1964, 1, 1 + day) for day in range(12)],
        "weight": [2.5 + day / 8 for day in range(12)],
        "siblings": [day % 4 for day in range(12)],
        "smoke": ["never", "now", "before"] * 4,
        "first": [day % 3 == 0 for day in range(12)],
    }
)
DECLARED: dict[str, Any] = {
    "bounds": {"born": ("1964-01-01", "1966-12-31"), "weight": (0.5, 6.0), "siblings": (0, 10)},
    "categories": {"smoke": ["never", "before", "now"]},
}
EPOCH = date(1970, 1, 1)
CLEAR: dict[str, torch.Tensor] = {
    "born": torch.tensor([(day - EPOCH).days for day in FRAME["born"]], dtype=torch.float64),
    "weight": torch.tensor(FRAME["weight"].tolist(), dtype=torch.float64),
    "siblings": torch.tensor(FRAME["siblings"].tolist(), dtype=torch.float64),
    "smoke": torch.tensor([["never", "before", "now"].index(word) for word in FRAME["smoke"]]),
    "first": torch.tensor(FRAME["first"].tolist()),
}
BOUNDS = ([0.0, 0.0], [10.0, 100.0])
ROWS = torch.arange(24, dtype=torch.float64).reshape(12, 2) / 4


def csv_file(folder: Path) -> Path:
    FRAME.to_csv(folder / "births.csv", index=False)
    return folder / "births.csv"


def parquet_file(folder: Path) -> Path:
    pa.parquet.write_table(pa.Table.from_pandas(FRAME), folder / "births.parquet")
    return folder / "births.parquet"


SOURCES: dict[str, Callable[[Path], Any]] = {
    "csv": csv_file,
    "parquet": parquet_file,
    "pandas": lambda folder: FRAME,
    "pandas categorical": lambda folder: FRAME.astype({"smoke": "category"}),
    "polars": lambda folder: pl.from_pandas(FRAME),
    "polars lazy": lambda folder: pl.from_pandas(FRAME).lazy(),
    "arrow": lambda folder: pa.Table.from_pandas(FRAME),
}


def tensor(values: Any, **declared: Any) -> Any:
    return gridclient.private_tensor(values, **{"name": fresh("records"), **declared})


def problems_of(publication: Any, node: Node) -> list[str]:
    """Why a publication is refused by the node; nothing of it is published."""
    before = {dataset.id for dataset in node.datasets()}
    with pytest.raises(gridclient.InvalidInputError) as caught:
        publication.send(node)
    assert {dataset.id for dataset in node.datasets()} == before
    return list(caught.value.details["problems"])


def found_by(node: Node, name: str) -> bool:
    return name in [dataset.name for dataset in node.datasets()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.float16, torch.bool], ids=str)
@pytest.mark.parametrize("shape", [(12,), (12, 2), (4, 3, 2)], ids=str)
def test_tensor_is_on_the_node_as_it_was_here(owner: Node, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = (torch.arange(torch.Size(shape).numel()).reshape(shape) % 7).to(dtype)
    pointer = tensor(values).tag("#Numbers").describe("Numbers.").send(owner)
    assert (tuple(pointer.shape), pointer.dtype, pointer.tags) == (shape, dtype, ["#Numbers"])
    got = pointer.get()
    assert got.dtype is dtype
    assert torch.equal(got, values)
    assert torch.equal(owner.dataset(pointer.dataset).pointer()[1].get(), values[1])


def test_numpy_and_views_are_published_as_they_look(owner: Node) -> None:
    values = np.arange(24.0).reshape(12, 2)
    assert torch.equal(tensor(values[:, ::-1]).send(owner).get(), torch.from_numpy(values[:, ::-1].copy()))
    assert torch.equal(tensor(ROWS.t()[:, ::2]).send(owner).get(), ROWS.t()[:, ::2])


@pytest.mark.parametrize("source", SOURCES)
def test_table_is_the_same_from_every_source(owner: Node, source: str, tmp_path: Path) -> None:
    table = gridclient.private_table(SOURCES[source](tmp_path), name=fresh("births"), **DECLARED)
    pointer = table.tag("#births").describe("Births.").send(owner)
    assert pointer.columns == list(FRAME.columns)
    assert len(pointer) == 12
    assert [column.kind for column in pointer.schema] == ["date", "number", "number", "category", "boolean"]
    for name, clear in CLEAR.items():
        got = pointer[name].get()
        assert got.dtype is clear.dtype
        assert torch.equal(got, clear)
    both = pointer[["weight", "siblings"]].get()
    assert torch.equal(both, torch.stack([CLEAR["weight"], CLEAR["siblings"]], dim=1))
    whole = pointer.get()
    assert whole.column_names == list(FRAME.columns)
    assert whole["weight"].to_pylist() == FRAME["weight"].tolist()
    assert pointer.count().get() == 12
    assert torch.equal(pointer["weight"].mean().get(), CLEAR["weight"].mean())


def test_people_are_counted_and_not_rows(owner: Node, scientist: Node) -> None:
    mothers = [f"mother {row // 2}" for row in range(12)]
    records = tensor(ROWS, entities=mothers, max_rows_per_entity=2, bounds=BOUNDS, columns=["a", "b"])
    pointer = records.send(owner)
    dataset = owner.dataset(pointer.dataset)
    dataset.grant(scientist.user, "aggregate", reason=Q)
    # Twelve rows, and six people.
    error = refused(scientist.dataset(dataset.name).pointer().sum(0).get)
    assert "enough people behind each number" in str(error)
    problems = problems_of(tensor(ROWS, entities=mothers), owner)
    assert len(problems) == 1
    assert "max_rows_per_entity" in problems[0]
    numbered = tensor(ROWS, entities=range(12), bounds=BOUNDS, columns=["a", "b"]).send(owner)
    owner.dataset(numbered.dataset).grant(scientist.user, "aggregate", reason=Q)
    assert torch.equal(scientist.dataset(numbered.dataset).pointer().sum(0).get(), ROWS.sum(0))


def test_column_of_people_is_no_column_of_the_table(owner: Node) -> None:
    frame = FRAME.assign(mother=[f"mother {row // 3}" for row in range(12)])
    table = gridclient.private_table(
        frame, entities="mother", max_rows_per_entity=3, name=fresh("births"), **DECLARED
    ).send(owner)
    assert "mother" not in table.columns
    assert table.get().column_names == list(FRAME.columns)
    again = gridclient.private_table(frame, entities="mother", name=fresh("births"), **DECLARED)
    assert "mother 0" not in " ".join(problems_of(again, owner))


@pytest.mark.parametrize("kind", ["tensor", "table"])
def test_missing_values_are_treated_as_the_owner_said(owner: Node, kind: str) -> None:
    values = ROWS.clone()
    values[3, 0] = values[7, 1] = float("nan")

    def publication(missing: str | float) -> Any:
        common: dict[str, Any] = {"missing": missing, "name": fresh("holes")}
        if kind == "tensor":
            return gridclient.private_tensor(values, bounds=BOUNDS, columns=["a", "b"], **common)
        table = pa.table({"a": values[:, 0].numpy(), "b": pa.array(values[:, 1].numpy(), from_pandas=True)})
        return gridclient.private_table(table, bounds={"a": (0.0, 10.0), "b": (0.0, 100.0)}, **common)

    problems = problems_of(publication("refuse"), owner)
    assert len(problems) == 2
    assert all("missing" in problem for problem in problems)
    filled = publication(5.0).send(owner)
    column = (lambda p, i: p[:, i]) if kind == "tensor" else (lambda p, i: p["ab"[i]])
    assert torch.equal(column(filled, 0).get(), torch.where(values[:, 0].isnan(), 5.0, values[:, 0]))
    assert filled.count().get() == 12
    null = publication("null").send(owner)
    complete = values[~values.isnan().any(dim=1)]
    assert null.count().get() == 10
    assert torch.equal(column(null, 0).sum().get(), complete[:, 0].sum())
    torch.testing.assert_close(column(null, 1).mean().get(), complete[:, 1].mean())
    problem = problems_of(publication(-1.0), owner)
    assert all("missing values lies outside" in text for text in problem)


@pytest.mark.parametrize("kind", ["tensor", "table"])
def test_private_number_of_rows_is_padded_and_sums_are_right(owner: Node, scientist: Node, kind: str) -> None:
    common: dict[str, Any] = {"max_rows": 40, "name": fresh("padded")}
    if kind == "tensor":
        records: Any = gridclient.private_tensor(ROWS, bounds=BOUNDS, columns=["a", "b"], **common)
    else:
        frame = pd.DataFrame(ROWS.numpy(), columns=["a", "b"])
        records = gridclient.private_table(frame, bounds={"a": (0, 10), "b": (0, 100)}, **common)
    dataset = owner.dataset(records.send(owner).dataset)
    dataset.grant(scientist.user, "aggregate", reason=Q)
    for person in (owner, scientist):
        pointer = person.dataset(dataset.name).pointer()
        assert tuple(pointer.shape) == (40, 2)
        assert len(pointer) == 40
        assert pointer.count().get() == 12
        for i, name in enumerate("ab"):
            column = pointer[:, i] if kind == "tensor" else pointer[name]
            assert torch.equal(column.sum().get(), ROWS[:, i].sum())
            torch.testing.assert_close(column.mean().get(), ROWS[:, i].mean())
    if kind == "tensor":
        pointer = scientist.dataset(dataset.name).pointer()
        assert torch.equal(pointer.sum(0).get(), ROWS.sum(0))
        torch.testing.assert_close(pointer.mean(0).get(), ROWS.mean(0))
        with pytest.raises(gridclient.OperationNotAllowedError, match="null records"):
            pointer.amax(0).get()
    mock = scientist.dataset(dataset.name).mock
    assert len(mock) == 40


def test_mock_data_are_the_owner_s_or_made_from_public_facts(owner: Node, scientist: Node) -> None:
    mock = torch.full((3, 2), 9.25, dtype=torch.float64)
    with_mock = tensor(ROWS, mock=mock, bounds=BOUNDS, columns=["a", "b"]).send(owner)
    assert torch.equal(scientist.dataset(with_mock.dataset).mock, mock)
    assert torch.equal(scientist.dataset(with_mock.dataset).pointer().mock, mock)
    made = scientist.dataset(tensor(ROWS, bounds=BOUNDS, columns=["a", "b"]).send(owner).dataset).mock
    again = scientist.dataset(tensor(ROWS + 1, bounds=BOUNDS, columns=["a", "b"]).send(owner).dataset).mock
    assert made.shape == ROWS.shape
    # What is made depends on no value.
    assert torch.equal(made, again)
    assert not torch.equal(made, ROWS)
    problems = problems_of(tensor(ROWS, mock=torch.cat([mock, ROWS[5:6]])), owner)
    assert problems == ["mock data: a row equals a private row; mock data must be made up."]
    problems = problems_of(tensor(ROWS, mock=torch.stack([ROWS[:, 0].flip(0), ROWS[:, 1] + 0.125], dim=1)), owner)
    assert any("in another order" in problem for problem in problems)
    frame = FRAME[:3].assign(weight=5.5)
    table = gridclient.private_table(FRAME, mock=frame, name=fresh("births"), **DECLARED).send(owner)
    assert scientist.dataset(table.dataset).mock["weight"].tolist() == [5.5] * 3


def test_each_visibility_shows_a_dataset_to_whom_it_should(crew: Crew, owner: Node, scientist: Node) -> None:
    stranger = crew.hire("scientist")
    names = {}
    for visibility in ("listed", "accounts", "granted"):
        names[visibility] = tensor(ROWS, visibility=visibility).send(owner).dataset
        assert found_by(owner, names[visibility])
    for visibility in ("listed", "accounts"):
        assert found_by(scientist, names[visibility])
    assert not found_by(scientist, names["granted"])
    with pytest.raises(gridclient.NotFoundError) as hidden:
        scientist.dataset(names["granted"])
    with pytest.raises(gridclient.NotFoundError) as absent:
        scientist.dataset(none := fresh("absent"))
    assert str(hidden.value).replace(names["granted"], none) == str(absent.value)
    owner.dataset(names["granted"]).grant(scientist.user, "discover", reason=Q)
    assert scientist.dataset(names["granted"]).rights == ["discover"]
    assert not found_by(stranger, names["granted"])
    assert owner.dataset(names["accounts"]).describe(visibility="granted").metadata["visibility"] == "granted"
    assert not found_by(stranger, names["accounts"])


def test_rows_of_the_same_people_can_be_computed_together(owner: Node) -> None:
    base = tensor(ROWS, bounds=BOUNDS, columns=["a", "b"], entities=range(12)).send(owner)
    extra = torch.arange(12.0, dtype=torch.float64)
    other = tensor(extra, entities_of=base, bounds=(0, 20)).send(owner)
    sequences = {owner.dataset(name).metadata["sequence"] for name in (base.dataset, other.dataset)}
    assert len(sequences) == 1
    assert torch.equal((base[:, 0] * other).sum().get(), (ROWS[:, 0] * extra).sum())
    with pytest.raises(gridclient.InvalidInputError, match="as many rows"):
        tensor(extra[:5], entities_of=base.dataset).send(owner)
    with pytest.raises(gridclient.NotFoundError):
        tensor(extra, entities_of=fresh("absent")).send(owner)


def test_new_version_leaves_old_pointers_with_theirs(owner: Node, scientist: Node) -> None:
    first = tensor(ROWS, bounds=BOUNDS, columns=["a", "b"], allowed_users=[scientist.user]).tag("#v").send(owner)
    dataset = owner.dataset(first.dataset)
    theirs = scientist.dataset(dataset.name).pointer()
    second = dataset.replace(ROWS[:10] + 1)
    assert (second.dataset, dataset.refresh().version) == (dataset.name, 2)
    assert torch.equal(first.get(), ROWS)
    assert torch.equal(second.get(), ROWS[:10] + 1)
    assert torch.equal(theirs.sum(0).get(), ROWS.sum(0))
    newest = scientist.dataset(dataset.name)
    assert (newest.version, newest.shape, newest.tags) == (2, (10, 2), ["#v"])
    assert (newest.columns, newest.bounds) == (["a", "b"], ([0.0, 0.0], [10.0, 100.0]))
    assert torch.equal(newest.pointer().get(), ROWS[:10] + 1)
    with pytest.raises(gridclient.InvalidInputError, match="declared bounds"):
        dataset.replace(ROWS + 1000)
    assert dataset.refresh().version == 2
    with pytest.raises(gridclient.GridError) as refusal:
        scientist.dataset(dataset.name).replace(ROWS)
    assert refusal.value.status == 403


def test_new_version_of_a_table_keeps_what_was_declared(owner: Node) -> None:
    table = gridclient.private_table(FRAME, name=fresh("births"), missing="null", **DECLARED).send(owner)
    dataset = owner.dataset(table.dataset)
    dataset.replace(FRAME.iloc[:11].assign(weight=3.0))
    newest = dataset.refresh()
    assert (newest.version, newest.schema) == (2, dataset.schema)
    assert torch.equal(newest.pointer()["weight"].get(), torch.full((11,), 3.0, dtype=torch.float64))
    assert torch.equal(table["weight"].get(), CLEAR["weight"])


def test_bad_tensor_is_refused_with_every_problem_and_no_value(owner: Node) -> None:
    values = ROWS.clone()
    values[4, 0], values[6, 1], values[8, 0] = 77_123.5, float("nan"), float("inf")
    records = tensor(
        values,
        bounds=BOUNDS,
        columns=["a", "b"],
        entities=["secret person"] * 12,
        max_rows_per_entity=3,
        mock=ROWS[2:3].clone(),
    )
    problems = problems_of(records, owner)
    text = " ".join(problems)
    for part in (
        "'a': values that are not finite",
        "'a': values outside",
        "'b': missing",
        "max_rows_per_entity",
        "mock",
    ):
        assert part in text
    assert len(problems) == 5
    for private in ("77123", "77_123", "secret", "nan", "inf,", "12", "row 4", "[4"):
        assert private not in text


def test_bad_table_is_refused_with_every_problem_and_no_value(owner: Node) -> None:
    frame = FRAME.copy()
    frame.loc[2, "weight"], frame.loc[3, "smoke"] = 4321.5, "secretly"
    frame["born"] = [date(1950, 7, 9)] * 12
    frame["siblings"] = [None, *frame["siblings"][1:]]
    problems = problems_of(gridclient.private_table(frame, name=fresh("births"), **DECLARED), owner)
    text = " ".join(problems)
    for part in ("'weight': values outside", "'smoke'", "'born': values outside", "'siblings': missing"):
        assert part in text
    assert len(problems) == 4
    for private in ("4321", "secretly", "1950", "-7"):
        assert private not in text


def test_unknown_allowed_user_publishes_nothing(owner: Node, scientist: Node) -> None:
    records = tensor(ROWS, allowed_users=["bop", scientist.user, "anna"])
    with pytest.raises(gridclient.InvalidInputError, match="bop, anna"):
        records.send(owner)
    assert not found_by(owner, records.declared.name)
    readable = tensor(ROWS, allowed_users=[scientist.user]).send(owner)
    assert torch.equal(scientist.dataset(readable.dataset).pointer().get(), ROWS)


def test_scientist_may_not_publish_and_learns_who_can_help(scientist: Node) -> None:
    with pytest.raises(gridclient.PublishNotPermittedError, match="administrator can give"):
        tensor(ROWS).send(scientist)
    with pytest.raises(gridclient.PublishNotPermittedError):
        gridclient.private_table(FRAME, name=fresh("births"), **DECLARED).send(scientist)


def test_names_never_clash(owner: Node) -> None:
    name = fresh("Births of March")
    first = tensor(ROWS, name=name).send(owner).dataset
    second = tensor(ROWS, name=name).send(owner).dataset
    assert second == f"{first}-2"
    word = fresh("ward")
    described = gridclient.private_tensor(ROWS).describe(f"{word} Two Three Four Five Six seven.").send(owner)
    assert described.dataset == f"{word}-two-three-four-five-six"
    assert gridclient.private_tensor(ROWS).tag(f"#{word}", "#Tags").send(owner).dataset == f"{word}-tags"


def test_upload_of_many_chunks_arrives_whole(owner: Node) -> None:
    values = torch.arange(2_500_000, dtype=torch.float64)
    pointer = tensor(values, bounds=(0, 1e7)).send(owner)
    assert torch.equal(pointer.get(), values)
