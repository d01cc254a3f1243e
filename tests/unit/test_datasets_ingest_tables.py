"""What an owner declares holds for every row of a table, and a hostile file is refused."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from apps.datasets.ingest import Ingested, IngestLimits, ingest
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column, PublishSpec

KEY, LIMITS = b"k" * 32, IngestLimits()
COLUMNS = [
    Column("weight", low=0.5, high=6.0),
    Column("sex", kind="category", categories=["m", "f"]),
    Column("first", kind="boolean"),
    Column("born", kind="date", low=0.0, high=30_000.0),
]
BIRTHS = pa.table(
    {
        "born": pa.array([dt.date(1970, 1, 2), dt.date(1999, 2, 3), dt.date(1999, 2, 4)]),
        "weight": pa.array([3.1, 2.9, 4.0]),
        "sex": pa.array(["f", "m", "f"]),
        "first": pa.array([True, False, False]),
    }
)


def declared(**changed: Any) -> PublishSpec:
    return PublishSpec(**{"kind": "table", "name": "births", "columns": COLUMNS, **changed})


def write(path: Path, table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def publish(
    folder: Path,
    table: pa.Table,
    spec: PublishSpec,
    mock: pa.Table | None = None,
    limits: IngestLimits = LIMITS,
) -> tuple[Ingested, pa.Table, Path]:
    folder.mkdir(exist_ok=True)
    out = folder / "out"
    out.mkdir()
    upload = write(folder / "upload", table)
    given = None if mock is None else write(folder / "mock", mock)
    made = ingest(spec, upload, given, KEY, out, limits)
    return made, pa.ipc.open_file(pa.memory_map(str(out / "values.arrow"))).read_all(), out


def problems(folder: Path, *args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        publish(folder, *args, **kwargs)
    found: list[str] = caught.value.details["problems"]
    return found


def changed(**columns: Any) -> pa.Table:
    return pa.table(
        {name: columns[name] if name in columns else BIRTHS[name] for name in [*BIRTHS.column_names, *columns]}
    )


def test_a_table_arrives_in_declared_order_with_public_types(tmp_path: Path) -> None:
    made, stored, _ = publish(tmp_path, BIRTHS, declared())
    assert stored.column_names == ["weight", "sex", "first", "born"]
    assert stored["weight"].to_pylist() == [3.1, 2.9, 4.0]
    assert stored["sex"].type == pa.int64() and stored["sex"].to_pylist() == [1, 0, 1]
    assert stored["first"].type == pa.bool_() and stored["first"].to_pylist() == [True, False, False]
    assert stored["born"].type == pa.float64() and stored["born"].to_pylist() == [1.0, 10625.0, 10626.0]
    assert (made.kind, made.shape, made.dtype, made.columns) == ("table", [3, 4], "", COLUMNS)
    assert not any(field.nullable for field in stored.schema)


@pytest.mark.parametrize(
    ("born", "days"),
    [
        (pa.array([dt.datetime(1970, 1, 2, 12, tzinfo=dt.UTC)] * 3, pa.timestamp("ms", "UTC")), 1.5),
        (pa.array([dt.datetime(1970, 1, 2, 6)] * 3, pa.timestamp("ns")), 1.25),
        (pa.array([dt.date(1970, 1, 3)] * 3, pa.date64()), 2.0),
    ],
)
def test_dates_become_days_since_1970(tmp_path: Path, born: pa.Array, days: float) -> None:
    _, stored, _ = publish(tmp_path, changed(born=born), declared())
    assert stored["born"].to_pylist() == [days] * 3


@pytest.mark.parametrize(
    "weight",
    [pa.array([3, 2, 4]), pa.array([3, 2, 4], pa.float32()), pa.array([Decimal("3.0"), Decimal(2), Decimal(4)])],
)
def test_all_kinds_of_numbers_are_numbers(tmp_path: Path, weight: pa.Array) -> None:
    assert publish(tmp_path, changed(weight=weight), declared())[1]["weight"].to_pylist() == [3.0, 2.0, 4.0]


def test_categories_may_be_encoded_or_numbers(tmp_path: Path) -> None:
    encoded = pa.chunked_array([pa.array(["f", "m"]).dictionary_encode(), pa.array(["f"]).dictionary_encode()])
    assert publish(tmp_path / "a", changed(sex=encoded), declared())[1]["sex"].to_pylist() == [1, 0, 1]
    columns = [Column("ward", kind="category", categories=["12", "7"])]
    table = pa.table({"ward": pa.array([7, 12, 7], pa.int16())})
    assert publish(tmp_path / "b", table, declared(columns=columns))[1]["ward"].to_pylist() == [1, 0, 1]


def test_all_problems_are_told_at_once_without_a_value(tmp_path: Path) -> None:
    table = pa.table(
        {
            "born": ["3 February"] * 3,
            "weight": [3.1, 77.125, None],
            "sex": ["f", "Lindholm", None],
            "first": [True, None, False],
            "mother": [771, 771, None],
        }
    )
    spec = declared(entities="mother", max_rows_per_entity=1, missing=1.0, tags=["no tag"], max_rows=2)
    found = problems(tmp_path, table, spec)
    for wanted in (
        "max_rows: the upload has more rows.",
        "column 'born': its values are not of the declared kind, 'date'.",
        "column 'weight': values outside the declared bounds.",
        "column 'sex': values that are none of the declared categories.",
        "column 'sex': missing values, which a number cannot replace; use missing='null'.",
        "column 'first': missing values, which a number cannot replace; use missing='null'.",
        "entities: a row has no identifier.",
        "entities: an entity has more rows than max_rows_per_entity allows.",
    ):
        assert wanted in found
    for secret in ("77", "Lindholm", "February"):
        assert not any(secret in problem for problem in found)


def test_names_of_an_undeclared_column_are_not_told(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(Lindholm=pa.array([1, 2, 3])).drop_columns(["sex"]), declared())
    assert found == [
        "column 'sex': it is declared and not in the table.",
        "columns: the table has columns that are not declared.",
    ]


def test_missing_values_are_refused_replaced_or_nulled(tmp_path: Path) -> None:
    table = changed(weight=pa.array([3.1, None, float("nan")]))
    (found,) = problems(tmp_path / "refuse", table, declared())
    assert found.startswith("column 'weight': missing values;")
    assert publish(tmp_path / "number", table, declared(missing=3.0))[1]["weight"].to_pylist() == [3.1, 3.0, 3.0]
    made, stored, _ = publish(tmp_path / "null", table, declared(missing="null"))
    assert stored["__presence__"].to_pylist() == [True, False, False] and made.entity_count == 1
    assert stored.slice(1, 1).to_pylist()[0] == {
        "weight": 0.0, "sex": 0, "first": False, "born": 0.0, "__presence__": False,
    }  # fmt: skip


def test_a_private_number_of_rows_is_padded_away(tmp_path: Path) -> None:
    made, stored, out = publish(tmp_path, BIRTHS, declared(max_rows=5))
    assert stored["__presence__"].to_pylist() == [True] * 3 + [False] * 2 and made.shape == [5, 4]
    assert not made.rows_public and pa.ipc.open_file(out / "mock.arrow").read_all().num_rows == 5
    assert publish(tmp_path / "one", BIRTHS.slice(0, 1), declared(max_rows=5))[0].nbytes == made.nbytes


@pytest.mark.parametrize(
    "mother", [pa.array([7, 7, 8]), pa.array(["7", " 7", "8"]), pa.array(["7", "7", "8"]).dictionary_encode()]
)
def test_identifiers_are_taken_out_and_hashed_alike(tmp_path: Path, mother: pa.Array) -> None:
    spec = declared(entities="mother", max_rows_per_entity=2, columns=[*COLUMNS, Column("mother")])
    made, stored, out = publish(tmp_path, changed(mother=mother), spec)
    assert "mother" not in stored.column_names and made.shape == [3, 4] and made.columns == COLUMNS
    hmacs = pa.ipc.open_file(out / "entities.arrow").read_all()["entity"].to_pylist()
    assert hmacs[0] == hmacs[1] != hmacs[2] and made.entity_count == 2
    assert all(len(each) == 32 for each in hmacs)


def test_made_mock_data_follow_the_declaration_alone(tmp_path: Path) -> None:
    first, _, out = publish(tmp_path / "a", BIRTHS, declared())
    _, _, again = publish(tmp_path / "b", changed(weight=pa.array([1.0, 1.5, 2.0])), declared())
    assert (out / "mock.arrow").read_bytes() == (again / "mock.arrow").read_bytes()
    mock = pa.ipc.open_file(out / "mock.arrow").read_all()
    values = pa.ipc.open_file(out / "values.arrow").read_all()
    assert mock.schema == values.schema and mock.num_rows == 3
    assert all(0.5 <= weight <= 6.0 for weight in mock["weight"].to_pylist())
    assert set(mock["sex"].to_pylist()) <= {0, 1} and all(day == int(day) for day in mock["born"].to_pylist())


def test_an_owners_mock_data_must_be_made_up(tmp_path: Path) -> None:
    mock = pa.table(
        {
            "weight": [1.0, 1.5, 2.0],
            "sex": ["m", "m", "m"],
            "first": [True, True, False],
            "born": [dt.date(1980, 1, 1)] * 3,
        }
    )
    _, _, out = publish(tmp_path / "good", BIRTHS, declared(), mock)
    assert pa.ipc.open_file(out / "mock.arrow").read_all()["weight"].to_pylist() == [1.0, 1.5, 2.0]
    equal = pa.concat_tables([mock, BIRTHS.slice(1, 1).select(mock.column_names)])
    assert problems(tmp_path / "equal", BIRTHS, declared(), equal) == [
        "mock data: a row equals a private row; mock data must be made up."
    ]
    turned = mock.set_column(0, "weight", pa.array([4.0, 3.1, 2.9]))
    assert problems(tmp_path / "turned", BIRTHS, declared(), turned) == [
        "mock data: column 'weight': the private column in another order; mock data must be made up."
    ]
    assert problems(tmp_path / "names", BIRTHS, declared(), mock.drop_columns(["sex"])) == [
        "mock data: column 'sex': it is declared and not in the table."
    ]
    assert problems(tmp_path / "rows", BIRTHS, declared(), mock, limits=IngestLimits(mock_rows=2)) == [
        "mock data: 1 to 2 rows."
    ]


def test_whole_numbers_that_a_double_cannot_hold_are_refused(tmp_path: Path) -> None:
    columns = [Column("id")]
    (found,) = problems(tmp_path, pa.table({"id": [2**53 + 1]}), declared(columns=columns))
    assert "2**53" in found


BOMB = pa.table({"weight": np.zeros(2**20)})


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_stream_is_refused_before_it_unfolds(tmp_path: Path, codec: str) -> None:
    upload = write(tmp_path / "upload", BOMB, pa.ipc.IpcWriteOptions(compression=codec))
    assert upload.stat().st_size < 200_000
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match="uncompressed"):
        ingest(declared(columns=COLUMNS[:1]), upload, None, KEY, tmp_path / "out")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([None, None]),
        pa.array([b"a", b"b"]),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, b"1" * 16], pa.binary(16))),
    ],
)
def test_nested_null_binary_and_extension_types_are_refused(tmp_path: Path, column: pa.Array) -> None:
    (found,) = problems(tmp_path, pa.table({"weight": column}), declared(columns=COLUMNS[:1]))
    assert "flat" in found


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, BIRTHS.slice(0, 0), declared()) == ["The table has no rows."]


def test_offsets_that_point_outside_the_file_are_refused(tmp_path: Path) -> None:
    raw = bytearray(write(tmp_path / "upload", pa.table({"sex": ["f", "m", "f"]})).read_bytes())
    at = raw.index(np.array([0, 1, 2, 3], np.int32).tobytes())
    raw[at : at + 16] = np.array([0, 1, 2**30, 2**30 + 1], np.int32).tobytes()
    (tmp_path / "upload").write_bytes(bytes(raw))
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match="not a readable Arrow"):
        ingest(declared(columns=COLUMNS[1:2]), tmp_path / "upload", None, KEY, tmp_path / "out")


def test_damaged_uploads_never_end_in_anything_but_a_typed_error(tmp_path: Path) -> None:
    encoded = changed(sex=BIRTHS["sex"].dictionary_encode())
    good = write(tmp_path / "good", encoded).read_bytes()
    choose = random.Random(7)
    for number in range(300):
        raw = bytearray(good)
        for _ in range(choose.choice((1, 1, 2, 8))):
            raw[choose.randrange(len(raw))] = choose.choice((0, 1, 127, 128, 255, choose.randrange(256)))
        cut = len(raw) if number % 3 else choose.randrange(len(raw))
        (tmp_path / "upload").write_bytes(bytes(raw[:cut]))
        out = tmp_path / f"out{number}"
        out.mkdir()
        try:
            ingest(declared(), tmp_path / "upload", None, KEY, out)
        except InvalidInputError as error:
            assert error.details["problems"]  # noqa: PT017  (damage may also go unnoticed)
