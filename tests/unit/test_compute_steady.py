"""Steady time must not change a result: every form that a kernel was given for it is torch's, bit for bit.

What a scientist would lose: that a program computes on a node what it computes here.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Iterator

import pytest
import torch

from apps.compute.alongside import ELEMENTWISE, WHOLE, beside_slowest
from apps.compute.branchless import choose
from apps.compute.readers.torch import prepare
from apps.compute.steady import STEADY
from apps.compute.targets import TARGETS, _overload
from tests.factories.operations import T, draw, samples

CHOICES = ["where.self", "masked_fill.Scalar", "masked_fill.Tensor", "logsumexp", "count_nonzero",
           "count_nonzero.dim_IntList", "soft_margin_loss", "embedding_dense_backward"]  # fmt: skip
FORMS = sorted({*ELEMENTWISE, *WHOLE, *(f"aten::{name}" for name in CHOICES)})
OWN_RULES = {"aten::kthvalue", "aten::linalg_pinv.atol_rtol_tensor", "aten::_linalg_svd", "aten::_linalg_eigh",
             "aten::igamma", "aten::igammac", "aten::polygamma"}  # fmt: skip
"""Which of equal values is meant, and NaN for what torch refuses or hangs at: compared on ordinary values only."""
LAYOUTS = {
    "flat": lambda x: x,
    "turned": lambda x: x.t().contiguous().t(),
    "expanded": lambda x: x[:1].expand(x.shape),
    "every other": lambda x: x.repeat(1, 2)[:, ::2],
    "a row": lambda x: x[0],
    "a column": lambda x: x[:, :1],
    "a number": lambda x: x[0, 0],
}


@pytest.fixture(autouse=True)
def _prepared() -> Iterator[None]:
    enabled = torch.is_grad_enabled()
    prepare()
    yield
    torch.set_grad_enabled(enabled)
    torch.set_flush_denormal(False)


def _bits(value: torch.Tensor) -> bytes:
    return value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"])
def test_a_choice_is_that_of_torch_however_its_operands_lie(dtype: str) -> None:
    source = random.Random(dtype)
    for shape in ((40, 50), (3, 4), (300, 200)):
        for left, right, which in itertools.product(LAYOUTS, repeat=3):
            if shape == (300, 200) and {left, right, which} != {"flat"}:
                continue
            a, b = (LAYOUTS[how](draw(T(shape, dtype), source, hostile=True)) for how in (left, right))
            condition = LAYOUTS[which](draw(T(shape, "bool"), source))
            found, expected = choose(condition, a, b), torch.where(condition, a, b)
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert found.stride() == expected.stride()
            assert _bits(found) == _bits(expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64])
def test_a_choice_of_numbers_has_the_dtype_that_torch_gives_it(dtype: torch.dtype) -> None:
    condition = torch.arange(100) % 3 == 0
    values = torch.arange(100).to(dtype)
    single = torch.ones((), dtype=torch.float64)
    for given in ((values, 0.75), (2, values), (values, torch.nan), (1.0, 0.0), (values, single)):
        found, expected = choose(condition, *given), torch.where(condition, *given)
        assert found.dtype == expected.dtype and _bits(found) == _bits(expected)


@pytest.mark.parametrize("op", FORMS)
def test_a_steady_form_is_torch_bit_for_bit_on_hostile_values(op: str) -> None:
    """Denormals apart: the kernels that the two are made of may differ in flushing them."""
    source = random.Random(op)
    calls = [sample for n, d in [(3, 3), (2, 4), (8, 5)] for sample in samples(n, d) if sample.op == op]
    compared = 0
    for sample in source.sample(calls, min(len(calls), 40)):
        for wide, hostile in itertools.product((False, True), repeat=2):
            values = [_given(given, source, wide=wide, hostile=hostile) for given in sample.operands]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    expected = sample.run(values, by=_overload(op))
                except (RuntimeError, IndexError):  # by value or by layout
                    continue
                found = sample.run(values)
            for output, other in zip(found, expected, strict=True):
                if op not in OWN_RULES:
                    torch.testing.assert_close(output, other, rtol=0, atol=0, equal_nan=True)
            compared += 1
    assert compared


def _given(given: T, source: random.Random, *, wide: bool, hostile: bool) -> torch.Tensor:
    wanted = T(given.shape, "float64") if wide and given.dtype == "float32" else given
    value = draw(wanted, source, hostile=hostile)
    if not value.is_floating_point():
        return value % 2 if value.dtype == torch.int64 else value
    return torch.where(value.abs() < torch.finfo(torch.float32).tiny, 0.0, value)


@pytest.mark.parametrize("op", sorted({*ELEMENTWISE, *WHOLE}))
def test_the_slowest_numbers_run_beside_an_operation_that_needs_them(op: str) -> None:
    """Not timed, as a busy machine would decide: the kernel is called twice, and is given no less the second time."""
    calls = [sample for sample in samples(8, 5) if sample.op == op]
    sample = max(calls, key=lambda sample: sum(torch.Size(given.shape).numel() for given in sample.operands))
    seen: list[list[torch.Tensor]] = []

    def kernel(*args: object, **kwargs: object) -> object:
        seen.append([given for given in args if isinstance(given, torch.Tensor)])
        return _overload(op)(*args, **kwargs)

    values = [_given(given, random.Random(1), wide=False, hostile=False) for given in sample.operands]
    sample.run(values, by=beside_slowest(op, kernel))
    assert len(seen) == 2
    assert sum(given.numel() for given in seen[1]) >= sum(given.numel() for given in seen[0]) * (op in WHOLE)
    assert all(first.dtype == second.dtype for first, second in zip(*seen, strict=True))


def test_no_operation_has_two_ways_to_be_steady() -> None:
    assert not set(STEADY) & (set(ELEMENTWISE) | set(WHOLE)) and not set(ELEMENTWISE) & set(WHOLE)
    assert {*STEADY, *ELEMENTWISE, *WHOLE} <= set(TARGETS)
