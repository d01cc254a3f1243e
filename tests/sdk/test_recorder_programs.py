"""What the recorder writes: functional, exact in dtypes and constants, and no more than was asked."""

from __future__ import annotations

import gc
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gridclient.program.graph import CONSTANT, Ref, program_hashes
from gridclient.program.operations import OPERATIONS
from gridclient.recorder import Pointer
from gridclient.recorder.rules import rule_of
from gridclient.recorder.tape import operation
from gridclient.wire.errors import OperationNotAllowedError
from tests.sdk.local_node import LocalNode, assert_same


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


@pytest.fixture
def births(node: LocalNode) -> Pointer:
    return node.publish(torch.arange(12.0).reshape(3, 4))


def names(node: LocalNode) -> list[str]:
    return [one.op.removeprefix("aten::") for one in node.program.values()]


def test_a_slice_and_a_sum_are_two_nodes_and_a_whole_slice_is_none(node: LocalNode, births: Pointer) -> None:
    births[:, 0].sum()
    births[:][..., :]
    assert names(node) == ["grid::asset", "select.int", "sum"]


def test_a_node_names_the_line_where_the_user_wrote_it(node: LocalNode, births: Pointer) -> None:
    frame = inspect.currentframe()
    assert frame is not None
    F.linear(births, torch.ones(2, 4))
    line = frame.f_lineno - 1
    assert node.program[max(node.program)].line == f"test_recorder_programs.py:{line}"


# --- dtypes ---------------------------------------------------------------------------------------------------------

SCALARS = [1, 1.0, True, 0, -0.0, 2**40, 0.1, float("inf"), float("nan")]
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
PROMOTED: dict[str, Callable[[Any, Any], Any]] = {
    "x + s": lambda x, s: x + s,
    "x * s": lambda x, s: x * s,
    "s - x": lambda x, s: s - x,
    "x / s": lambda x, s: x / s,
    "x == s": lambda x, s: x == s,
    "x + tensor(s)": lambda x, s: x + torch.tensor(s),
    "where": lambda x, s: torch.where(x > 0, x, s),
    "full_like": lambda x, s: torch.full_like(x, s),
    "fill": lambda x, s: x.clone().fill_(s),
    "x += s": lambda x, s: x.clone().add_(s),
    "x[0] = s": lambda x, s: assigned(x.clone(), s),
}


def assigned(x: Any, s: Any) -> Any:
    x[0] = s
    return x


@pytest.mark.parametrize("case", PROMOTED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_promote_as_in_torch_whichever_was_seen_first(node: LocalNode, dtype: torch.dtype, case: str) -> None:
    here = torch.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype)
    there = node.publish(here)
    for scalar in (*SCALARS, *reversed(SCALARS)):
        try:
            expected = PROMOTED[case](here, scalar)
        except RuntimeError:
            with pytest.raises(RuntimeError):
                PROMOTED[case](there, scalar).get()
        else:
            assert_same(PROMOTED[case](there, scalar).get(), expected)


def test_another_default_dtype_here_gives_the_same_result_or_an_error(node: LocalNode) -> None:
    whole, real = node.publish(torch.tensor([1, 2])), node.publish(torch.tensor([1.0, 2.0], dtype=torch.float64))
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(OperationNotAllowedError, match="default dtype"):
            whole * 1.5
        assert (real * 1.5).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (whole * 1.5).dtype is torch.float32


# --- constants ------------------------------------------------------------------------------------------------------


def test_a_local_tensor_is_taken_as_it_was_when_it_was_used(births: Pointer) -> None:
    weights = torch.ones(4)
    array = weights.numpy()
    first = births * weights
    weights.mul_(2)
    second = births * weights
    array[:] = 3
    third = births * weights
    local = torch.arange(12.0).reshape(3, 4)
    assert [torch.equal(x.get(), local * k) for x, k in ((first, 1), (second, 2), (third, 3))] == [True] * 3


