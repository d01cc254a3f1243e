"""The words of a program: a reviewer must see the one step that matters (attack 32)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from apps.compute.messages import Export, Exported
from apps.compute.readers.visible import visible
from gridclient.program.graph import Ref
from tests.factories.programs import Recorded, tensor_asset


def words(recorded: Recorded, ref: Ref, tmp_path: Path) -> str:
    exported = recorded.session.handle(Export(1, ref, str(tmp_path / "c"), {"births": "february-births"}), 0)
    assert isinstance(exported, Exported)
    return exported.words


@pytest.fixture
def births(tmp_path: Path) -> tuple[Recorded, Ref]:
    recorded = Recorded()
    return recorded, recorded.bind(tensor_asset(tmp_path, torch.rand(84, 2), columns=["weight", "height"]))


def test_a_thousand_harmless_steps_do_not_hide_a_one_hot(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    ref = x
    for _ in range(500):
        ref = recorded("aten::neg", recorded("aten::neg", ref))
    weights = torch.zeros(1, 84)
    weights[0, 17] = 1.0
    ref = recorded("aten::mm", recorded.constant(weights), ref)
    for _ in range(500):
        ref = recorded("aten::neg", ref)
    text = words(recorded, ref, tmp_path)
    lines = text.splitlines()
    assert len(lines) < 30
    assert "one row: position (0, 17)" in lines[lines.index("Look at this:") + 1]
    assert "Reads february-births (version 1): weight, height." in lines
    assert "All 1503 steps:" in lines
    assert any("1000 times" in line or "500 times" in line for line in lines)


def test_a_row_chosen_by_position_comes_first(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    compared = recorded("aten::gt.Scalar", x, 3.0)
    row = recorded("aten::select.int", recorded("aten::_to_copy", compared), 0, 17)
    lines = words(recorded, row, tmp_path).splitlines()
    first = lines[lines.index("Look at this:") + 1]
    assert "one row chosen" in first
    assert "position 17 of axis 0" in first


def test_a_sum_says_what_it_is(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    text = words(recorded, recorded("aten::sum", recorded("aten::select.int", x, 1, 0)), tmp_path)
    assert "Result: step 2, float32 single (private: a sum over the rows)." in text
    assert "[2] sum of [1]" in text
    assert "Look at this" not in text


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
