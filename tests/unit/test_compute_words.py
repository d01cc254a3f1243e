"""The words of a program: a reviewer must see the one step that matters (attack 32)."""

from __future__ import annotations

import random
import re
import sys
from itertools import count
from pathlib import Path

import pytest
import torch

from apps.compute.messages import Export, Exported, Failed, Limits
from gridclient.program.graph import Dtype, Ref
from tests.factories.programs import NAME, UNBOUNDED, Recorded, tensor_asset, words


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
    assert "All 1503 steps, the answer is step 1502:" in lines
    assert any("1000 times" in line or "500 times" in line for line in lines)


def test_a_row_chosen_by_position_comes_first(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    compared = recorded("aten::gt.Scalar", x, 3.0)
    row = recorded("aten::select.int", recorded("aten::_to_copy", compared), 0, 17)
    lines = words(recorded, row, tmp_path).splitlines()
    first = lines[lines.index("Look at this:") + 1]
    assert "one row chosen" in first
    assert "row at position 17 of [2]" in first


def test_a_sum_says_what_it_is(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    text = words(recorded, recorded("aten::sum", recorded("aten::select.int", x, 1, 0)), tmp_path)
    first = text.splitlines()[0]
    assert first == "One number: the sum of column weight over all 84 rows of february-births (version 1)."
    assert "Reads february-births (version 1): weight.\n" in text
    assert "[1] column weight of [0] → 84 numbers, float32" in text
    assert "[2] sum of [1] → one number, float32" in text
    assert "Look at this" not in text


def looked_at(text: str) -> str:
    return text.partition("\nAll ")[0].partition("Look at this:")[2]


def weighted(recorded: Recorded, x: Ref, weight: Ref) -> Ref:
    return recorded("aten::sum", recorded("aten::mul.Tensor", x, weight))


def computed_one_hot(recorded: Recorded, person: int = 17, scale: float = 1.0) -> Ref:
    places = recorded.constant(torch.arange(84.0).reshape(84, 1))
    hot = recorded("aten::_to_copy", recorded("aten::eq.Scalar", places, person), dtype=Dtype("float32"))
    return recorded("aten::mul.Tensor", hot, scale)


COMPUTED = {
    "one-hot": lambda r: (computed_one_hot(r), "one row: position (17, 0)"),
    "nearly one-hot": lambda r: (r("aten::add.Tensor", computed_one_hot(r), 1e-9), "1 unlike all others"),
    "everybody but one": lambda r: (r("aten::rsub.Scalar", computed_one_hot(r), 1.0), "1 unlike all others"),
    "a few": lambda r: (
        r("aten::add.Tensor", computed_one_hot(r), computed_one_hot(r, 5)), "positions (5, 0), (17, 0)",
    ),
    "steep": lambda r: (
        r("aten::exp", r("aten::mul.Tensor", r.constant(torch.arange(84.0).reshape(84, 1)), 0.1)), "outdoes the others",
    ),
    "huge": lambda r: (r("aten::full_like", r.constant(torch.ones(84, 1)), 1e9), "a huge number"),
    "half of them": lambda r: (
        r("aten::_to_copy", r("aten::lt.Scalar", r.constant(torch.arange(84.0).reshape(84, 1)), 40),
          dtype=Dtype("float32")),
        "leaves out positions of axis 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_a_weight_computed_from_nothing_private_is_looked_into(
    births: tuple[Recorded, Ref], tmp_path: Path, name: str
) -> None:
    recorded, x = births
    weight, said = COMPUTED[name](recorded)
    text = words(recorded, weighted(recorded, x, weight), tmp_path)
    assert said in looked_at(text)
    assert text.splitlines()[0] == f"One number summed over rows of {NAME}, columns weight and height, {UNBOUNDED}"


def test_a_matrix_of_one_hots_is_looked_at(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    matrix = recorded.constant(torch.eye(84)[:40])
    assert "leaves out positions of axis 1" in looked_at(words(recorded, recorded("aten::mm", matrix, x), tmp_path))


def test_columns_of_other_units_are_nothing_to_look_at(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    """Where everything is suspicious nothing is."""
    recorded, x = births
    centred = recorded("aten::sub.Tensor", x, recorded.constant(torch.tensor([3500.0, 51.0])))
    scaled = recorded("aten::div.Tensor", centred, recorded.constant(torch.tensor([440.0, 0.2])))
    layer = recorded("aten::mm", scaled, recorded.constant(torch.linspace(-1, 1, 32).reshape(2, 16)))
    assert not looked_at(words(recorded, recorded("aten::relu", layer), tmp_path))


def test_rows_by_a_computed_index_are_named(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    index = recorded("aten::add.Tensor", recorded.constant(torch.tensor([2, 5])), 1)
    first = words(recorded, recorded("aten::index_select", x, 0, index), tmp_path).splitlines()[0]
    assert first == f"2 x 2 numbers: rows at positions 3 and 6 of {NAME}, columns weight and height."


def test_a_weight_that_takes_too_much_is_said_not_to_be_looked_into(
    births: tuple[Recorded, Ref], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, x = births
    weight = computed_one_hot(recorded)
    for limit in ("MOST_NUMBERS", "MOST_FLOPS"):
        with monkeypatch.context() as patch:
            patch.setattr(f"apps.compute.weights.{limit}", 83)
            look = looked_at(words(recorded, weighted(recorded, x, weight), tmp_path))
        assert "a public weight of 84 x 1 numbers that was not looked into: [0] × [4]" in look
    assert "one row" in looked_at(words(recorded, weighted(recorded, x, weight), tmp_path))


def test_values_that_are_looked_into_are_not_kept(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    total = weighted(recorded, x, computed_one_hot(recorded))
    words(recorded, total, tmp_path)
    assert recorded.session.reader.nbytes == 0
    assert recorded.value(total).shape == ()


def test_no_private_value_is_computed_for_the_words(tmp_path: Path) -> None:
    """The text of two datasets that differ in values only is the same, also for shapes that private values lend."""
    texts = []
    for name in ("first", "second"):
        recorded = Recorded()
        x = recorded.bind(tensor_asset(tmp_path / name, torch.rand(84, 2) * 50, columns=["weight", "height"]))
        weight = recorded("aten::add.Tensor", recorded("aten::ones_like", x), 0.5)
        texts.append(words(recorded, weighted(recorded, x, weight), tmp_path))
    assert texts[0] == texts[1]
    assert "168 of 168 not 0; all 1.5" in texts[0]


def test_public_steps_cannot_push_private_ones_out(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    filler = recorded.constant(torch.arange(84.0).reshape(84, 1))
    source = random.Random(3)
    for _ in range(3000):
        filler = recorded(source.choice(["aten::neg", "aten::abs", "aten::relu", "aten::ceil"]), filler)
    weight = recorded("aten::add.Tensor", computed_one_hot(recorded), recorded("aten::mul.Tensor", filler, 0.0))
    total = weighted(recorded, x, weight)
    text = words(recorded, total, tmp_path)
    lines = text.splitlines()
    assert "one row: position (17, 0)" in looked_at(text)
    listed = lines[lines.index(f"All {total.node + 1} steps, the answer is step {total.node}:") + 1 :]
    assert listed[:4] == [
        f"  [0] {NAME}",
        f"  [{total.node - 1}] [0] × [{weight.node}] → 84 x 2 numbers, float32",
        f"  [{total.node}] sum of [{total.node - 1}] → one number, float32",
        "",
    ]
    assert listed[4] == "On public values alone:"
    assert any(line.startswith(f"  [{weight.node}] ") and "one row" in line for line in listed)
    assert f"and {total.node - 3} more steps: " in listed[-1] and len(lines) < 30


def test_private_steps_are_refused_rather_than_shortened(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, ref = births
    for number in range(2100):
        ref = recorded("aten::add.Tensor", ref, float(number))
    path = tmp_path / "c"
    reply = recorded.session.handle(Export(1, ref, str(path)), 0)
    assert isinstance(reply, Failed)
    assert (reply.code, reply.details["steps"]) == ("limit_exceeded", 2101)
    assert "too long for a person to read: 2101 steps" in reply.message
    assert not path.exists()


def test_weights_that_only_look_alike_are_not_folded(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    """The same numbers, two of them exchanged: the difference of two answers is the difference of two people."""
    recorded, x = births
    base = torch.arange(84.0).reshape(84, 1) + 1
    other = base.clone()
    other[[0, 17]] = other[[17, 0]]

    def ask(weights: list[torch.Tensor]) -> str:
        total = recorded.constant(torch.zeros(84, 1))
        for weight in weights:
            weighed = recorded("aten::mul.Tensor", x, recorded.constant(weight))
            total = recorded("aten::add.Tensor", weighed, total)
        return words(recorded, recorded("aten::sum", total), tmp_path)

    alike, hidden = ask([base] * 9), ask([base] * 5 + [other] + [base] * 3)
    assert "9 times" in alike or "8 times" in alike
    assert "9 times" not in hidden and "8 times" not in hidden
    assert len(set(re.findall("; contents (.*)", hidden))) == 2
    assert "differs from another one only at position (0, 0), (17, 0)" in looked_at(hidden)


@pytest.mark.parametrize("strange", [2.0000001, -1.0])
def test_a_number_that_differs_once_is_not_folded(births: tuple[Recorded, Ref], tmp_path: Path, strange: float) -> None:
    recorded, ref = births
    for number in range(9):
        ref = recorded("aten::mul.Tensor", ref, strange if number == 5 else 2.0)
    text = words(recorded, ref, tmp_path)
    assert f"× {strange}" in text and "5 times" in text and "3 times" in text


def test_what_moves_along_moves_each_time_it_is_folded(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    parts = [recorded("aten::neg", x) for _ in range(2)]
    ref = recorded("aten::exp", x)
    chain = [ref := recorded("aten::exp", ref) for _ in range(3)]
    again = [recorded("aten::exp", chain[-1]) for _ in range(4)]
    text = words(recorded, recorded("aten::stack", [*parts, *chain, *again], 0), tmp_path)
    assert "4 times" in text and "3 times" in text and "8 times" not in text


def test_alike_conditions_of_a_loop_are_one_thing_to_look_at(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, ref = births
    for _ in range(50):
        ref = recorded("aten::_to_copy", recorded("aten::gt.Scalar", ref, 0.5), dtype=Dtype("float32"))
    text = words(recorded, ref, tmp_path)
    assert "step 1 and 49 more: a condition" in looked_at(text)
    assert "50 times" in text and len(text.splitlines()) < 12


def test_deep_public_chains_take_work_in_proportion(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    """A request must not keep a worker busy by asking again and again what lies behind each public value."""

    def calls(depth: int) -> int:
        recorded = Recorded(Limits())
        x = recorded.bind(tensor_asset(tmp_path, torch.rand(84, 2), columns=["weight", "height"]))
        public = recorded.constant(torch.ones(()))
        for _ in range(depth):
            public = recorded("aten::neg", public)
            x = recorded("aten::add.Tensor", x, public)
        made = count()
        sys.setprofile(lambda *_: next(made))
        try:
            reply = recorded.session.handle(Export(1, x, str(tmp_path / "c")), 0)
        finally:
            sys.setprofile(None)
        assert isinstance(reply, Exported)
        return next(made)

    assert calls(1800) < 12 * calls(225)