def test_an_equal_constant_is_sent_once_and_named_once(node: LocalNode, births: Pointer) -> None:
    births * torch.ones(4)
    births + torch.ones(4)
    assert names(node).count(CONSTANT) == 1
    for number in range(40):  # the node may free the first one, but has its bytes
        births + torch.tensor(float(number))
    first = next(one.id for one in node.program.values() if one.op == CONSTANT)
    assert Ref(first) in node.dropped
    births - torch.ones(4)
    assert len(node.constants) == 41
    assert names(node).count(CONSTANT) == 42


def test_constants_differ_by_dtype_and_shape(node: LocalNode, births: Pointer) -> None:
    kept = [births + torch.zeros(4), births + torch.zeros(1, 4), births + torch.zeros(4, dtype=torch.int32)]
    assert len(kept) == len(node.constants) == 3


@pytest.mark.parametrize(
    "local",
    [
        torch.arange(12.0).reshape(4, 3).t(),
        torch.arange(24.0).reshape(3, 8)[:, ::2],
        torch.ones(1, 4).expand(3, 4),
        torch.zeros(3, 0)[:, :0].sum(),
        torch.tensor(2.0),
        torch.tensor([[True, False, True, True]]),
        torch.ones(3, 4, dtype=torch.bfloat16),
        torch.ones(4, requires_grad=True),
        torch.nn.Parameter(torch.ones(4)),
    ],
    ids=["transposed", "strided", "expanded", "of nothing", "number", "bool", "bfloat16", "leaf", "parameter"],
)
def test_constants_of_any_layout_and_dtype_arrive_as_they_are(births: Pointer, local: torch.Tensor) -> None:
    assert_same((births * local).get(), torch.arange(12.0).reshape(3, 4) * local)


def test_an_empty_constant_is_a_constant(node: LocalNode) -> None:
    empty = node.recorder.input_constant(torch.zeros(0, 3))
    assert torch.cat([empty, torch.ones(1, 3)]).get().tolist() == [[1, 1, 1]]


def test_a_transposed_weight_is_the_same_constant_as_the_weight(node: LocalNode, births: Pointer) -> None:
    weight = torch.arange(8.0).reshape(2, 4)
    kept = [F.linear(births, weight), (births[:, :2] @ weight)]
    assert len(kept) == 2
    assert len(node.constants) == 1


# --- functional -----------------------------------------------------------------------------------------------------


def test_no_operation_of_the_table_writes_to_an_input_or_takes_out() -> None:
    for name in OPERATIONS:
        if name.startswith("aten::"):
            schema = operation(name).call._schema
            assert not schema.is_mutable
            assert not any(argument.is_out for argument in schema.arguments)
            assert operation(name).call.name() == name
            rule_of(operation(name).call)


def test_an_old_view_shows_a_later_write_and_an_old_result_does_not(births: Pointer) -> None:
    row, total, alias = births[0], births.sum(), births.detach()
    births.t()[0, 0] = 100
    assert row.get().tolist() == [100, 1, 2, 3]
    assert alias.get()[0, 0] == 100
    assert total.get() == 66
    assert births.sum().get() == 166


def test_writing_private_values_into_a_sent_tensor_makes_a_new_value_of_this_program_only(node: LocalNode) -> None:
    private, sent = node.publish(torch.ones(3)), node.recorder.input_constant(torch.zeros(3))
    before = sent.ref
    sent[1:].copy_(private[1:])
    assert sent.get().tolist() == [0, 1, 1]
    assert sent.dataset == "births"
    assert node.get(before, None).tolist() == [0, 0, 0]


def test_memory_without_contents_is_zeros(births: Pointer) -> None:
    for fresh in (torch.empty_like(births), births.new_empty(3, 4), births.new_empty_strided((3, 4), (4, 1))):
        assert_same(fresh.get(), torch.zeros(3, 4))


