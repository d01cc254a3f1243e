"""What is known of a row's size by public things alone: too much asked of the noise, and an answer is worth nothing."""

from __future__ import annotations

from math import log, sqrt
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from apps.compute.readers.bases import bases, form
from apps.compute.readers.bounds import Bound, bound
from gridclient.program.graph import Dtype, Ref
from tests.factories.programs import Recorded, table_asset, tensor_asset

KINDS = 6


def bounds(recorded: Recorded, value: Ref) -> Bound:
    return bound(recorded.session.program, recorded.session.reader, value)


@pytest.fixture
def table(tmp_path: Path) -> tuple[Recorded, Ref]:
    spec = table_asset(
        tmp_path,
        {"smoker": pa.array([0, 1, 1, 0], pa.int64()), "old": pa.array([True, False, True, True])},
        {"smoker": "category", "old": "boolean"},
        None,
    )
    recorded = Recorded()
    return recorded, recorded.bind(spec)


def one_hot(recorded: Recorded, codes: Ref, n: int) -> Ref:
    """As torch.nn.functional.one_hot is recorded."""
    zeros = recorded.constant(torch.zeros(n, KINDS))
    return recorded("aten::scatter.value", zeros, -1, recorded("aten::unsqueeze", codes, -1), 1)


def test_categories_and_truth_values_are_bounded_by_nature(table: tuple[Recorded, Ref]) -> None:
    recorded, rows = table
    for name in ("smoker", "old"):
        low, high, norm = bounds(recorded, recorded("grid::column", rows, name))
        assert (low.tolist(), high.tolist(), norm) == ([0.0], [1.0], 1.0)


def test_pixels_are_bounded_by_their_dtype_and_null_records_are_zero(tmp_path: Path) -> None:
    recorded = Recorded()
    pixels = recorded.bind(tensor_asset(tmp_path / "a", torch.ones((3, 2, 2), dtype=torch.uint8)))
    assert bounds(recorded, pixels).high.shape == (1, 2, 2)
    assert bounds(recorded, pixels).high.unique().tolist() == [255.0]
    present = recorded.bind(
        tensor_asset(tmp_path / "b", torch.full((2, 1), 90.0), columns=["kg"], presence=[True, False], dataset="b")
    )  # from 0 to 100
    raised = recorded("aten::add.Tensor", present, -150.0)
    assert bounds(recorded, recorded("aten::add.Tensor", raised, 150.0))[:2] == (
        torch.zeros(1, 1),
        torch.tensor([[100.0]]),
    )


def test_a_histogram_costs_one_persons_one_vote(table: tuple[Recorded, Ref]) -> None:
    """With the norm of six numbers, the noise of a histogram would be twice as large as need be."""
    recorded, rows = table
    codes = recorded("grid::column", rows, "smoker")
    hot = one_hot(recorded, codes, 4)
    kinds = recorded.constant(torch.arange(KINDS))
    equal = recorded("aten::eq.Tensor", recorded("aten::unsqueeze", codes, 1), kinds)
    for made in (hot, equal):
        assert bounds(recorded, made).norm == 1.0
        (base,) = form(
            recorded.session.program,
            recorded.session.reader,
            bases(recorded.session.program, recorded("aten::sum.dim_IntList", made, [0])),
        )
        assert (base.norm, base.centred, base.scale) == (1.0, False, [1.0] * KINDS)


def test_norms_multiply_in_outer_products_and_add_up_as_squares_side_by_side(table: tuple[Recorded, Ref]) -> None:
    recorded, rows = table
    hot = one_hot(recorded, recorded("grid::column", rows, "smoker"), 4)
    other = one_hot(recorded, recorded("grid::column", rows, "smoker"), 4)
    old = recorded("grid::columns", rows, ["old", "smoker"])
    outer = recorded("aten::mul.Tensor", recorded("aten::unsqueeze", hot, 2), recorded("aten::unsqueeze", other, 1))
    assert bounds(recorded, outer).norm == 1.0
    beside = recorded("aten::mul.Tensor", recorded("aten::unsqueeze", hot, 2), recorded("aten::unsqueeze", old, 1))
    assert bounds(recorded, beside).norm == pytest.approx(sqrt(2))
    joined = recorded("aten::cat", [recorded("aten::view", outer, [4, KINDS * KINDS]), hot], 1)
    assert bounds(recorded, joined).norm == pytest.approx(sqrt(2))
    moved = recorded("aten::transpose.int", recorded("aten::mul.Tensor", hot, -3.0), 0, 1)
    assert bounds(recorded, moved).norm == 1.0


def test_a_squared_column_is_bounded_from_below_too(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(3, 2), columns=["a", "b"]))
    centred = recorded("aten::sub.Tensor", x, 50.0)
    low, high, _ = bounds(recorded, recorded("aten::pow.Tensor_Scalar", centred, 2))
    assert (low.tolist(), high.tolist()) == ([[0.0, 0.0]], [[2500.0, 2500.0]])
    weights = recorded.constant(torch.tensor([[1.0], [-1.0]]))
    low, high, _ = bounds(recorded, recorded("aten::mm", x, weights))
    assert (low.item(), high.item()) == (-100.0, 100.0)


def test_a_logistic_loss_is_bounded_by_its_largest_logit(table: tuple[Recorded, Ref]) -> None:
    recorded, rows = table
    both = recorded("aten::_to_copy", recorded("grid::columns", rows, ["old", "smoker"]), dtype=Dtype("float64"))
    logits = recorded("aten::mul.Tensor", recorded("aten::select.int", both, 1, 0), 3.0)
    target = recorded("aten::select.int", both, 1, 1)
    loss = recorded("aten::binary_cross_entropy_with_logits", logits, target, None, None, 0)
    low, high, _ = bounds(recorded, loss)
    assert (low.item(), high.item()) == (0.0, pytest.approx(3 + log(2)))
