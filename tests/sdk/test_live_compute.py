"""Plain torch on pointers of a live node gives what torch gives here, bit for bit, in whatever size it travels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import gridclient
from gridclient.node import Node
from gridclient.program.graph import Node as ProgramNode
from gridclient.program.operations import OPERATIONS
from tests.factories.crew import fresh, refused, sent

Tensor = torch.Tensor
Case = Callable[[Tensor, Tensor], Any]
generator = torch.Generator().manual_seed(5)
A = torch.randn(6, 4, generator=generator, dtype=torch.float64)
WEIGHTS = torch.randn(4, 3, generator=generator, dtype=torch.float64)
PICKED = torch.tensor([2, 0, 2])
aten = torch.ops.aten
# Torch takes it apart before a recorder sees it.
DECOMPOSED = {"isfinite"}


def written(call: Callable[[Tensor], Any]) -> Case:
    """A case that writes into a copy."""

    def case(a: Tensor, b: Tensor) -> Tensor:
        copy = a.clone()
        call(copy)
        return copy

    return case


def assign(where: Any, what: Any) -> Case:
    return written(lambda x: x.__setitem__(where, what))


# `a` is float64 [6, 4], `b` int64 [6, 4], both on the node; each case holds the operation that names it.
CASES: dict[str, Case] = {
    "add.Tensor": lambda a, b: a + b,
    "sub.Tensor": lambda a, b: a - 2 * a,
    "rsub.Scalar": lambda a, b: 1.5 - a,
    "mul.Tensor": lambda a, b: a * b,
    "div.Tensor": lambda a, b: a / (b + 1),
    "pow.Tensor_Scalar": lambda a, b: a**3,
    "pow.Tensor_Tensor": lambda a, b: a.abs() ** b,
    "pow.Scalar": lambda a, b: 2.0**a,
    "neg": lambda a, b: -a,
    "abs": lambda a, b: a.abs(),
    "exp": lambda a, b: a.exp(),
    "log": lambda a, b: a.abs().log(),
    "log1p": lambda a, b: torch.log1p(a.abs()),
    "sqrt": lambda a, b: a.abs().sqrt(),
    "rsqrt": lambda a, b: a.abs().rsqrt(),
    "reciprocal": lambda a, b: a.reciprocal(),
    "sign": lambda a, b: a.sign(),
    "floor": lambda a, b: a.floor(),
    "ceil": lambda a, b: a.ceil(),
    "round": lambda a, b: a.round(),
    "sin": lambda a, b: a.sin(),
    "cos": lambda a, b: a.cos(),
    "tanh": lambda a, b: a.tanh(),
    "sigmoid": lambda a, b: a.sigmoid(),
    "relu": lambda a, b: torch.relu(a),
    "isnan": lambda a, b: torch.isnan(a / 0 * 0),
    "isfinite": lambda a, b: torch.isfinite(a / b),
    "clamp": lambda a, b: a.clamp(-0.5, 0.5),
    "clamp.Tensor": lambda a, b: a.clamp(torch.tensor(-0.5), torch.tensor(0.5)),
    "clamp_min": lambda a, b: torch.clamp_min(a, 0.25),
    "clamp_max": lambda a, b: torch.clamp_max(a, 0.25),
    "minimum": lambda a, b: torch.minimum(a, a.flip(0)),
    "maximum": lambda a, b: torch.maximum(a, a.flip(0)),
    "where.self": lambda a, b: torch.where(a > 0, a, b),
    "_to_copy": lambda a, b: a.to(torch.float32),
    "logical_and": lambda a, b: torch.logical_and(a > 0, b > 1),
    "logical_or": lambda a, b: torch.logical_or(a > 0, b > 1),
    "logical_not": lambda a, b: torch.logical_not(b),
    "bitwise_and.Tensor": lambda a, b: (a > 0) & (b > 1),
    "bitwise_or.Tensor": lambda a, b: b | (b + 1),
    "bitwise_not": lambda a, b: ~(a > 0),
    "eq.Tensor": lambda a, b: b == b.flip(1),
    "eq.Scalar": lambda a, b: b == 2,
    "ne.Tensor": lambda a, b: b != b.flip(1),
    "ne.Scalar": lambda a, b: b != 2,
    "lt.Tensor": lambda a, b: a < b,
    "lt.Scalar": lambda a, b: a < 0.5,
    "le.Tensor": lambda a, b: a <= b,
    "le.Scalar": lambda a, b: b <= 2,
    "gt.Tensor": lambda a, b: a > b,
    "gt.Scalar": lambda a, b: a > 0.5,
    "ge.Tensor": lambda a, b: a >= b,
    "ge.Scalar": lambda a, b: b >= 2,
    "sum": lambda a, b: a.sum(),
    "sum.dim_IntList": lambda a, b: a.sum((0, 1), keepdim=True),
    "mean": lambda a, b: a.mean(),
    "mean.dim": lambda a, b: a.mean(1),
    "var.correction": lambda a, b: a.var(0),
    "std.correction": lambda a, b: a.std(1, correction=0),
    "amax": lambda a, b: a.amax(0),
    "amin": lambda a, b: a.amin((0, 1)),
    "max": lambda a, b: a.max(),
    "max.dim": lambda a, b: a.max(0),
    "min": lambda a, b: b.min(),
    "min.dim": lambda a, b: a.min(1),
    "argmax": lambda a, b: a.argmax(1),
    "argmin": lambda a, b: a.argmin(),
    "sort": lambda a, b: a.sort(0, descending=True),
    "sort.stable": lambda a, b: torch.sort(b, dim=1, stable=True),
    "median": lambda a, b: a.median(),
    "median.dim": lambda a, b: a.median(0),
    "_softmax": lambda a, b: a.softmax(1),
    "_log_softmax": lambda a, b: torch.nn.functional.log_softmax(a, dim=-1),
    "mm": lambda a, b: a @ WEIGHTS,
    "mv": lambda a, b: a @ WEIGHTS[:, 0],
    "bmm": lambda a, b: torch.bmm(a.view(2, 3, 4), a.view(2, 3, 4).transpose(1, 2)),
    "dot": lambda a, b: torch.dot(a[0], a[1]),
    "addmm": lambda a, b: torch.nn.functional.linear(a, WEIGHTS.t(), torch.ones(3, dtype=torch.float64)),
    "select.int": lambda a, b: a[2],
    "slice.Tensor": lambda a, b: a[1:5:2],
    "index_select": lambda a, b: a.index_select(0, PICKED),
    "cat": lambda a, b: torch.cat([a, b]),
    "stack": lambda a, b: torch.stack([a, a + 1], dim=1),
    "t": lambda a, b: a.t().contiguous(),
    "transpose.int": lambda a, b: a.view(2, 3, 4).transpose(0, 2) * 2,
    "permute": lambda a, b: a.view(2, 3, 4).permute(2, 0, 1).exp(),
    "view": lambda a, b: a.view(3, 8).sum(0),
    "_unsafe_view": lambda a, b: aten._unsafe_view(a.exp(), [3, 8]),
    "expand": lambda a, b: a[0].expand(3, 4) + 1,
    "unsqueeze": lambda a, b: a.unsqueeze(1) + b,
    "squeeze.dim": lambda a, b: a[:1].squeeze(0),
    "squeeze.dims": lambda a, b: a[:1, :1].squeeze(),
    "clone": lambda a, b: a.t().clone(memory_format=torch.contiguous_format),
    "flip": lambda a, b: a.flip(0, 1),
    "select_scatter": assign(1, 7.5),
    "slice_scatter": assign(slice(1, 5, 2), -1.0),
    "zeros_like": lambda a, b: torch.zeros_like(a),
    "ones_like": lambda a, b: torch.ones_like(a) + a,
    "full_like": lambda a, b: torch.full_like(a, 2.5),
}
NOTEBOOK: dict[str, Case] = {
    "columns written in place": assign((slice(None), 1), torch.arange(6.0)),
    "rows swapped by a view": written(lambda x: x[0].copy_(x[5])),
    "a view sees what was written": lambda a, b: _written_below(a),
    "in place through a transpose": written(lambda x: x.t()[2:].mul_(2)),
    "augmented assignment": written(lambda x: x[1:3].add_(x[3:5])),
    "masks and casts": written(lambda x: x.mul_((x > 0).to(x.dtype))),
    "a standard score": lambda a, b: (a - a.mean(0)) / a.std(0),
    "a linear model": lambda a, b: torch.sigmoid(torch.relu(a @ WEIGHTS).mean(0)),
    "a loop over rows": lambda a, b: torch.stack([row.sum() for row in a]),
    "chunks and splits": lambda a, b: torch.cat(a.chunk(3)[::-1]) - torch.cat(a.split([2, 4])),
    "float32": lambda a, b: (a.float() @ WEIGHTS.float()).softmax(-1),
    "einsum": lambda a, b: torch.einsum("ij,kj->ik", a, a),
    "covariance": lambda a, b: (a - a.mean(0)).t() @ (a - a.mean(0)) / 5,
}


def _written_below(a: Tensor) -> Tensor:
    copy = a.clone()
    view = copy[:, 1:3]
    copy += 1
    return view * 2


class Shared:
    """The two inputs: published by the owner, read by the scientist."""

    def __init__(self, owner: Node, scientist: Node) -> None:
        self.local = A, (A * 3).abs().long() % 4
        names = [
            gridclient.private_tensor(values, name=fresh("inputs"), allowed_users=[scientist.user]).send(owner).dataset
            for values in self.local
        ]
        self.remote = [scientist.dataset(name).pointer() for name in names]


@pytest.fixture(scope="session")
def shared(owner: Node, scientist: Node) -> Shared:
    return Shared(owner, scientist)


def same(there: Any, here: Any) -> None:
    """Same dtype, shape and bits."""
    if isinstance(here, tuple):
        for one, other in zip(there, here, strict=True):
            same(one, other)
        return
    got = there.get()
    assert type(got) is torch.Tensor
    assert (got.dtype, got.shape) == (here.dtype, here.shape)
    assert torch.equal(got.view(torch.uint8), here.contiguous().view(torch.uint8)) if here.dim() else _equal(got, here)


def _equal(got: Tensor, here: Tensor) -> bool:
    return torch.equal(got.reshape(1).view(torch.uint8), here.reshape(1).view(torch.uint8))


def test_every_case_is_one_of_the_table() -> None:
    assert {f"aten::{name}" for name in CASES} <= OPERATIONS


@pytest.mark.parametrize("name", CASES)
def test_operation_on_the_node_gives_what_torch_gives(
    shared: Shared, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[str] = []
    append = Node.append

    def spy(self: Node, node: ProgramNode) -> None:
        recorded.append(node.op)
        append(self, node)

    monkeypatch.setattr(Node, "append", spy)
    case = CASES[name]
    there = case(*shared.remote)
    same(there, case(*shared.local))
    assert f"aten::{name}" in recorded or name in DECOMPOSED


@pytest.mark.parametrize("name", NOTEBOOK)
def test_notebook_gives_what_it_gives_here(shared: Shared, name: str) -> None:
    same(NOTEBOOK[name](*shared.remote), NOTEBOOK[name](*shared.local))


def test_writing_in_place_does_not_change_the_dataset(shared: Shared, scientist: Node) -> None:
    pointer = scientist.dataset(shared.remote[0].dataset).pointer()
    pointer.zero_()
    assert torch.equal(pointer.get(), torch.zeros_like(A))
    same(scientist.dataset(pointer.dataset).pointer(), A)


def test_mistake_is_named_with_the_line_that_holds_it(shared: Shared) -> None:
    a, b = shared.remote
    with pytest.raises((RuntimeError, gridclient.ShapeError)) as early:
        a @ a
    assert "6x4 and 6x4" in str(early.value) or "6, 4" in str(early.value)
    one = a[0, 0]
    bad = one.expand(2**20, 2**20).exp()  # this line
    with pytest.raises(gridclient.LimitExceededError, match=r"test_live_compute\.py:\d+") as late:
        (bad + 1).get()
    number = int(str(late.value).rsplit("test_live_compute.py:", 1)[1].split(")")[0])
    assert "# this line" in Path(__file__).read_text().splitlines()[number - 1]
    # The session goes on.
    same(a + 1, A + 1)


def test_what_reads_memory_says_what_to_do_instead(shared: Shared) -> None:
    for mistake in (lambda x: float(x.sum()), lambda x: x.tolist(), lambda x: bool(x.sum() > 0), lambda x: x.numpy()):
        with pytest.raises(gridclient.RemoteValueError, match=r"\.get\(\)"):
            mistake(shared.remote[0])
    with pytest.raises(gridclient.OperationNotAllowedError, match="bincount"):
        torch.bincount(shared.remote[0].long())


def test_columns_of_a_table_compute_as_in_pandas(owner: Node, scientist: Node) -> None:
    frame = pd.DataFrame(
        {
            "weight": [2.5 + row / 7 for row in range(30)],
            "days": [float(270 + row % 20) for row in range(30)],
            "ward": ["north", "south", "east"] * 10,
            "twin": [row % 5 == 0 for row in range(30)],
        }
    )
    table = gridclient.private_table(
        frame, name=fresh("wards"), categories={"ward": ["east", "north", "south"]}, allowed_users=[scientist.user]
    )
    t = scientist.dataset(table.send(owner).dataset).pointer()
    assert t["weight"].max().get() == frame["weight"].max()
    torch.testing.assert_close(t["weight"].std().get().item(), frame["weight"].std())
    south = t["ward"] == 2
    assert south.sum().get() == (frame["ward"] == "south").sum()
    expected = frame["weight"][frame["ward"] == "south"].mean()
    mean = (t["weight"] * south).sum() / south.sum()
    assert mean.get().item() == pytest.approx(expected, rel=1e-14)
    assert t["twin"].sum().get() == frame["twin"].sum()
    assert t[["weight", "days"]].mean(0).get().tolist() == pytest.approx(frame[["weight", "days"]].mean().tolist())
    days: Any = torch.where(t["twin"], t["days"], 0.0).sum()
    assert days.get() == frame["days"][frame["twin"]].sum()
    whole = t.get().to_pandas()
    assert whole["ward"].tolist() == frame["ward"].tolist()
    assert whole[["weight", "days", "twin"]].equals(frame[["weight", "days", "twin"]])
    with pytest.raises(gridclient.InvalidInputError, match="'weight', 'days', 'ward', 'twin'"):
        t["wieght"]


@pytest.mark.parametrize("nbytes", [4096, 4104, 64 * 1024, 64 * 1024 + 8, 2**20 + 8])
def test_constants_and_results_of_every_size_travel(shared: Shared, scientist: Node, nbytes: int) -> None:
    constant = torch.randn(nbytes // 8, dtype=torch.float64, generator=torch.Generator().manual_seed(nbytes))
    same(sent(constant, scientist) * 2, constant * 2)
    same(shared.remote[0].sum() + constant, A.sum() + constant)
    same(sent(constant, scientist).sum(), constant.sum())


def test_empty_and_scalar_values_travel(shared: Shared, scientist: Node) -> None:
    same(shared.remote[0][6:], A[6:])
    same(shared.remote[0][:, 4:].sum(0), A[:, 4:].sum(0))
    same(sent(torch.tensor(3), scientist) + 1, torch.tensor(4))
    same(sent(torch.empty(0, 3), scientist), torch.empty(0, 3))


def test_twenty_megabytes_go_up_and_come_down(scientist: Node) -> None:
    values = torch.arange(2_621_440, dtype=torch.float64)
    same(sent(values, scientist) + 1, values + 1)


def test_long_table_is_received_in_chunks(owner: Node) -> None:
    frame = pd.DataFrame({"a": [row / 3 for row in range(20_000)], "b": list(range(20_000))})
    whole = gridclient.private_table(frame, name=fresh("long")).send(owner).get()
    assert whole["a"].to_pylist() == frame["a"].tolist()


def test_wide_sums_are_aggregates_too(owner: Node, scientist: Node) -> None:
    wide = 1 + torch.rand(12, 257, dtype=torch.float64, generator=torch.Generator().manual_seed(12))
    records = gridclient.private_tensor(wide, name=fresh("wide"), bounds=([0] * 257, [2] * 257))
    dataset = owner.dataset(records.send(owner).dataset)
    dataset.grant(scientist.user, "aggregate", reason="As many sums as one answer may have.")
    pointer = scientist.dataset(dataset.name).pointer()
    same(pointer[:, 1:].sum(0), wide[:, 1:].sum(0))
    # The second time from the store.
    same(pointer[:, 1:].t().sum(1), wide[:, 1:].sum(0))
    refused(pointer.sum(0).get)


def test_long_loop_keeps_no_more_than_it_holds(scientist: Node) -> None:
    # 70 steps of 64 MB: more than a session may have.
    values = sent(torch.zeros(1, dtype=torch.float64), scientist).expand(8 * 2**20).contiguous()
    for _ in range(70):
        values = values + 1
    assert values[0].get() == 70


def test_value_that_stays_says_what_is_possible(owner: Node, scientist: Node) -> None:
    pointer = scientist.dataset(gridclient.private_tensor(A, name=fresh("closed")).send(owner).dataset).pointer()
    error = refused((pointer.exp() @ WEIGHTS).get)
    assert len(error.details["possible"]) == 3
    assert ".request(reason=...)" in str(error)
