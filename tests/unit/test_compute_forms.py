"""One call may be written in several ways; label, shape, value and words must not depend on which.

A judgement found for one way and applied to another would let rows of different people pair up as one person's.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.compute.messages import Export, Exported
from apps.compute.targets import TARGETS
from gridclient.program.graph import Ref
from gridclient.wire.errors import GridError, InvalidInputError
from tests.factories.forms import forms
from tests.factories.operations import Sample, T, draw, samples
from tests.factories.programs import Recorded, table_asset, tensor_asset

MOST_CASES = 4


def _seen(recorded: Recorded, ref: Ref, folder: Path) -> Any:
    """Label, shape, dtype, words and bytes of a value; or the refusal."""
    try:
        found = recorded.propose(ref)
        reply = recorded.session.handle(Export(1, ref, str(folder / "constants"), {}), 0)
        words = reply.words.splitlines() if isinstance(reply, Exported) else reply
        value = recorded.value(ref).numpy(force=True).tobytes() if found.dtype != "bfloat16" else b""
    except GridError as error:
        return type(error), error.message
    return found.label, found.shape, found.dtype, found.inputs, found.closed, found.flops, words, value


def _operands(recorded: Recorded, sample: Sample, private: int | None, folder: Path, padded: bool) -> list[Any]:
    source = random.Random(f"{sample}")
    found: list[Any] = []
    for place, given in enumerate(sample.operands):
        value = draw(given, source)
        if place == private:
            presence = [row % 2 == 0 for row in range(given.shape[0])] if padded else None
            found.append(recorded.bind(tensor_asset(folder, value, presence=presence)))
        else:
            found.append(recorded.constant(value))
    return found


@pytest.mark.parametrize("op", sorted({sample.op for sample in samples(3, 4)}))
@pytest.mark.parametrize("padded", [False, True])
def test_every_operation_means_the_same_by_position_and_by_name(op: str, padded: bool, tmp_path: Path) -> None:
    source = random.Random(op)
    cases = [sample for sample in samples(3, 4) if sample.op == op]
    for number, sample in enumerate(source.sample(cases, min(MOST_CASES, len(cases)))):
        private = next((place for place, given in enumerate(sample.operands) if given.shape), None)
        seen = []
        for args, kwargs in forms(op, sample.args, sample.kwargs):
            recorded = Recorded()
            given = dict(
                zip(
                    map(id, _found([*sample.args, *sample.kwargs.values()])),
                    _operands(recorded, sample, private, tmp_path / f"{number}", padded),
                    strict=True,
                )
            )

            def value(item: Any, given: dict[int, Any] = given) -> Any:
                if isinstance(item, T):
                    return given[id(item)]
                return [value(part) for part in item] if isinstance(item, list) else item

            outputs = TARGETS[op].outputs
            named = {name: value(item) for name, item in kwargs.items()}
            ref = recorded(op, *map(value, args), outputs=outputs, **named)
            seen.append([_seen(recorded, Ref(ref.node, output), tmp_path) for output in range(outputs)])
        assert all(other == seen[0] for other in seen[1:]), sample


def _found(args: list[Any]) -> list[T]:
    """The operands as they are, so that each has its own identity."""
    nested = [given if isinstance(given, list) else [given] for given in args]
    return [item for items in nested for item in items if isinstance(item, T)]


def test_own_operations_mean_the_same_by_name(tmp_path: Path) -> None:
    content = {"age": [30.0, 40.0, 0.0], "size": [1.0, 2.0, 0.0]}
    for presence in (None, [True, True, False]):
        table = table_asset(tmp_path, content, dict.fromkeys(content, "number"), presence)
        for op, args in (("column", ["age"]), ("columns", [["size", "age"]]), ("count", [])):
            seen = []
            for named in (False, True):
                recorded = Recorded()
                x = recorded.bind(table)
                by_name = dict(zip(["self", "names"], [x, *args], strict=False))
                ref = recorded(f"grid::{op}", **by_name) if named else recorded(f"grid::{op}", x, *args)
                seen.append(_seen(recorded, ref, tmp_path))
            assert seen[0] == seen[1]
            assert len(seen[0]) > 2


def test_rows_chosen_by_different_indexes_do_not_pair(tmp_path: Path) -> None:
    """x[i] + x[j] holds two people in each row."""
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(4, 2)))
    forth, back = (recorded.constant(torch.tensor(order)) for order in ([0, 1, 2, 3], [3, 2, 1, 0]))
    chosen = [
        recorded("aten::index_select", self=x, dim=0, index=forth),
        recorded("aten::index_select", self=x, dim=0, index=back),
    ]
    assert recorded.propose(recorded("aten::add.Tensor", *chosen)).label == "tainted"
    again = recorded("aten::index_select", x, 0, forth)
    assert recorded.propose(recorded("aten::add.Tensor", chosen[0], again)).label == "rows"
    both = recorded("aten::sort", recorded.constant(torch.tensor([2, 0, 3, 1])), -1, False, outputs=2)
    for named in (False, True):
        parts = []
        for index in (both, Ref(both.node, 1)):
            if named:
                parts.append(recorded("aten::index_select", index=index, self=x, dim=0))
            else:
                parts.append(recorded("aten::index_select", x, 0, index))
        assert recorded.propose(recorded("aten::add.Tensor", *parts)).label == "tainted"
        assert recorded.propose(recorded("aten::add.Tensor", parts[0], parts[0])).label == "rows"


def deep(depth: int) -> Any:
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("op", ["aten::neg", "aten::cat", "grid::asset", "grid::constant", "grid::columns"])
@pytest.mark.parametrize("depth", [2, 5, 100, 50_000])
def test_deep_arguments_are_refused_before_anything_walks_them(op: str, depth: int, tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, torch.rand(4, 2)))
    for args, kwargs in (([deep(depth)], {}), ([x, deep(depth)], {}), ([], {"self": deep(depth)})):
        with pytest.raises(InvalidInputError):
            recorded.propose(recorded(op, *args, **kwargs))
    assert recorded.propose(recorded("aten::neg", x)).label == "rows"


def test_an_argument_of_a_million_numbers_is_refused(tmp_path: Path) -> None:
    recorded = Recorded()
    for args in ([[0] * 10**6], [*[0] * 10**6], [Ref(0), ["a"] * 10**6]):
        with pytest.raises(InvalidInputError):
            recorded.propose(recorded("grid::columns", *args))