def test_inference_mode_records_the_same_as_no_grad(node: LocalNode, births: Pointer) -> None:
    weight = torch.arange(8.0).reshape(2, 4)

    def work() -> torch.Tensor:
        return F.linear(births, weight).reshape(-1)[1:].softmax(0) @ torch.ones(5, 2)

    with torch.no_grad():
        one = work()
    with torch.inference_mode():
        two = work()
        refs = [one.ref.node, two.ref.node]
        two[0] = 3
    two += 1
    hashes = program_hashes(node.program.values())
    assert hashes[refs[0]] == hashes[refs[1]]
    assert two.get()[0] == 4


def test_gradients_of_what_the_table_holds_are_recorded(births: Pointer) -> None:
    local = torch.arange(12.0).reshape(3, 4)
    here, there = (torch.arange(4.0).requires_grad_() for _ in range(2))
    (((local * here) @ here - 1) ** 2).mean().backward()
    (((births * there) @ there - 1) ** 2).mean().backward()
    assert isinstance(there.grad, Pointer)
    assert here.grad is not None
    assert_same(there.grad.get(), here.grad)


def test_a_sent_leaf_collects_its_gradient(node: LocalNode, births: Pointer) -> None:
    weight = node.recorder.input_constant(torch.ones(4, requires_grad=True))
    assert weight.is_leaf
    for _ in range(2):
        (births @ weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.get().tolist() == [24, 30, 36, 42]
    with torch.no_grad():
        weight -= 0.5 * weight.grad
    weight.grad.zero_()
    assert weight.get().tolist() == [-11, -14, -17, -20]


def test_a_long_chain_of_views_can_still_be_derived(births: Pointer) -> None:
    view: torch.Tensor = births
    for _ in range(3000):
        view = view.t()
    births.add_(1)
    assert view.get()[0, 0] == 1
    view[0, 0] = 7
    assert births.get()[0, 0] == 7


# --- what the node may forget ---------------------------------------------------------------------------------------


def test_the_node_hears_which_values_nobody_holds(node: LocalNode, births: Pointer) -> None:
    total = births.sum()
    ref = total.ref
    assert node.dropped == []
    del total
    assert node.dropped == [ref]
    row, before = births[0], births.ref
    held = row.ref
    births.add_(1)
    assert before in node.dropped
    assert row.ref != held
    assert held in node.dropped
    mean = (births * 2).mean()
    assert mean.ref not in node.dropped
    assert mean.get() == 13


def test_a_gradient_that_torch_does_not_ask_for_is_held_by_nobody(node: LocalNode) -> None:
    """Or a node would keep the gradients of a first layer for every step of a training."""
    x = node.recorder.input_constant(torch.rand(1, 1, 5, 5))
    weight = node.recorder.input_constant(torch.rand(1, 1, 3, 3).requires_grad_())
    F.conv2d(x, weight).sum().backward()
    (backward,) = (entry for entry in node.program.values() if entry.op == "aten::convolution_backward")
    assert Ref(backward.id, 0) in node.dropped
    assert Ref(backward.id, 1) not in node.dropped


def test_an_alias_keeps_its_value_alive(node: LocalNode, births: Pointer) -> None:
    made = births * 2
    ref = made.ref
    row = made.detach()[0]
    del made
    gc.collect()
    assert ref not in node.dropped
    assert row.get().tolist() == [0, 2, 4, 6]
    del row
    assert ref in node.dropped


# --- lineage --------------------------------------------------------------------------------------------------------


def test_the_same_work_in_two_sessions_has_one_name_and_other_work_another(node: LocalNode, births: Pointer) -> None:
    def work(x: torch.Tensor, factor: float) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = (x[1:, 0] * factor + torch.ones(2)).mean()
        assert isinstance(made, Pointer)
        there: LocalNode = made.location
        return program_hashes(there.program.values())[made.ref.node]

    other = LocalNode("hospital")
    other.recorder.input_constant(torch.ones(7))
    again = other.publish(torch.zeros(3, 4))
    assert work(births, 2.0) == work(again, 2.0)
    assert len({work(births, 2.0), work(births, 2), work(births, 2.5)}) == 3
