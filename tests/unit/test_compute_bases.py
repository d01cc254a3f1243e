"""The sums that noise goes on: which they are, whose rows they add up, and what is computed from them afterwards.

Without these a person's rows could count more than the noise hides, or an exact sum slip past it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from apps.compute.readers.bases import Base, bases, evaluate, form, rows
from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Dtype, Ref
from gridclient.wire.errors import InvalidInputError, UnboundedError
from tests.factories.programs import Recorded, table_asset, tensor_asset

VALUES = torch.tensor([[30.0, 1.0], [41.0, 4.0], [77.0, 9.0], [18.0, 16.0], [55.0, 25.0]])


def forms(recorded: Recorded, value: Ref) -> list[Base]:
    session = recorded.session
    return form(session.program, session.reader, bases(session.program, value))


def contributions(recorded: Recorded, base: Base) -> Any:
    return rows(recorded.session.program, recorded.session.reader, base)


def summed(recorded: Recorded, base: Base) -> torch.Tensor:
    """What the kernel would release of a base without clipping and noise."""
    scaled, _, keep = contributions(recorded, base)
    scaled = scaled if keep is None else scaled[keep]
    total = scaled.sum(0) * np.array(base.scale)
    return torch.tensor(total + (base.rows * np.array(base.centre) if base.centred else 0.0))


def released(recorded: Recorded, value: Ref) -> torch.Tensor:
    """The value, computed from its bases."""
    given = {base.ref: summed(recorded, base) for base in forms(recorded, value)}
    return evaluate(recorded.session.program, recorded.session.reader, value, given)


@pytest.fixture
def births(tmp_path: Path) -> tuple[Recorded, Ref]:
    recorded = Recorded()
    return recorded, recorded.bind(tensor_asset(tmp_path, VALUES, columns=["a", "b"]))


def test_a_mean_is_computed_from_its_rows(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    mean = recorded("aten::mean.dim", x, [0])
    (base,) = forms(recorded, mean)
    assert (base.size, base.rows, base.entities, base.most, base.centred) == (2, 5, 5, 1, True)
    assert base.scale == pytest.approx([10.0, 10.0])
    assert base.centre == pytest.approx([10.0, 10.0])
    assert base.norm == pytest.approx(2**0.5)
    scaled, codes, keep = contributions(recorded, base)
    assert (codes, keep) == (None, None)
    assert np.abs(scaled).max() <= 1
    torch.testing.assert_close(released(recorded, mean), VALUES.mean(0))


def test_a_public_map_of_several_sums_is_applied_after_the_noise(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    total, mean = recorded("aten::sum.dim_IntList", x, [0]), recorded("aten::mean.dim", x, [0])
    weights = recorded.constant(torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]))
    both = recorded("aten::stack", [recorded("aten::mul.Tensor", total, 0.5), recorded("aten::neg", mean)], 0)
    value = recorded("aten::select.int", recorded("aten::mm", both, weights), 0, 1)
    assert recorded.propose(value).label == "agg"
    assert bases(recorded.session.program, value) == [total, mean]
    torch.testing.assert_close(released(recorded, value), recorded.value(value))


def test_the_exact_sum_is_never_read_for_a_noisy_answer(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    total = recorded("aten::sum.dim_IntList", x, [0])
    value = recorded("aten::mul.Tensor", total, 2.0)
    recorded.value(value)  # now the worker keeps the exact values
    recorded.value(total)
    session = recorded.session
    found = evaluate(session.program, session.reader, value, {total: torch.tensor([7.0, 9.0])})
    assert found.tolist() == [14.0, 18.0]


def test_an_integer_sum_with_noise_is_rounded(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    count = recorded("grid::count", x)
    session = recorded.session
    found = evaluate(session.program, session.reader, count, {count: torch.tensor([4.6])})
    assert (found.item(), found.dtype) == (5, torch.int64)


def test_a_value_that_is_no_sum_has_no_bases(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    total = recorded("aten::sum.dim_IntList", x, [0])
    for value in (x, recorded("aten::exp", total), recorded("aten::mul.Tensor", total, total)):
        with pytest.raises(InvalidInputError, match="a sum, mean or count"):
            bases(recorded.session.program, value)


def test_a_mean_loss_is_the_sum_divided_by_the_public_number(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    weights = recorded.constant(torch.tensor([0.1, 0.5]))
    target = recorded("aten::select.int", x, 1, 1)
    loss = recorded("aten::mse_loss", recorded("aten::mv", x, weights), target)
    (base,) = forms(recorded, loss)
    assert (base.size, base.norm) == (1, 1.0)
    torch.testing.assert_close(released(recorded, loss), recorded.value(loss))


# --- who the rows are ---


def with_entities(folder: Path, spec: AssetSpec, people: list[str], most: int) -> AssetSpec:
    """The asset, its rows those of `people`, by identifiers of 32 bytes."""
    hmacs = pa.array([name.encode().ljust(32, b"\x01") for name in people], pa.binary(32))
    with pa.ipc.new_file(str(folder / "entities.arrow"), pa.schema([("entity", pa.binary(32))])) as writer:
        writer.write_table(pa.table({"entity": hmacs}))
    return msgspec.structs.replace(spec, entities="declared", max_rows_per_entity=most)


@pytest.fixture
def visits(tmp_path: Path) -> tuple[Recorded, Ref]:
    spec = tensor_asset(tmp_path, VALUES, columns=["a", "b"])
    recorded = Recorded()
    return recorded, recorded.bind(with_entities(tmp_path, spec, ["mia", "ada", "mia", "zoe", "ada"], 2))


def test_rows_of_one_person_have_one_code(visits: tuple[Recorded, Ref]) -> None:
    recorded, x = visits
    (base,) = forms(recorded, recorded("aten::sum.dim_IntList", x, [0]))
    assert base.most == 2
    assert contributions(recorded, base)[1].tolist() == [1, 0, 1, 2, 0]


def test_chosen_and_repeated_rows_lead_back_to_their_people(visits: tuple[Recorded, Ref]) -> None:
    recorded, x = visits
    index = recorded.constant(torch.tensor([3, 3, 0, 9, 1]))
    chosen = recorded("aten::index_select", recorded("aten::flip", x, [0]), 0, index)
    joined = recorded("aten::cat", [chosen, recorded("aten::slice.Tensor", x, 0, 0, 4, 2)], 0)
    total = recorded("aten::sum.dim_IntList", joined, [0])
    (base,) = forms(recorded, total)
    _, codes, keep = contributions(recorded, base)
    # Reversed: rows 1, 1, 4, one that does not exist, 3; then rows 0 and 2.
    assert keep.tolist() == [True, True, True, False, True, True, True]
    assert codes[keep].tolist() == [0, 0, 0, 2, 1, 1]
    assert (base.rows, base.most, base.centred) == (7, 4, False)
    torch.testing.assert_close(released(recorded, total), recorded.value(total).double(), check_dtype=False)


def test_rows_that_are_people_keep_their_numbers(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    index = recorded.constant(torch.tensor([4, 4, 2]))
    (base,) = forms(recorded, recorded("aten::mean.dim", recorded("aten::index_select", x, 0, index), [0]))
    assert contributions(recorded, base)[1].tolist() == [4, 4, 2]
    assert (base.most, base.entities) == (2, 5)


def test_rows_of_two_datasets_in_one_sequence_are_refused(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    other = recorded.bind(tensor_asset(tmp_path / "other", VALUES, columns=["a", "b"], dataset="deaths"))
    total = recorded("aten::sum.dim_IntList", recorded("aten::cat", [x, other], 0), [0])
    with pytest.raises(InvalidInputError, match="no entities in common"):
        forms(recorded, total)
    added = recorded(
        "aten::add.Tensor",
        recorded("aten::sum.dim_IntList", x, [0]),
        recorded("aten::sum.dim_IntList", other, [0]),
    )
    assert len(forms(recorded, added)) == 2


def test_null_records_contribute_nothing_after_every_map(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, VALUES, columns=["a", "b"], presence=[True, False, True, True, False]))
    total = recorded("aten::sum.dim_IntList", recorded("aten::exp", recorded("aten::mul.Tensor", x, 0.01)), [0])
    (base,) = forms(recorded, total)
    assert contributions(recorded, base)[2].tolist() == [True, False, True, True, False]
    assert not base.centred
    torch.testing.assert_close(released(recorded, total), recorded.value(total))
    with pytest.raises(InvalidInputError, match="release the sum and the count"):
        forms(recorded, recorded("aten::mean.dim", x, [0]))
    (count,) = forms(recorded, recorded("grid::count", x))
    assert (count.size, count.norm, count.scale, summed(recorded, count).tolist()) == (1, 1.0, [1.0], [3.0])


def test_a_table_is_summed_by_its_declared_columns(tmp_path: Path) -> None:
    spec = table_asset(
        tmp_path,
        {"smoker": pa.array([0, 1, 1], pa.int64()), "old": pa.array([True, False, True])},
        {"smoker": "category", "old": "boolean"},
        None,
    )
    recorded = Recorded()
    table = recorded.bind(spec)
    both = recorded("grid::columns", table, ["smoker", "old"])
    (base,) = forms(recorded, recorded("aten::mean.dim", both, [0]))
    assert base.scale == pytest.approx([1 / 6, 1 / 6])
    old = recorded(
        "aten::sum", recorded("aten::_to_copy", recorded("grid::column", table, "old"), dtype=Dtype("int64"))
    )
    assert released(recorded, old).tolist() == 2


# --- bounds ---


def test_a_value_without_bounds_says_where_and_what_would_help(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, VALUES))
    with pytest.raises(UnboundedError, match="declares no bounds") as caught:
        forms(recorded, recorded("aten::sum.dim_IntList", x, [0]))
    assert caught.value.details["operation"] == "grid::asset"
    clipped = recorded("aten::clamp", x, 0.0, 30.0)
    (base,) = forms(recorded, recorded("aten::sum.dim_IntList", clipped, [0]))
    assert base.scale == [15.0, 15.0]
    inverse = recorded("aten::reciprocal", recorded("aten::sub.Tensor", clipped, 7.0), line="model.py:3")
    with pytest.raises(UnboundedError, match=r"torch\.clamp") as caught:
        forms(recorded, recorded("aten::sum.dim_IntList", inverse, [0]))
    assert (caught.value.details["operation"], caught.value.details["line"]) == ("aten::reciprocal", "model.py:3")
