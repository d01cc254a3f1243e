"""Operands of two floating dtypes: recorded where local torch takes them, refused at the line that wrote it elsewhere.

A program that a node cannot compute would be noticed at the first `get`, when its parameters are already lost.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gridclient.recorder import Pointer
from gridclient.wire.errors import GridError, ShapeError
from tests.sdk.test_recorder_all_of_torch import differs, run
from tests.sdk.torch_calls import ALL, operands
from tests.sdk.worker_node import WorkerNode

BATCH = 40


def mixed(call: str, wide: str) -> dict[str, torch.Tensor]:
    """The operands of a call, with one of them in float64."""
    return {name: tensor.double() if name == wide else tensor for name, tensor in operands(call).items()}


def cases() -> list[tuple[str, str]]:
    """(call, operand in float64) for calls of several floating operands."""
    found = []
    for call in ALL:
        floating = sorted(name for name, tensor in operands(call).items() if tensor.dtype.is_floating_point)
        found += [(call, name) for name in floating if len(floating) > 1]
    return found


CASES = cases()


def outcome(call: str, wide: str, node: WorkerNode) -> str:
    """ "equal", "refused", or what is wrong."""
    local = mixed(call, wide)
    try:
        here = [*run(call, local), *local.values()]
    except Exception:
        here = None
    pointers = {name: node.send(tensor) for name, tensor in mixed(call, wide).items()}
    try:
        found = [*run(call, pointers), *pointers.values()]
    except GridError as error:
        named = "operation" in error.details or error.code == "remote_value"
        return "refused" if named else f"refused without a name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}" if here is not None else "refused"
    try:
        values = [part.get() if isinstance(part, Pointer) else part for part in found]
    except GridError as error:
        return f"refused too late: {error}"
    if here is None:
        return "recorded, where torch raises"
    return next((wrong for wrong in map(differs, [call] * len(here), here, values) if wrong), "equal")


@pytest.mark.parametrize("begin", range(0, len(CASES), BATCH), ids=lambda begin: CASES[begin][0])
def test_two_dtypes_give_what_torch_gives_or_are_refused_while_recording(begin: int, tmp_path: Path) -> None:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = WorkerNode(tmp_path)
        for call, wide in CASES[begin : begin + BATCH]:
            found[call, wide] = outcome(call, wide, node)
    assert {case: what for case, what in found.items() if what not in ("equal", "refused")} == {}


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("wide", [0, 1])
def test_a_loss_of_two_dtypes_and_its_gradients_are_those_of_torch(
    loss: Any, reduction: str, wide: int, tmp_path: Path
) -> None:
    node, given = WorkerNode(tmp_path), list(mixed("x + y", "xy"[wide]).items())
    local = [tensor.requires_grad_() for _, tensor in sorted(given)]
    there = [node.send(tensor.detach()).requires_grad_() for tensor in local]
    results = [loss(*operands, reduction=reduction) for operands in (local, there)]
    for result in results:
        result.sum().backward()
    assert torch.equal(results[1].get(), results[0])
    for tensor, pointer in zip(local, there, strict=True):
        assert tensor.grad is not None
        assert torch.equal(pointer.grad.get(), tensor.grad)


def test_a_product_with_integers_is_refused_at_its_line_and_says_what_to_write(tmp_path: Path) -> None:
    node = WorkerNode(tmp_path)
    counts, weights = node.send(torch.ones(3, 4, dtype=torch.int64)), node.send(torch.ones(4, 2, dtype=torch.float64))
    with pytest.raises(
        ShapeError, match=r"aten::mm takes values of one dtype, not float64 and int64.*torch\."
    ) as caught:
        counts @ weights
    assert str(caught.value.details["line"]).startswith("test_recorder_dtypes.py:")
    with pytest.raises(ShapeError, match=r"convert one of them, for example with x\.to\(torch\.float64\)"):
        weights.t() @ weights.float()


@pytest.mark.parametrize("write", ["x.mul_(y)", "x.addcmul_(y, p)", "x.add_(y)", "x.div_(y)"])
def test_a_fraction_is_not_written_into_integers(write: str, tmp_path: Path) -> None:
    node = WorkerNode(tmp_path)
    pointers = {name: node.send(tensor) for name, tensor in operands(write).items()}
    pointers["x"] = pointers["x"].long()
    with pytest.raises(ShapeError, match="_"):
        run(write, pointers)
