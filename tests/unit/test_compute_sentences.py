"""What the words of a program say in each line: what comes out, of which rows, under which names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gridclient.program.graph import Dtype, Ref
from gridclient.wire.visible import visible
from tests.factories.programs import NAME, UNBOUNDED, Recorded, tensor_asset, words


@pytest.fixture
def births(tmp_path: Path) -> tuple[Recorded, Ref]:
    recorded = Recorded()
    return recorded, recorded.bind(tensor_asset(tmp_path, torch.rand(84, 2), columns=["weight", "height"]))


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], f"84 x 2 numbers: every row of {NAME}, columns weight and height."),
        ([("t",)], f"2 x 84 numbers: every row of {NAME}, columns weight and height."),
        ([("select.int", 1, 1)], f"84 numbers: every row of {NAME}, column height."),
        ([("select.int", 0, 2)], f"2 numbers: row 3 (position 2) of {NAME}, columns weight and height."),
        (
            [("flip", [0]), ("select.int", 0, 0), ("select.int", 0, 1)],
            f"One number: row 84 (position 83) of {NAME}, column height.",
        ),
        (
            [("slice.Tensor", 0, 0, 10)],
            f"10 x 2 numbers: rows at positions 0 to 9 of {NAME}, columns weight and height.",
        ),
        (
            [("slice.Tensor", 0, 10, 40), ("slice.Tensor", 0, 1, 2), ("exp",), ("sum",)],
            f"One number computed from nothing but row 12 (position 11) of {NAME}, columns weight and height.",
        ),
        ([("mean.dim", [0])], f"2 numbers: the means of columns weight and height over all 84 rows of {NAME}."),
        ([("slice.Tensor", 1, 0, 1), ("sum",)], f"One number: the sum of column weight over all 84 rows of {NAME}."),
        ([("select.int", 1, 0), ("amax", [0])], f"One number computed from {NAME}, column weight, {UNBOUNDED}"),
        ([("exp",), ("sum",)], f"One number summed over rows of {NAME}, columns weight and height, {UNBOUNDED}"),
        ([("view", [-1]), ("select.int", 0, 3)],
         f"One number computed from {NAME}, columns weight and height, {UNBOUNDED}"),
        ([("zeros_like",)], "84 x 2 numbers computed from nothing private."),
    ],
)  # fmt: skip
def test_the_first_sentence_says_what_comes_out(
    births: tuple[Recorded, Ref], tmp_path: Path, steps: list[tuple[Any, ...]], sentence: str
) -> None:
    recorded, ref = births
    for op, *args in steps:
        ref = recorded(f"aten::{op}", ref, *args)
    assert words(recorded, ref, tmp_path).splitlines()[0] == sentence


def test_rows_by_a_constant_index_are_named(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    picked = recorded("aten::index_select", x, 0, recorded.constant(torch.tensor([5, 2])))
    text = words(recorded, recorded("aten::select.int", picked, 1, 0), tmp_path)
    assert text.splitlines()[0] == f"2 numbers: rows at positions 2 and 5 of {NAME}, column weight."
    assert "Look at this:\n  step 2: rows chosen" in text


def test_a_row_of_reversed_rows_is_named_by_where_it_lies(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    row = recorded("aten::select.int", recorded("aten::flip", x, [0]), 0, 3)
    assert "which is row 81 (position 80) of its dataset" in words(recorded, row, tmp_path)


def test_a_lookup_by_private_codes_is_not_taken_for_the_rows(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    codes = recorded("aten::_to_copy", recorded("aten::select.int", x, 1, 0), dtype=Dtype("int64"))
    table = recorded.constant(torch.rand(9, 3))
    first = words(recorded, recorded("aten::index_select", table, 0, codes), tmp_path).splitlines()[0]
    assert first.startswith(f"84 x 3 numbers: each row by itself, of {NAME}, column weight, computed")


def test_a_count_says_that_it_reads_no_column(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    lines = words(recorded, recorded("grid::count", x), tmp_path).splitlines()
    assert lines[:2] == [f"One number: how many records {NAME} has.", f"Reads {NAME}: no column."]


def test_a_private_number_of_rows_is_not_said(tmp_path: Path) -> None:
    recorded = Recorded()
    presence = [True] * 3 + [False]
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(4, 2), columns=["weight", "height"], presence=presence))
    first = words(recorded, recorded("aten::mean.dim", x, [0]), tmp_path).splitlines()[0]
    assert first == f"2 numbers: the means of columns weight and height over all records of {NAME} (at most 4)."


def test_other_outputs_than_the_first_are_told_apart(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    best = recorded("aten::max.dim", recorded("aten::select.int", x, 1, 0), 0, outputs=2)
    first = words(recorded, Ref(best.node, 1), tmp_path).splitlines()[0]
    assert first == f"One number computed from {NAME}, column weight, {UNBOUNDED}"


def test_sums_from_which_rows_could_be_solved_are_looked_at(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    weights = recorded.constant(torch.rand(50, 84))
    assert "much comes out: 100 numbers of 84 rows" in words(recorded, recorded("aten::mm", weights, x), tmp_path)
    few = recorded.constant(torch.rand(10, 84))
    assert "much comes out" not in words(recorded, recorded("aten::mm", few, x), tmp_path)


def test_a_huge_number_packs_many_into_one(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    scaled = recorded("aten::mul.Tensor", x, 1e9)
    text = words(recorded, recorded("aten::sum", scaled), tmp_path)
    assert "Look at this:\n  step 1: a huge number" in text


def test_axes_are_called_rows_and_columns(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    text = words(recorded, recorded("aten::sum.dim_IntList", x, [-2]), tmp_path)
    assert "[1] sum of [0] along the rows → 2 numbers, float32" in text
    whole = recorded("aten::slice.Tensor", x, 0, 0, 2**63 - 1)
    assert "[1] all of [0] → 84 x 2 numbers, float32" in words(recorded, whole, tmp_path)


def test_a_column_cannot_be_named_like_a_sentence(tmp_path: Path) -> None:
    recorded = Recorded()
    names = ["a over all 500 rows of x", "b"]
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(4, 2), columns=names))
    text = words(recorded, recorded("aten::select.int", recorded("aten::select.int", x, 0, 0), 0, 0), tmp_path)
    assert text.splitlines()[0].endswith(f"row 1 (position 0) of {NAME}, column “a over all 500 rows of x”.")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("größe_cm", "größe_cm"),
        ("вес", "вес"),  # a word of its own script that cannot be taken for another
        ("weіght", "we\\u{0456}ght"),  # a Ukrainian i
        ("сор", "\\u{0441}\\u{043e}\\u{0440}"),  # reads "cop"
        ("a\u202eb", "a\\u{202e}b"),
        ("a\nb\x1b[2J", "a\\u{000a}b\\u{001b}[2J"),
        ("ａge", "\\u{ff41}ge"),
        ("a\u200bb", "a\\u{200b}b"),
        ("\\u{0456}", "\\u{005c}u{0456}"),  # not to be taken for an escape
    ],
)
def test_names_show_what_they_hide(name: str, shown: str) -> None:
    assert visible(name) == shown
