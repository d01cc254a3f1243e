"""All of torch on pointers: each public function gives what local torch gives, or is refused by name."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gridclient.recorder import Pointer
from gridclient.wire.errors import GridError
from tests.sdk.torch_calls import ALL, CLOSE, EQUAL, SEEDED, UNSET, gates, name_of, operands
from tests.sdk.worker_node import WorkerNode

BATCH = 16


def run(call: str, given: dict[str, Any]) -> list[Any]:
    """The result's parts, and the operand after the call where the call writes to it."""
    result = eval(call, {"torch": torch, "F": F, "gates": gates}, given)
    return parts(result)


def parts(result: Any) -> list[Any]:
    return [part for item in result for part in parts(item)] if isinstance(result, (tuple, list)) else [result]


def differs(call: str, here: Any, there: Any) -> str:
    """What is wrong with a part of the result; empty when nothing is."""
    if not isinstance(here, torch.Tensor):
        return "" if here == there else f"{there!r} is not {here!r}"
    value = there.get() if isinstance(there, Pointer) else there
    if (value.shape, value.dtype) != (here.shape, here.dtype):
        return f"{value.dtype} {list(value.shape)} is not {here.dtype} {list(here.shape)}"
    if call in SEEDED:
        return ""
    here = torch.zeros_like(here) if call in UNSET else here
    if torch.equal(value.isnan(), here.isnan()) and torch.equal(value.nan_to_num(), here.nan_to_num()):
        return ""
    close = call in CLOSE and torch.allclose(value, here, rtol=1e-4, atol=1e-5)
    return "" if close else "other values"


def outcome(call: str, node: WorkerNode) -> str:
    """ "equal", "refused", or what is wrong."""
    here = run(call, operands(call))
    pointers = {name: node.send(tensor) for name, tensor in operands(call).items()}
    try:
        found = run(call, pointers)
        if len(found) != len(here):
            return f"{len(found)} results, not {len(here)}"
        return next((wrong for wrong in map(differs, [call] * len(here), here, found) if wrong), "equal")
    except GridError as error:
        named = "operation" in error.details or error.code == "remote_value"
        return "refused" if named else f"refused without a name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("begin", range(0, len(ALL), BATCH), ids=lambda begin: ALL[begin])
def test_a_function_gives_what_torch_gives_or_is_refused_by_name(begin: int, tmp_path: Path) -> None:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = WorkerNode(tmp_path)
        for call in ALL[begin : begin + BATCH]:
            found[call] = outcome(call, node)
    assert {call: what for call, what in found.items() if what not in ("equal", "refused")} == {}
    lost = [call for call, what in found.items() if what == "refused" and name_of(call) in EQUAL]
    assert lost == [], "functions that worked are refused"


def test_at_least_400_functions_are_tried_and_250_must_work() -> None:
    tried = defaultdict(list)
    for call in ALL:
        tried[name_of(call)].append(call)
    assert len(tried) >= 400
    assert len(EQUAL) >= 250
    assert tried.keys() >= EQUAL


def test_random_operations_are_repeated_by_manual_seed_and_differ_otherwise(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    try:
        for call in SEEDED:
            drawn = []
            for seed in (3, 3, 4, 5, 6, 7):
                torch.manual_seed(seed)
                node = WorkerNode(tmp_path)
                pointers = {name: node.send(tensor) for name, tensor in operands(call).items()}
                drawn.append(next(part.get() for part in run(call, pointers) if isinstance(part, Pointer)))
            assert torch.equal(drawn[0], drawn[1]), call
            assert not all(torch.equal(drawn[0], other) for other in drawn[2:]), call
    finally:
        torch.set_rng_state(state)
