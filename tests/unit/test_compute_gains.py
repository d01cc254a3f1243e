"""How far noise carries from the sums to the answer: with a wrong figure, somebody would trust an answer too much."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from apps.compute.readers.bases import bases, form
from apps.compute.readers.gains import gains
from gridclient.program.graph import Ref
from gridclient.wire.errors import InvalidInputError
from tests.factories.programs import Recorded, tensor_asset

VALUES = torch.arange(12.0).reshape(4, 3)
LARGE = 1100


def found(recorded: Recorded, value: Ref) -> torch.Tensor:
    session = recorded.session
    return gains(
        session.program,
        session.reader,
        value,
        form(session.program, session.reader, bases(session.program, value)),
    )


def test_every_output_has_the_gain_of_every_number_of_every_base(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, VALUES, columns=["a", "b", "c"]))
    total = recorded("aten::sum.dim_IntList", x, [0])
    mean = recorded("aten::mean", recorded("aten::select.int", x, 1, 1))
    weights = torch.tensor([[1.0, 2.0], [0.0, -1.0], [0.5, 0.0]])
    product = recorded("aten::mv", recorded("aten::t", recorded.constant(weights)), total)
    value = recorded("aten::sub.Tensor", product, recorded("aten::add.Tensor", mean, 1000.0))
    wanted = torch.cat([weights.T, torch.full((2, 1), -1.0)], 1).double()
    torch.testing.assert_close(found(recorded, value), wanted, rtol=1e-5, atol=1e-5)


def test_a_large_sum_may_be_scaled_but_not_mixed(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(2, LARGE), columns=[""]))
    clipped = recorded("aten::clamp", x, 0.0, 1.0)
    total = recorded("aten::sum.dim_IntList", clipped, [0])
    by = torch.arange(LARGE) / 8
    scaled = recorded("aten::view", recorded("aten::mul.Tensor", total, recorded.constant(by)), [LARGE, 1])
    torch.testing.assert_close(found(recorded, scaled), by.double())
    for value in (recorded("aten::flip", total, [0]), recorded("aten::sum", total)):
        with pytest.raises(InvalidInputError, match="more than 1024 numbers"):
            found(recorded, value)


def test_a_public_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, VALUES, columns=["a", "b", "c"]))
    total = recorded("aten::sum.dim_IntList", x, [0])
    with pytest.raises(InvalidInputError, match="not finite"):
        found(recorded, recorded("aten::div.Tensor", total, 0.0))
