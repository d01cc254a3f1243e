"""A table is worked with by column, here on its mock data and there on the node, with the same code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch

import gridclient
from gridclient.node import Node
from gridclient.tables import MockTable, TablePointer
from tests.factories.crew import fresh

EPOCH = date(1970, 1, 1)
WORDS = ["never", "before", "now"]
FRAME = pd.DataFrame(
    {
        "born": [date(1964, 1, 1) + timedelta(days=40 * row) for row in range(12)],
        "weight": [2.5 + row / 8 for row in range(12)],
        "smoke": ["never", "now", "before"] * 4,
        "first": [row % 3 == 0 for row in range(12)],
    }
)
MOCK = pd.DataFrame(
    {
        "born": [date(1965, 5, 5), date(1966, 6, 6), date(1964, 4, 4)],
        "weight": [3.0625, 1.0, 5.0],
        "smoke": ["now", "now", "never"],
        "first": [True, False, True],
    }
)
DECLARED: dict[str, Any] = {
    "bounds": {"born": ("1964-01-01", "1966-12-31"), "weight": (0.5, 6.0)},
    "categories": {"smoke": WORDS},
}


@pytest.fixture(scope="module")
def births(owner: Node, scientist: Node) -> TablePointer:
    """The table as a scientist sees it, who may read it."""
    table = gridclient.private_table(FRAME, mock=MOCK, name=fresh("tables"), allowed_users=[scientist.user], **DECLARED)
    dataset = table.tag("#Births").describe("Births.\nOf spring.").send(owner).dataset
    pointer: TablePointer = scientist.dataset(dataset).pointer()
    return pointer


def study(t: Any) -> list[Any]:
    """What a scientist may compute of such a table."""
    smokes = t["smoke"] == t.categories["smoke"].index("now")
    late = t["born"] >= gridclient.days("1964-06-01")
    return [
        t["weight"].mean(),
        (t["weight"] * smokes).sum() / smokes.sum(),
        torch.where(t["first"] & late, t["weight"], 0.0).sum(),
        t[["weight", "born"]].mean(0),
        t[["smoke", "first"]].sum(0),
        (late & ~t["first"]).sum(),
        t.count(),
    ]


def expected(frame: pd.DataFrame) -> list[Any]:
    """The same in pandas."""
    smokes, late = frame["smoke"] == "now", frame["born"] >= date(1964, 6, 1)
    days = pd.Series([(day - EPOCH).days for day in frame["born"]])
    codes = frame["smoke"].map(WORDS.index)
    return [
        frame["weight"].mean(),
        frame["weight"][smokes].mean(),
        frame["weight"][frame["first"] & late].sum(),
        [frame["weight"].mean(), days.mean()],
        [float(codes.sum()), float(frame["first"].sum())],
        int((late & ~frame["first"]).sum()),
        len(frame),
    ]


def test_code_written_on_the_mock_runs_on_the_pointer(births: TablePointer) -> None:
    mock = births.mock
    tried, meant = study(mock), study(births)
    for local, remote, there, here in zip(tried, meant, expected(FRAME), expected(MOCK), strict=True):
        assert type(local) is torch.Tensor
        assert isinstance(remote, gridclient.Pointer)
        assert (local.dtype, local.shape) == (remote.dtype, remote.shape)
        assert local.tolist() == pytest.approx(here, rel=1e-14)
        assert remote.get().tolist() == pytest.approx(there, rel=1e-14)


def test_columns_have_the_dtypes_that_are_promised_on_both(births: TablePointer) -> None:
    dtypes = [torch.float64, torch.float64, torch.int64, torch.bool]
    for table in (births, births.mock):
        assert [table[name].dtype for name in table.columns] == dtypes
        assert table[["first", "smoke"]].dtype is torch.float64
        assert len(table) == table.shape[0] == len(table["weight"])
    assert births.mock["born"].tolist() == [(day - EPOCH).days for day in MOCK["born"]]
    assert births.mock["smoke"].tolist() == [2, 2, 0]
    assert births.mock["first"].tolist() == [True, False, True]


def test_the_whole_table_has_dates_and_words(births: TablePointer, owner: Node, scientist: Node) -> None:
    asked = owner.dataset(births.dataset).pointer()
    for whole, frame in ((births.get(), FRAME), (asked.get(), FRAME), (births.mock.get(), MOCK)):
        assert whole.schema.field("born").type == pa.date32()
        assert whole.schema.field("smoke").type == pa.dictionary(pa.int32(), pa.string())
        assert whole.to_pylist() == pa.Table.from_pandas(frame).to_pylist()
        assert whole["smoke"].combine_chunks().dictionary.to_pylist() == WORDS


def test_a_whole_table_from_the_queue_has_dates_and_words_too(
    births: TablePointer, owner: Node, scientist: Node, reviewer: Node
) -> None:
    name = gridclient.private_table(FRAME, name=fresh("tables"), **DECLARED).send(owner).dataset
    request = scientist.dataset(name).pointer().request("To look at it.")
    (seen,) = [waiting for waiting in reviewer.requests(state="submitted") if waiting.id == request.id]
    seen.approve("Yes.")
    assert request.wait(60).get().equals(births.get())


def test_a_time_of_day_is_kept(owner: Node) -> None:
    moments = [datetime(2024, 2, 29, hour, 30, tzinfo=UTC) for hour in range(12)]
    frame = pa.table({"at": pa.array(moments, pa.timestamp("us", "UTC"))})
    table = gridclient.private_table(frame, name=fresh("tables"), bounds={"at": ("2024-01-01", "2025-01-01")})
    pointer = table.send(owner)
    assert pointer["at"].get()[6] == gridclient.days(moments[6]) == gridclient.days("2024-02-29T06:30:00+00:00")
    whole = pointer.get()["at"]
    assert whole.type == pa.timestamp("ms")
    assert [moment.replace(tzinfo=UTC) for moment in whole.to_pylist()] == moments


def test_null_records_are_nulls_and_do_not_count(owner: Node) -> None:
    frame, mock = FRAME.copy(), MOCK.copy()
    frame.loc[2, "weight"] = None
    mock.loc[1, "smoke"] = None
    table = gridclient.private_table(frame, mock=mock, name=fresh("tables"), missing="null", **DECLARED).send(owner)
    assert (table.missing, len(table), table.count().get()) == ("null", 12, 11)
    whole = table.get().to_pylist()
    assert whole[2] == dict.fromkeys(FRAME.columns)
    assert whole[3] == pa.Table.from_pandas(FRAME).to_pylist()[3]
    assert (len(table.mock), table.mock.count().item()) == (3, 2)
    assert table.mock["smoke"].tolist() == [2, 0, 0]
    assert table.mock["born"].tolist()[1] == 0.0
    assert table.mock["first"].tolist() == [True, False, True]
    assert table["weight"].get()[2] == 0.0


def test_a_padded_table_shows_the_number_up_to_which_it_is_padded(owner: Node) -> None:
    table = gridclient.private_table(FRAME, name=fresh("tables"), max_rows=20, **DECLARED).send(owner)
    assert len(table) == 20
    assert table.get()["smoke"].null_count == 8
    assert "[20, 4]" in repr(table)
    assert ">20 × 4<" in table._repr_html_()
    assert len(table.mock.get()) == table.mock.count().item()


def test_what_is_public_is_described_in_words(births: TablePointer) -> None:
    for table in (births, births.mock):
        assert table.bounds == {"born": (-2192.0, -1097.0), "weight": (0.5, 6.0)}
        assert (table.categories, table.missing) == ({"smoke": WORDS}, "refuse")
        assert (table.description, table.tags) == ("Births.\nOf spring.", ["#Births"])
        assert (table.dataset, table.location) == (births.dataset, births.location)
        born, weight, smoke, first = table.describe()
        assert (born["kind"], born["low"], born["high"]) == ("date", date(1964, 1, 1), date(1966, 12, 31))
        assert (weight["dtype"], weight["low"], weight["missing"]) == ("torch.float64", 0.5, "none")
        assert (smoke["categories"], first["kind"]) == (WORDS, "boolean")
        assert "never, before, now" in repr(table.describe())
        assert "weight" in table and "wieght" not in table and 3 not in table
    assert repr(births) == f"<TablePointer {births.dataset} [12, 4] on hospital>"
    assert repr(births.mock) == f"<MockTable [3, 4]: mock of {births.dataset}, here>"
    assert "on hospital" in births._repr_html_() and "on hospital" not in births.mock._repr_html_()
    assert isinstance(births.mock, MockTable)
    assert births.mock.mock is births.mock


@pytest.mark.parametrize(
    "choice",
    [lambda t: t["weight"] > 3.0, lambda t: slice(0, 3), lambda t: 0],
    ids=["a mask", "a slice", "a number"],
)
def test_rows_are_not_chosen_and_the_error_says_what_to_do(births: TablePointer, choice: Callable[[Any], Any]) -> None:
    for table in (births, births.mock):
        with pytest.raises(gridclient.InvalidInputError, match=r"\* mask\)\.sum\(\) / mask\.sum\(\)"):
            table[choice(table)]
        with pytest.raises(gridclient.InvalidInputError, match="'born', 'weight', 'smoke', 'first'"):
            table["wieght"]
        with pytest.raises(gridclient.InvalidInputError, match=r'\[\["a", "b"\]\]'):
            table[[]]
        with pytest.raises(gridclient.InvalidInputError, match=r"t\.columns"):
            list(table)


def test_dates_and_days_are_turned_into_each_other() -> None:
    assert gridclient.days("1970-01-02") == gridclient.days(date(1970, 1, 2)) == 1.0
    east = timezone(timedelta(hours=6))
    assert gridclient.days(datetime(1970, 1, 2, 12, tzinfo=east)) == 1.25
    assert gridclient.days("1970-01-02T12:00:00") == 1.5
    assert gridclient.days("1969-12-31") == -1.0
    assert [gridclient.date_of(number) for number in (0.0, 1.75, -0.25)] == [
        date(1970, 1, 1),
        date(1970, 1, 2),
        date(1969, 12, 31),
    ]
    assert gridclient.date_of(torch.tensor(19_782.0).item()) == date(2024, 2, 29)
    wrong: Any
    for wrong in ("last Tuesday", 3, None):
        with pytest.raises(gridclient.InvalidInputError, match="1990-01-31"):
            gridclient.days(wrong)
    for number in (1e9, -1e9, float("nan"), float("inf")):
        with pytest.raises(gridclient.InvalidInputError, match="is no date"):
            gridclient.date_of(number)


def test_what_a_function_of_a_table_gives_is_taken_in_one_way_here_and_there(births: TablePointer) -> None:
    def total(table: Any) -> Any:
        return gridclient.get((table["weight"] * table["first"]).sum())

    assert total(births.mock) == (MOCK["weight"] * MOCK["first"]).sum()
    assert total(births) == (FRAME["weight"] * FRAME["first"]).sum()
    assert gridclient.get(births.mock).num_rows == len(MOCK)
    assert gridclient.get(births).num_rows == len(FRAME)
