"""A public answer is computed without private data: else its time, its cost and its failures would tell of people."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.compute import mapped
from apps.compute.labels import NOTHING
from apps.compute.messages import Limits
from apps.compute.operations import TABLE
from apps.compute.targets import TARGETS
from gridclient.program.graph import Dtype, Ref
from gridclient.wire.errors import GridError, InternalError
from tests.factories.operations import T, samples
from tests.factories.programs import Recorded, tensor_asset

FACTORIES = [("zeros_like", 0.0), ("ones_like", 1.0), ("full_like", 3.0)]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reading private data fails here, and is noted."""
    reads: list[str] = []

    def fail(*_: Any) -> Any:
        reads.append("read")
        raise MemoryError

    for name in ("tensor", "table", "columns", "presence"):
        monkeypatch.setattr(mapped, name, fail)
    return reads


@pytest.mark.parametrize(("name", "filled"), FACTORIES)
def test_a_factory_needs_only_the_shape_of_its_operand(
    tmp_path: Path, unread: list[str], name: str, filled: float
) -> None:
    """Computing the operand would take a time that depends on one person's value."""
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(5, 2), columns=["a", "b"]))
    private = recorded("aten::exp", recorded("aten::select.int", x, 0, 3))
    more = [filled] if name == "full_like" else []
    for kwargs, dtype in (({}, torch.float32), ({"dtype": Dtype("int64")}, torch.int64)):
        ref = recorded(f"aten::{name}", private, *more, **kwargs)
        proposal = recorded.propose(ref)
        assert (proposal.label, proposal.operations) == ("public", 1)
        assert proposal.flops <= 10
        assert torch.equal(recorded.value(ref), torch.full((2,), filled, dtype=dtype))
        assert torch.equal(recorded.value(recorded("aten::neg", ref)), torch.full((2,), -filled, dtype=dtype))
    assert not unread


def test_what_an_operand_would_cost_does_not_refuse_a_public_value(tmp_path: Path) -> None:
    recorded = Recorded(Limits(flops=1000))
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(20, 20)))
    product = recorded("aten::mm", x, x)
    with pytest.raises(GridError, match="operations"):
        recorded.propose(product)
    assert recorded.propose(recorded("aten::zeros_like", product)).label == "public"


def test_counting_rows_whose_number_is_public_reads_none_of_them(tmp_path: Path, unread: list[str]) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(5, 2), columns=["a", "b"]))
    assert recorded.value(recorded("grid::count", recorded("aten::exp", x))).item() == 5
    assert recorded.value(recorded("grid::count", self=x)).item() == 5
    assert not unread


def test_a_mistaken_rule_gives_out_nothing(tmp_path: Path, unread: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a rule to call private values public, the second look at the program stops it before anything runs."""
    wrong = dataclasses.replace(TABLE["aten::neg"], rule=lambda call: NOTHING)
    monkeypatch.setitem(TABLE, "aten::neg", wrong)
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(5, 2)))
    leak = recorded("aten::neg", recorded("aten::exp", x))
    for ref in (leak, recorded("aten::add.Tensor", leak, 1.0)):
        with pytest.raises(InternalError):
            recorded.propose(ref)
        with pytest.raises(InternalError):
            recorded.value(ref)
    assert not unread


def test_a_mistaken_rule_gives_out_nothing_that_was_computed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of an earlier answer is not computed again, and must not hide where a value comes from."""
    wrong = dataclasses.replace(TABLE["aten::neg"], rule=lambda call: NOTHING)
    monkeypatch.setitem(TABLE, "aten::neg", wrong)
    recorded = Recorded()
    private = recorded("aten::exp", recorded.bind(tensor_asset(tmp_path, torch.rand(5, 2))))
    recorded.value(private)
    with pytest.raises(InternalError):
        recorded.propose(recorded("aten::neg", private))


@pytest.mark.parametrize("op", sorted({sample.op for sample in samples(3, 4)}))
def test_no_operation_reads_private_data_for_a_public_answer(op: str, tmp_path: Path, unread: list[str]) -> None:
    source = random.Random(op)
    cases = [sample for sample in samples(3, 4) if sample.op == op]
    public = 0
    for number, sample in enumerate(source.sample(cases, min(12, len(cases)))):
        recorded = Recorded()
        known = iter(
            [
                recorded.bind(tensor_asset(tmp_path / f"{number} {place}", _zeros(given), dataset=f"d{place}"))
                if given.shape and (place == 0 or source.random() < 0.5)
                else recorded.constant(_zeros(given))
                for place, given in enumerate(sample.operands)
            ]
        )

        def value(given: Any, known: Any = known) -> Any:
            if isinstance(given, T):
                return next(known)
            return [value(item) for item in given] if isinstance(given, list) else given

        outputs = TARGETS[op].outputs
        args = [value(given) for given in sample.args]
        kwargs = {name: value(given) for name, given in sample.kwargs.items()}
        ref = recorded(op, *args, outputs=outputs, **kwargs)
        for output in range(outputs):
            public += recorded.propose(Ref(ref.node, output)).label == "public"
    assert not unread
    assert public or op.removeprefix("aten::") not in dict(FACTORIES)


def _zeros(given: T) -> torch.Tensor:
    return torch.zeros(given.shape, dtype=getattr(torch, given.dtype))
