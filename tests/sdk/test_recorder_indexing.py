"""Rows are taken and written by positions and masks as in torch, and how many are taken is never private."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gridclient.recorder import Pointer
from gridclient.wire.errors import OperationNotAllowedError
from tests.sdk.local_node import LocalNode, assert_same

LOCAL = torch.arange(12.0).reshape(3, 4)
AT = torch.tensor([2, 0])
MASK = torch.tensor([True, False, True])


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


@pytest.fixture
def births(node: LocalNode) -> Pointer:
    return node.publish(LOCAL)


def put(x: Any, where: Any, what: Any) -> Any:
    x[where] = what
    return x


def add(x: Any, where: Any, what: Any) -> Any:
    x[where] += what
    return x


CASES: dict[str, Callable[[Any], Any]] = {
    "positions": lambda x: x[AT],
    "a list": lambda x: x[:, [0, -1]],
    "pairs": lambda x: x[AT, [1, 3]],
    "a grid": lambda x: x[AT[:, None], [1, 3]],
    "columns after a slice": lambda x: x[1:, AT],
    "a local mask": lambda x: x[MASK],
    "a local mask of two axes": lambda x: x[LOCAL % 3 == 0],
    "a local mask of columns": lambda x: x[:, torch.tensor([True, False, True, False])],
    "a local mask and a position": lambda x: x[MASK, 1],
    "positions on the node": lambda x: x[x[:, 0].to(torch.int64) % 3],
    "a local tensor by positions on the node": lambda x: LOCAL[:, 1][x[0].to(torch.int64) % 3],
    "write to rows": lambda x: put(x, AT, 7.0),
    "write rows": lambda x: put(x, AT, x[1:] * 2),
    "write pairs": lambda x: put(x, (AT, [1, 3]), torch.tensor([5.0, 6.0])),
    "write by a local mask": lambda x: put(x, MASK, torch.ones(2, 4)),
    "write one number of another dtype by a local mask": lambda x: put(x, MASK, x[:1, :1].to(torch.float64)),
    "write one local number of another dtype by a local mask": lambda x: put(
        x, MASK, torch.tensor(2, dtype=torch.int32)
    ),
    "write a number by a mask": lambda x: put(x, x > 5, -1),
    "write a pointer by a mask": lambda x: put(x, x > 5, x[0, 1]),
    "write a number by a mask of rows": lambda x: put(x, x[:, 1] > 4, 0),
    "write a number by a mask of columns": lambda x: put(x, (slice(None), x[0] > 1), 0),
    "a column in place": lambda x: add(x, (slice(None), 1), x[:, 0]),
    "positions in place": lambda x: add(x, AT, 10),
    "accumulated": lambda x: x.index_put_((torch.tensor([0, 0]),), torch.ones(2, 4), accumulate=True),
    "a diagonal": lambda x: x.diagonal().mul_(3),
    "through a diagonal of a transpose": lambda x: put(x.t().diagonal(1), slice(None), 9),
}


@pytest.mark.parametrize("case", CASES)
def test_indexing_reads_and_writes_what_torch_does(births: Pointer, case: str) -> None:
    here, run = LOCAL.clone(), CASES[case]
    expected = run(here)
    assert_same(run(births).get(), expected)
    assert_same(births.get(), here)


def test_a_local_mask_travels_as_positions(node: LocalNode, births: Pointer) -> None:
    births[MASK]
    assert [tensor.tolist() for tensor in node.constants.values()] == [[0, 2]]


def test_positions_that_do_not_exist_are_told_here(births: Pointer) -> None:
    for run in (
        lambda: births[torch.tensor([3])],
        lambda: births[:, [-5]],
        lambda: births.index_select(0, torch.tensor([3])),
        lambda: births.gather(1, torch.tensor([[4]])),
        lambda: births.index_fill_(0, torch.tensor([7]), 0.0),
        lambda: torch.nn.functional.embedding(torch.tensor([3]), births),
        lambda: births[torch.tensor([True, False])],
    ):
        with pytest.raises(IndexError):
            run()


def test_a_mask_on_the_node_chooses_no_number_of_rows(births: Pointer) -> None:
    for run in (
        lambda: births[births > 0],
        lambda: births[births[:, 0] > 0, 1],
        lambda: put(births, births > 0, torch.ones(12)),
        lambda: births.index_put_((births > 0,), torch.tensor(1.0), accumulate=True),
    ):
        with pytest.raises(OperationNotAllowedError, match=r"torch\.where"):
            run()
