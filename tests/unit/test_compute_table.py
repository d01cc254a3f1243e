"""The table of operations: complete, pure, total."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator

import pytest
import torch

from apps.compute.operations import TABLE
from apps.compute.readers.torch import prepare
from apps.compute.targets import TARGETS, _overload
from apps.compute.totals import networks
from gridclient.program.operations import OPERATIONS
from tests.factories.operations import EXTENTS, draw, samples

FROM_METADATA = {"grid::column", "grid::columns", "grid::count", "grid::aggregate", "grid::parameter"}


@pytest.fixture(autouse=True)
def _prepared() -> Iterator[None]:
    enabled = torch.is_grad_enabled()
    prepare()
    yield
    torch.set_grad_enabled(enabled)
    torch.set_flush_denormal(False)


def test_what_the_sdk_records_is_what_the_node_runs() -> None:
    assert set(TABLE) == OPERATIONS
    assert set(TARGETS) == OPERATIONS - {"grid::asset", "grid::constant"}


def test_no_operation_may_change_its_inputs_by_its_own_account() -> None:
    for name in TARGETS:
        if name.startswith("aten::"):
            schema = _overload(name)._schema
            assert not schema.is_mutable
            assert not any(argument.is_write for argument in schema.arguments)


def test_every_operation_has_words_for_its_arguments() -> None:
    for name, target in TARGETS.items():
        TABLE[name].words.format_map({parameter.name: "x" for parameter in target.parameters})


@pytest.mark.parametrize("op", sorted(set(TARGETS) - FROM_METADATA))
def test_private_values_cannot_be_written_into_public_ones_nor_raise(op: str) -> None:
    """Attack 23, and errors as an oracle: hostile values change no input and raise nothing."""
    source = random.Random(op)
    calls = [sample for n, d in [*EXTENTS, (0, 2)] for sample in samples(n, d) if sample.op == op]
    assert calls
    for sample in source.sample(calls, min(len(calls), 120)):
        for hostile in (True, False):
            values = [draw(given, source, hostile=hostile) for given in sample.operands]
            before = [value.clone().numpy().tobytes() for value in values]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # var() of one value warns
                outputs = sample.run(values)
            assert [value.numpy().tobytes() for value in values] == before
            call = sample.call()
            assert [tuple(output.shape) for output in outputs] == list(call.outputs)


def test_every_operation_has_samples() -> None:
    """What has none would be tested by nothing that is generated from the table."""
    assert {sample.op for sample in samples(3, 4)} == set(TARGETS) - FROM_METADATA


MATHEMATICS = sorted(
    name
    for name, target in TARGETS.items()
    if name.startswith("aten::") and name not in networks.TOTAL and target.call is not _overload(name)
)
NOT_TORCH = {"aten::_linalg_solve_ex", "aten::linalg_inv_ex", "aten::linalg_cholesky_ex"}
"""These say by a number beside the result that it means nothing; here it is NaN then."""
ANY_OF_EQUALS = {("aten::kthvalue", 1)}
"""Outputs that may name any of several equal values."""


def test_a_total_form_takes_as_many_numbers_as_torch_does() -> None:
    """Quotients of whole numbers were refused from 33 of them on: forms go other ways there."""
    for sample in samples(8, 5):
        if sample.op in MATHEMATICS:
            sample.call()


@pytest.mark.parametrize("op", MATHEMATICS)
def test_a_total_form_is_torch_bit_for_bit_on_ordinary_values(op: str) -> None:
    source = random.Random(op)
    calls = [sample for n, d in [(3, 3), (2, 4), (4, 2), (3, 4)] for sample in samples(n, d) if sample.op == op]
    compared = 0
    for sample in source.sample(calls, min(len(calls), 60)):
        values = [_positions_that_exist(draw(given, source)) for given in sample.operands]
        try:
            expected = sample.run(values, by=_overload(op))
        except (RuntimeError, IndexError, NotImplementedError):  # memory layout, or a position
            continue
        for number, (output, other) in enumerate(zip(sample.run(values), expected, strict=True)):
            assert output.dtype == other.dtype and output.shape == other.shape
            if (op, number) in ANY_OF_EQUALS:
                continue
            if op in NOT_TORCH and output.is_floating_point():
                other = torch.where(torch.isnan(output), output, other)
            torch.testing.assert_close(output, other, rtol=0, atol=0, equal_nan=True)
        compared += 1
    assert compared


def _positions_that_exist(value: torch.Tensor) -> torch.Tensor:
    if value.dtype is torch.int32:
        return value % 2 + 1  # pivots count from 1
    return value % 2 if value.dtype is torch.int64 else value


LOWEST = {"int64": -(2**63), "int32": -(2**31), "int16": -(2**15), "int8": -128}


@pytest.mark.parametrize("dtype", LOWEST)
@pytest.mark.parametrize("op", ["floor_divide", "remainder.Tensor", "fmod.Tensor", "div.Tensor_mode"])
def test_no_whole_divisor_ends_the_process_or_raises(op: str, dtype: str) -> None:
    """The lowest number divided by -1 is a trap of the processor; a division by 0 raises: both tell of one value."""
    numbers = torch.tensor([LOWEST[dtype], -7, -1, 0, 1, 7], dtype=getattr(torch, dtype))
    left, right = numbers[:, None], numbers[None, :]
    options = {"rounding_mode": "trunc"} if op == "div.Tensor_mode" else {}
    found = TARGETS[f"aten::{op}"].call(left, right, **options)
    assert (found[:, 3] == 0).all()
    expected = _overload(f"aten::{op}")(left[1:], right[:, [0, 1, 2, 4, 5]], **options)
    assert torch.equal(found[1:, [0, 1, 2, 4, 5]], expected)
    for number in (0, -1):
        assert TARGETS[f"aten::{op}"].call(numbers, number, **options).dtype == numbers.dtype


@pytest.mark.parametrize(
    "op", ["_linalg_svd", "_linalg_eigh", "linalg_inv_ex", "_linalg_det", "linalg_pinv.atol_rtol_tensor"]
)
def test_a_matrix_that_cannot_be_factored_does_not_show_in_the_others(op: str) -> None:
    good = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    call = TARGETS[f"aten::{op}"].call
    alone = call(good[None].contiguous())
    both = call(torch.stack([torch.full((2, 2), torch.nan), good]))
    alone, both = ([found] if isinstance(found, torch.Tensor) else found for found in (alone, both))
    for one, found in zip(alone, both, strict=True):
        assert torch.equal(one[0], found[1])
        assert not found.is_floating_point() or torch.isnan(found[0]).all()


def test_pivots_that_fit_no_matrix_are_refused() -> None:
    """The kernel writes beyond its memory for them."""
    factors, pivots = torch.rand(3, 3), torch.zeros(3, 3, dtype=torch.int32)
    for op, more in (("lu_unpack", []), ("linalg_lu_solve", [torch.rand(3, 1)])):
        with pytest.raises(ValueError):
            TARGETS[f"aten::{op}"].call(factors, pivots, *more)
        TARGETS[f"aten::{op}"].call(factors, pivots[0] + 99, *more)


def test_a_seed_gives_the_same_numbers_each_time() -> None:
    rand, dropout = TARGETS["grid::rand"].call, TARGETS["grid::dropout"].call
    assert torch.equal(rand([5], torch.float32, 3), rand([5], torch.float32, 3))
    assert not torch.equal(rand([5], torch.float32, 3), rand([5], torch.float32, 4))
    value, kept = dropout(torch.ones(1000), 0.25, 3)
    assert torch.equal(value, kept / 0.75) and 700 < int(kept.sum()) < 800


def test_a_position_that_does_not_exist_is_not_written() -> None:
    x, index = torch.zeros(2, 3), torch.tensor([1, 2, -3])
    put = TARGETS["aten::index_put"].call(x, [index], torch.ones(3, 3), True)
    assert put.tolist() == [[0.0] * 3, [1.0] * 3]
    added = TARGETS["aten::scatter_add"].call(x, 0, index[None], torch.ones(1, 3))
    assert added.tolist() == [[0.0] * 3, [1.0, 0.0, 0.0]]
    assert TARGETS["aten::gather"].call(x + 1, 0, index[None]).tolist() == [[1.0, 0.0, 0.0]]
    assert TARGETS["aten::index.Tensor"].call(x + 1, [index]).tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3]


def test_a_position_that_does_not_exist_gives_zero() -> None:
    """An index out of range must look like any other index: the answer's shape and the error depend on no value."""
    found = TARGETS["aten::index_select"].call(torch.tensor([[1.0], [2.0]]), 0, torch.tensor([1, 2, -1, 0]))
    assert found.tolist() == [[2.0], [0.0], [0.0], [1.0]]
