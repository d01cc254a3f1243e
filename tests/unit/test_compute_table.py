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
from gridclient.program.operations import OPERATIONS
from tests.factories.operations import EXTENTS, draw, samples


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
    assert all(operation.rule is not None for name, operation in TABLE.items() if name in TARGETS)


def test_no_operation_may_change_its_inputs_by_its_own_account() -> None:
    for name in TARGETS:
        if name.startswith("aten::"):
            schema = _overload(name)._schema
            assert not schema.is_mutable
            assert not any(argument.is_write for argument in schema.arguments)


def test_every_operation_has_words_for_its_arguments() -> None:
    for name, target in TARGETS.items():
        TABLE[name].words.format_map({parameter.name: "x" for parameter in target.parameters})


@pytest.mark.parametrize("op", sorted(set(TARGETS) - {"grid::column", "grid::columns", "grid::count"}))
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


def test_a_position_that_does_not_exist_gives_zero() -> None:
    """An index out of range must look like any other index: the answer's shape and the error depend on no value."""
    found = TARGETS["aten::index_select"].call(torch.tensor([[1.0], [2.0]]), 0, torch.tensor([1, 2, -1, 0]))
    assert found.tolist() == [[2.0], [0.0], [0.0], [1.0]]
