"""What an owner declares holds for every row of a tensor, and a refusal gives no value away."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from apps.datasets.ingest import Ingested, IngestLimits, ingest
from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.messages import Column, PublishSpec

KEY, LIMITS = b"k" * 32, IngestLimits()
WEIGHT, HEIGHT = Column("weight_kg", low=0.5, high=6.0), Column("height_cm", low=130.0, high=200.0)
BIRTHS = np.array([[3.1, 165.0], [2.9, 158.25], [4.015625, 171.0]], dtype=np.float32)


def declared(**changed: Any) -> PublishSpec:
    return PublishSpec(**{"kind": "tensor", "name": "births", "columns": [WEIGHT, HEIGHT], **changed})


def publish(
    folder: Path, values: Any, spec: PublishSpec, mock: Any = None, limits: IngestLimits = LIMITS, **keys: Any
) -> tuple[Ingested, Path]:
    upload, out = folder / "upload", folder / "out"
    out.mkdir()
    save_file({"values": np.ascontiguousarray(values), **keys}, upload)
    if mock is not None:
        save_file({"values": np.ascontiguousarray(mock)}, folder / "mock")
    return ingest(spec, upload, None if mock is None else folder / "mock", KEY, out, limits), out


def problems(folder: Path, *args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        publish(folder, *args, **kwargs)
    found: list[str] = caught.value.details["problems"]
    assert all(problem in caught.value.message for problem in found)
    return found


def test_values_arrive_bit_for_bit_and_private(tmp_path: Path) -> None:
    made, out = publish(tmp_path, BIRTHS, declared())
    stored = load_file(out / "values.safetensors")
    assert stored["values"].dtype == np.float32 and stored["values"].tobytes() == BIRTHS.tobytes()
    assert set(stored) == {"values"} and not (out / "entities.arrow").exists()
    assert (made.shape, made.dtype, made.rows_public, made.presence) == ([3, 2], "float32", True, False)
    assert (made.entities, made.entity_count, made.row_count, made.max_rows_per_entity) == ("rows", 3, 3, 1)
    assert made.nbytes == (out / "values.safetensors").stat().st_size
    for file in out.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float64"]
)
def test_every_dtype_is_kept(tmp_path: Path, dtype: str) -> None:
    values = torch.tensor([[0, 1], [1, 1], [1, 0]]).to(getattr(torch, dtype))
    save_torch({"values": values}, tmp_path / "upload")
    (tmp_path / "out").mkdir()
    made = ingest(declared(columns=[Column("", low=0, high=1)]), tmp_path / "upload", None, KEY, tmp_path / "out")
    with safe_open(tmp_path / "out" / "values.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("values"), values) and made.dtype == dtype
    with safe_open(tmp_path / "out" / "mock.safetensors", "pt") as file:
        mock = file.get_tensor("values")
    assert mock.dtype == values.dtype and mock.shape == (3, 2)
    assert bool(((mock.double() >= 0) & (mock.double() <= 1)).all())


def test_images_take_one_bound_for_all_elements(tmp_path: Path) -> None:
    images = np.zeros((4, 3, 3), dtype=np.uint8)
    images[2, 1, 1] = 255
    made, _ = publish(tmp_path, images, declared(columns=[Column("", low=0, high=255)]))
    assert made.shape == [4, 3, 3]
    (tmp_path / "again").mkdir()
    found = problems(tmp_path / "again", images, declared(columns=[Column("", low=0, high=254)]))
    assert found == ["values: values outside the declared bounds."]


def test_a_bound_means_the_number_that_the_dtype_can_hold(tmp_path: Path) -> None:
    made, _ = publish(
        tmp_path, np.array([[0.7], [0.1]], np.float32), declared(columns=[Column("x", low=0.1, high=0.7)])
    )
    assert made.shape == [2, 1]


def test_all_problems_are_told_at_once_without_a_value_or_a_position(tmp_path: Path) -> None:
    values = np.array([[3.1, 165.0], [77.125, np.nan], [np.inf, 99.5]])
    found = problems(
        tmp_path,
        values,
        declared(tags=["two words"], visibility="public", max_rows=2, entities="", max_rows_per_entity=2),
        entities=np.array([771, 771, 771]),
    )
    text = "\n".join(found)
    for wanted in ("tags:", "visibility:", "max_rows: the upload", "max_rows_per_entity allows"):
        assert wanted in text
    for wanted in (
        "column 'weight_kg': values outside the declared bounds.",
        "column 'weight_kg': values that are not finite.",
        "column 'height_cm': values outside the declared bounds.",
        "column 'height_cm': missing values;",
    ):
        assert wanted in text
    for secret in ("77.125", "771", "99.5", "165"):
        assert secret not in text


def test_missing_values_become_a_number_within_the_bounds(tmp_path: Path) -> None:
    values = BIRTHS.copy()
    values[1, 1] = np.nan
    _, out = publish(tmp_path, values, declared(missing=150.0))
    assert load_file(out / "values.safetensors")["values"][1].tolist() == [np.float32(2.9), 150.0]
    (tmp_path / "again").mkdir()
    found = problems(tmp_path / "again", values, declared(missing=0.0))
    assert found == ["column 'height_cm': the number for missing values lies outside the declared bounds."]


def test_a_row_with_a_missing_value_becomes_a_null_record(tmp_path: Path) -> None:
    values = BIRTHS.copy()
    values[1, 0] = np.nan
    made, out = publish(tmp_path, values, declared(missing="null"))
    stored = load_file(out / "values.safetensors")
    assert stored["presence"].tolist() == [1, 0, 1] and stored["values"][1].tolist() == [0.0, 0.0]
    assert made.presence and made.rows_public and (made.row_count, made.entity_count) == (3, 2)


def test_a_private_number_of_rows_is_padded_away(tmp_path: Path) -> None:
    made, out = publish(tmp_path, BIRTHS, declared(max_rows=7))
    stored = load_file(out / "values.safetensors")
    assert stored["values"].shape == (7, 2) and stored["presence"].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert not stored["values"][3:].any() and made.shape == [7, 2] and not made.rows_public
    assert load_file(out / "mock.safetensors")["values"].shape == (7, 2)


def test_the_file_of_a_padded_dataset_has_one_size_whatever_the_rows(tmp_path: Path) -> None:
    sizes = set()
    for n in (1, 2, 3):
        (tmp_path / str(n)).mkdir()
        sizes.add(publish(tmp_path / str(n), BIRTHS[:n], declared(max_rows=7))[0].nbytes)
    assert len(sizes) == 1


def test_mock_data_depend_on_the_declaration_alone(tmp_path: Path) -> None:
    mocks = []
    for name, values in (("a", BIRTHS), ("b", BIRTHS * 0 + np.array([1.0, 140.0], np.float32))):
        (tmp_path / name).mkdir()
        _, out = publish(tmp_path / name, values, declared())
        mocks.append((out / "mock.safetensors").read_bytes())
    assert mocks[0] == mocks[1]


def test_made_mock_data_lie_within_the_bounds_and_are_at_most_100_rows(tmp_path: Path) -> None:
    values = np.tile(BIRTHS, (60, 1))
    _, out = publish(tmp_path, values, declared())
    mock = load_file(out / "mock.safetensors")["values"]
    assert mock.shape == (100, 2) and mock.dtype == np.float32
    assert (
        (mock >= np.array([0.5, 130], np.float32)).all()
        and (mock <= np.array([6, 200], np.float32)).all()
        and len(np.unique(mock)) > 50
    )
    (tmp_path / "again").mkdir()
    _, out = publish(tmp_path / "again", values, declared(columns=[]))
    assert not load_file(out / "mock.safetensors")["values"].any()


def test_an_owners_mock_data_must_be_made_up(tmp_path: Path) -> None:
    mock = np.array([[1.5, 150.0], [2.0, 151.0], [2.5, 152.0]], dtype=np.float32)
    _, out = publish(tmp_path, BIRTHS, declared(), mock=mock)
    assert np.array_equal(load_file(out / "mock.safetensors")["values"], mock)
    equal, turned, outside = mock.copy(), mock.copy(), mock.copy()
    equal[1], turned[:, 0], outside[0, 0] = BIRTHS[2], BIRTHS[::-1, 0], 9.0
    for name, given, wanted in (
        ("equal", equal, "mock data: a row equals a private row"),
        ("turned", turned, "mock data: column 'weight_kg': the private column in another order"),
        ("outside", outside, "mock data: column 'weight_kg': values outside the declared bounds."),
        ("dtype", mock.astype(np.float64), "mock data: dtype and shape as the values"),
    ):
        (tmp_path / name).mkdir()
        (found,) = problems(tmp_path / name, BIRTHS, declared(), mock=given)
        assert found.startswith(wanted)


def entities_of(out: Path) -> list[bytes]:
    column = pa.ipc.open_file(out / "entities.arrow").read_all()["entity"]
    assert column.type == pa.binary(32)
    return list(column.to_pylist())


def test_one_person_is_one_entity_however_the_identifier_is_written(tmp_path: Path) -> None:
    spec = declared(entities="", max_rows_per_entity=2)
    texts = ["7", " 7\t", "\u00e9"]
    raw = np.zeros((3, 8), dtype=np.uint8)
    for row, text in zip(raw, texts, strict=True):
        row[: len(text.encode())] = list(text.encode())
    made, out = publish(tmp_path, BIRTHS, spec, entities=raw)
    first = entities_of(out)
    assert first[0] == first[1] != first[2] and made.entities == "declared" and made.entity_count == 2
    assert made.max_rows_per_entity == 2
    (tmp_path / "again").mkdir()
    _, out = publish(tmp_path / "again", BIRTHS, declared(entities=""), entities=np.array([7, 8, 9]))
    assert entities_of(out)[0] == first[0]
    raw[2] = 0
    raw[2, :3] = list("e\u0301".encode())
    (tmp_path / "decomposed").mkdir()
    assert entities_of(publish(tmp_path / "decomposed", BIRTHS, spec, entities=raw)[1])[2] == first[2]


def test_identifiers_do_not_stay_on_disk_and_padding_belongs_to_nobody(tmp_path: Path) -> None:
    names = np.frombuffer(b"Anna Berg   Ida Lindholm" + b"Karin Nyman ", np.uint8).reshape(3, 12)
    _, out = publish(tmp_path, BIRTHS, declared(entities="", max_rows=5), entities=names)
    assert entities_of(out)[3:] == [bytes(32)] * 2
    for file in out.iterdir():
        assert b"Lindholm" not in file.read_bytes()


def test_bad_identifiers_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], PublishSpec]] = [
        ("declared and not uploaded", {}, declared(entities="")),
        ("uploaded and not declared", {"entities": np.arange(3)}, declared()),
        ("one identifier for each row", {"entities": np.arange(2)}, declared(entities="")),
        ("whole numbers (int64) or texts", {"entities": np.ones(3)}, declared(entities="")),
        ("not UTF-8", {"entities": np.full((3, 2), 255, np.uint8)}, declared(entities="")),
        (
            "has no identifier",
            {"entities": np.full((3, 2), 32, np.uint8)},
            declared(entities="", max_rows_per_entity=9),
        ),
        ("leave one of the two out", {"entities": np.arange(3)}, declared(entities="", entities_of="births")),
        ("more rows than max_rows_per_entity", {"entities": np.array([1, 1, 2])}, declared(entities="")),
    ]
    for number, (wanted, keys, spec) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        (found,) = problems(tmp_path / str(number), BIRTHS, spec, **keys)
        assert wanted in found


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ([WEIGHT], "takes 2 columns"),
        ([WEIGHT, WEIGHT], "two columns have the same name"),
        ([Column("a", low=1.0, high=1.0), HEIGHT], "low less than high"),
        ([Column("a", low=float("nan"), high=1.0), HEIGHT], "bounds must be finite"),
        ([Column("a", low=0.0, high=float("inf")), HEIGHT], "bounds must be finite"),
        ([Column("a", low=0.0), HEIGHT], "bounds are a pair"),
        ([Column("a", kind="text"), HEIGHT], "its kind must be one of"),
        ([Column("a", kind="category"), HEIGHT], "declare its categories"),
        ([Column("a", kind="category", categories=["x", "x"]), HEIGHT], "declared twice"),
        ([Column("a", categories=["x"]), HEIGHT], "only a column of kind 'category'"),
        ([Column("a", kind="boolean", low=0.0, high=1.0), HEIGHT], "only numbers and dates have bounds"),
        ([Column("a", partition=True), HEIGHT], "can be a partition"),
        ([Column("a", edges=[0.0, 1.0]), HEIGHT], "only a column with bounds has edges"),
        ([Column("a", low=0.0, high=9.0, edges=[0.0]), HEIGHT], "finite edges"),
        ([Column("a", low=0.0, high=9.0, edges=[0.0, float("inf")]), HEIGHT], "finite edges"),
        ([Column("a", low=0.0, high=9.0, edges=[0.0, 5.0, 5.0, 9.0]), HEIGHT], "edges rise"),
        ([Column("a", low=0.0, high=9.0, edges=[0.0, 5.0]), HEIGHT], "leave out a part"),
        ([Column("__presence__"), HEIGHT], "a name has 1 to"),
        ([Column("a\u202eb"), HEIGHT], "a name has 1 to"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, columns: list[Column], wanted: str) -> None:
    assert any(wanted in found for found in problems(tmp_path, BIRTHS, declared(columns=columns)))


def test_codes_of_categories_are_whole_and_declared(tmp_path: Path) -> None:
    sex = Column("sex", kind="category", categories=["f", "m"])
    publish(tmp_path, np.array([[0.0], [1.0]]), declared(columns=[sex]))
    (tmp_path / "again").mkdir()
    found = problems(tmp_path / "again", np.array([[0.5], [2.0]]), declared(columns=[sex]))
    assert found == [
        "column 'sex': values that are not whole numbers.",
        "column 'sex': values outside the declared categories.",
    ]


def crafted(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(shape: list[Any], first: int, last: int, dtype: Any = "F64") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "upload",
    [
        b"",
        b"\x80\x04pickle",
        (2**62).to_bytes(8, "little") + b"{}",
        crafted({"values": entry([2**40, 2**40], 0, 8)}, bytes(8)),
        crafted({"values": entry([0, 2**40], 0, 0)}),
        crafted({"values": entry([-1], 0, 8)}, bytes(8)),
        crafted({"values": entry([True], 0, 8)}, bytes(8)),
        crafted({"values": entry([1.0], 0, 8)}, bytes(8)),
        crafted({"values": entry([], 0, 8)}, bytes(8)),
        crafted({"values": entry([1] * 17, 0, 8)}, bytes(8)),
        crafted({"values": entry([1], 0, 8, "OBJECT")}, bytes(8)),
        crafted({"values": entry([1], 0, 8, ["F64"])}, bytes(8)),
        crafted({"values": entry([1], 8, 16)}, bytes(16)),
        crafted({"values": entry([1], 0, 8)}, bytes(9)),
        crafted({"values": entry([1], 0, 8)}, bytes(7)),
        crafted({"values": entry([1], 0, 8), "entities": entry([1], 0, 8, "I64")}, bytes(8)),
        crafted({"values": entry([1], 0, 8), "more": entry([1], 8, 16)}, bytes(16)),
        crafted({f"t{i}": entry([1], i, i + 1, "U8") for i in range(300)}, bytes(300)),
        crafted(b'{"values": {}, "values": {}}'),
        crafted(b"[" * 60_000),
        crafted(b"[]"),
        crafted(b" " * 70_000),
        crafted(b'{"values": NaN}'),
    ],
)
def test_a_hostile_file_is_refused_before_anything_is_mapped(tmp_path: Path, upload: bytes) -> None:
    (tmp_path / "upload").write_bytes(upload)
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError) as caught:
        ingest(declared(), tmp_path / "upload", None, KEY, tmp_path / "out")
    assert len(caught.value.message) < 2_000


def test_caps_hold_for_uploads_and_for_what_they_would_become(tmp_path: Path) -> None:
    with pytest.raises(LimitExceededError):
        publish(tmp_path, BIRTHS, declared(), limits=IngestLimits(bytes=64))
    (tmp_path / "again").mkdir()
    found = problems(tmp_path / "again", BIRTHS, declared(max_rows=2**31 - 1))
    assert found == ["max_rows: a tensor of so many rows passes the limit of this node."]


def test_large_uploads_are_treated_in_blocks_like_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.datasets.ingest.tensors.BLOCK", 16)
    values = np.linspace(1, 5, 40, dtype=np.float32).reshape(20, 2)
    values[13, 1] = np.nan
    columns = [Column("", low=0.5, high=6.0)]
    made, out = publish(tmp_path, values, declared(columns=columns, missing="null", max_rows=23))
    stored = load_file(out / "values.safetensors")
    values[13] = 0
    assert np.array_equal(stored["values"], np.vstack([values, np.zeros((3, 2), np.float32)]))
    assert stored["presence"].tolist() == [i != 13 and i < 20 for i in range(23)] and made.entity_count == 19


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("place", [(0, 0), (7, 1), (19, 0), (19, 1)])
@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.nan, "missing"),
        (np.inf, "not finite"),
        (-np.inf, "not finite"),
        (6.5, "outside the declared bounds"),
        (0.25, "outside the declared bounds"),
    ],
)
def test_one_bad_value_is_found_wherever_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: type[np.floating[Any]],
    place: tuple[int, int],
    value: float,
    wanted: str,
) -> None:
    """Blocks whose least and greatest values keep the rules are not looked at any closer."""
    monkeypatch.setattr("apps.datasets.ingest.tensors.BLOCK", 32)
    values = np.linspace(0.5, 6, 40, dtype=dtype).reshape(20, 2)
    values[place] = value
    found = problems(tmp_path, values, declared(columns=[Column("", low=0.5, high=6.0)]))
    assert any(wanted in each for each in found)


def test_files_are_on_disk_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    _, out = publish(tmp_path, BIRTHS, declared(entities=""), entities=np.arange(3))
    assert {Path(name).name for name in synced} == {"values.safetensors", "mock.safetensors", "entities.arrow", "out"}
