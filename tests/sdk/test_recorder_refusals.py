"""Nobody reads a value through a pointer without `.get()`, crashes trying, or is refused without a reason."""

from __future__ import annotations

import copy
import io
import os
import pickle
import sys
import sysconfig
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gridclient.program.operations import OPERATIONS as OPERATIONS_OF_NODES
from gridclient.recorder import Pointer, rules, tape
from gridclient.wire.errors import (
    DifferentNodesError,
    GridError,
    InvalidInputError,
    LimitExceededError,
    OperationNotAllowedError,
    RemoteValueError,
    ShapeError,
)
from tests.sdk.local_node import LocalNode

Case = Callable[[Pointer, Pointer], Any]


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


@pytest.fixture
def births(node: LocalNode) -> Pointer:
    return node.publish(torch.arange(12.0).reshape(3, 4))


def save(x: Any) -> None:
    torch.save(x, io.BytesIO())


VALUES: dict[str, Case] = {
    "item": lambda x, s: s.item(),
    "item of Tensor": lambda x, s: torch.Tensor.item(s),
    "tolist": lambda x, s: x.tolist(),
    "numpy": lambda x, s: x.numpy(),
    "np.asarray": lambda x, s: np.asarray(x),
    "np.sum of a list": lambda x, s: np.array([s, s]),
    "numpy operand": lambda x, s: np.multiply(np.ones(4), x),
    "__array__": lambda x, s: x.__array__(),
    "from_dlpack": lambda x, s: torch.from_dlpack(x),
    "numpy from_dlpack": lambda x, s: np.from_dlpack(x),
    "data_ptr": lambda x, s: x.data_ptr(),
    "untyped_storage": lambda x, s: x.untyped_storage(),
    "storage": lambda x, s: x.storage(),
    "typed_storage": lambda x, s: x.typed_storage(),
    "share_memory_": lambda x, s: x.share_memory_(),
    "reduce": lambda x, s: x.__reduce_ex__(4),
    "pickle": lambda x, s: pickle.dumps(x),
    "torch.save": lambda x, s: save(x),
    "torch.save of a dict": lambda x, s: save({"x": [x]}),
    "deepcopy": lambda x, s: copy.deepcopy(x),
    "deepcopy of a list": lambda x, s: copy.deepcopy([x]),
    "copy": lambda x, s: copy.copy(x),
    "format": lambda x, s: f"{s:.2f}",
    "index": lambda x, s: [1, 2][s.to(torch.int64)],
    "range": lambda x, s: range(s.to(torch.int64)),  # type: ignore[arg-type]
    "as a size": lambda x, s: torch.zeros(s.to(torch.int64)),  # type: ignore[arg-type]
    "as a local index": lambda x, s: torch.zeros(3)[s.to(torch.int64)],
    "bool": lambda x, s: bool(s),
    "if": lambda x, s: 1 if s > 0 else 0,
    "int": lambda x, s: int(s),
    "float": lambda x, s: float(s),
    "complex": lambda x, s: complex(s),
    "round trip by tensor([p])": lambda x, s: torch.tensor([s]),
    "tensor([[p]])": lambda x, s: torch.tensor([[s, s]]),
    "max of Python": lambda x, s: max(x[0]),
    "sorted": lambda x, s: sorted([s, s + 1]),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_asked_of_a_pointer_is_a_remote_value_error(births: Pointer, case: str) -> None:
    with pytest.raises(RemoteValueError, match="get") as caught:
        VALUES[case](births, births.sum())
    assert isinstance(caught.value, RuntimeError)


OPERATIONS: dict[str, tuple[str, Case]] = {
    "nonzero": ("aten::nonzero", lambda x, s: x.nonzero()),
    "where of one argument": ("aten::nonzero", lambda x, s: torch.where(x > 0)),
    "remote mask": ("aten::index.Tensor", lambda x, s: x[x > 0]),
    "remote mask on a local tensor": ("aten::index.Tensor", lambda x, s: torch.ones(3, 4)[x > 0]),
    "masked_select": ("aten::masked_select", lambda x, s: x.masked_select(x > 0)),
    "write by a mask": ("aten::index_put_", lambda x, s: x.__setitem__(x > 0, torch.ones(3))),
    "write by a mask and a position": ("aten::index_put_", lambda x, s: x.__setitem__((x[:, 0] > 0, [1]), 0)),
    "unique": ("aten::_unique2", lambda x, s: x.unique()),
    "unique_consecutive": ("aten::unique_consecutive", lambda x, s: x.unique_consecutive()),
    "unique rows": ("aten::unique_dim", lambda x, s: x.unique(dim=0)),
    "bincount": ("aten::bincount", lambda x, s: x[0].to(torch.int64).bincount()),
    "equal": ("aten::equal", lambda x, s: torch.equal(x, x)),
    "out=": ("aten::add.out", lambda x, s: torch.add(x, 1, out=torch.zeros(3, 4))),
    "remote out=": ("aten::add.out", lambda x, s: torch.add(torch.ones(3, 4), 1, out=x)),
    "resize_": ("aten::resize_", lambda x, s: x.resize_(2)),
    "resize_ of Tensor": ("aten::resize_", lambda x, s: torch.Tensor.resize_(x, 2)),
    "set_": ("aten::set_", lambda x, s: x.set_(torch.zeros(3))),
    "set_ of Tensor": ("aten::set_.source_Tensor", lambda x, s: torch.Tensor.set_(x, torch.zeros(3))),
    "set_ of a local tensor": ("aten::set_.source_Tensor", lambda x, s: torch.zeros(3).set_(x)),
    "t_": ("aten::t_", lambda x, s: x.t_()),
    "transpose_": ("aten::transpose_", lambda x, s: x.transpose_(0, 1)),
    "squeeze_": ("aten::squeeze_", lambda x, s: x.squeeze_()),
    "unsqueeze_": ("aten::unsqueeze_", lambda x, s: x.unsqueeze_(0)),
    "expanded target": ("aten::add_.Tensor", lambda x, s: x.expand(2, 3, 4).add_(1)),
    "part of an expanded target": ("aten::zero_", lambda x, s: x.expand(2, 3, 4)[0].zero_()),
    "copy to a local tensor": ("aten::copy_", lambda x, s: torch.zeros(3, 4).copy_(x)),
    "add to a local tensor": ("aten::add_.Tensor", lambda x, s: torch.zeros(3, 4).add_(x)),
    "row of a local tensor": ("aten::copy_", lambda x, s: torch.zeros(3, 4).__setitem__(0, x[0])),
    "fill a local tensor": ("aten::fill_.Tensor", lambda x, s: torch.zeros(3).fill_(s)),
    "apply_": ("apply_", lambda x, s: x.apply_(lambda v: v)),
    "map_": ("map_", lambda x, s: x.map_(x, lambda v, w: v)),
    "a random operation without a composite": ("aten::multinomial", lambda x, s: torch.multinomial(x, 2)),
    "another random operation": ("aten::poisson", lambda x, s: torch.poisson(x)),
    "noise in training": ("aten::rrelu_with_noise", lambda x, s: torch.rrelu(x, training=True)),
    "uniform integers": ("aten::uniform_", lambda x, s: x.to(torch.int64).uniform_()),
    "an LSTM in one kernel": ("aten::mkldnn_rnn_layer", lambda x, s: torch.nn.LSTM(4, 2)(x)),
    "complex numbers": ("aten::view_as_complex", lambda x, s: torch.view_as_complex(x[:, :2].clone())),
    "numbers that become complex": ("aten::_fft_r2c", lambda x, s: torch.fft.rfft(x)),
    "windows": ("aten::unfold", lambda x, s: x.unfold(0, 2, 1)),
    "view of bits": ("aten::view.dtype", lambda x, s: x.view(torch.int32)),
    "as_strided": ("aten::as_strided", lambda x, s: x.as_strided((2,), (1,))),
    "another memory format": ("aten::clone", lambda x, s: x[None, None].clone(memory_format=torch.channels_last)),
    "sparse": ("aten::_to_sparse", lambda x, s: x.to_sparse()),
}


@pytest.mark.parametrize("case", OPERATIONS)
def test_an_operation_outside_the_table_is_refused_by_its_name(births: Pointer, case: str) -> None:
    name, run = OPERATIONS[case]
    with pytest.raises(OperationNotAllowedError) as caught:
        run(births, births.sum())
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.details["operation"] == name
    assert name in str(caught.value)


def test_a_refused_operation_writes_nothing_into_the_program(node: LocalNode, births: Pointer) -> None:
    before = len(node.program)
    with pytest.raises(OperationNotAllowedError):
        births.nonzero()
    with pytest.raises(ShapeError):
        births @ births
    assert len(node.program) == before


@pytest.mark.parametrize("target", ["parameter", "tensor", "pointer"])
def test_data_of_a_pointer_assigned_to_a_tensor_does_not_end_the_process(births: Pointer, target: str) -> None:
    tensors = {
        "parameter": torch.nn.Parameter(torch.zeros(3, 4)),
        "tensor": torch.zeros(3, 4),
        "pointer": births.clone(),
    }
    with pytest.raises(OperationNotAllowedError, match="data"):
        tensors[target].data = births
    with pytest.raises(OperationNotAllowedError, match="data"):
        births.data = torch.zeros(3, 4)


def test_data_of_a_pointer_assigned_to_itself_is_no_change_so_a_sent_model_may_be_moved_to_the_cpu(
    births: Pointer,
) -> None:
    model = torch.nn.Linear(4, 2)
    model._parameters["weight"] = births  # type: ignore[assignment]  # as a sent module holds it
    model.to("cpu").float()
    assert model.weight is births
    births.data = births.data
    row = births[0]
    for other in (births[1], births.double(), births.clone(), births.t()):
        with pytest.raises(OperationNotAllowedError, match=r"grid\.get\(module\) before"):
            row.data = other
    line = f"test_recorder_refusals.py:{sys._getframe().f_lineno + 2}"
    with pytest.raises(OperationNotAllowedError) as caught:
        model.double()
    assert caught.value.details["line"] == line


@pytest.mark.parametrize("folder", ["stdlib", "purelib", "platlib"])
def test_a_line_is_not_that_of_an_installed_package(births: Pointer, folder: str) -> None:
    given: dict[str, Any] = {}
    library = os.path.join(sysconfig.get_path(folder), "pandas", "frame.py")
    exec(compile("def read(x):\n    return x.item()", library, "exec"), given)
    with pytest.raises(RemoteValueError) as caught:
        given["read"](births)
    assert caught.value.details["line"] == f"test_recorder_refusals.py:{sys._getframe().f_lineno - 1}"


@pytest.mark.parametrize(
    "file", [os.path.join("ipykernel_7", "81.py"), "<stdin>", os.path.join(sys.prefix, "..", "src", "81.py")]
)
def test_a_line_is_that_of_a_cell_and_of_a_project_around_its_environment(births: Pointer, file: str) -> None:
    with pytest.raises(RemoteValueError) as caught:
        exec(compile("x.item()", file, "exec"), {"x": births})
    assert caught.value.details["line"] == f"{os.path.basename(file)}:1"


def test_data_of_ordinary_tensors_still_works_as_in_torch(births: Pointer) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.data = torch.ones(3)
    assert parameter.tolist() == [1, 1, 1]
    assert parameter.requires_grad
    parameter.data.mul_(2)
    assert parameter.tolist() == [2, 2, 2]
    with pytest.raises(TypeError):
        parameter.data = 3  # type: ignore[assignment]


def test_operands_on_two_nodes_are_named(births: Pointer) -> None:
    other = LocalNode("company").publish(torch.ones(3, 4))
    for run in (
        lambda: births + other,
        lambda: births.add_(other),
        lambda: torch.cat([births, other]),
        lambda: births.__setitem__(0, other[0]),
    ):
        with pytest.raises(DifferentNodesError, match=r"(?=.*hospital)(?=.*company)"):
            run()


def test_shapes_that_do_not_fit_are_told_while_recording(births: Pointer) -> None:
    for run in (
        lambda: births @ births,
        lambda: births + torch.ones(5),
        lambda: births.add_(torch.ones(2, 3, 4)),
        lambda: births.sum(5),
        lambda: births.view(5),
        lambda: torch.cat([births, torch.ones(1, 5)]),
        lambda: births.to(torch.int64).add_(0.5),
        lambda: births.copy_(torch.ones(5)),
    ):
        with pytest.raises(ShapeError) as caught:
            run()
        assert isinstance(caught.value, RuntimeError)
    with pytest.raises(IndexError):
        births[3]


def test_a_loop_over_many_rows_is_stopped_before_it_begins(node: LocalNode) -> None:
    rows = node.publish(torch.zeros(1001, 2))
    with pytest.raises(LimitExceededError) as caught:
        iter(rows)
    assert caught.value.details["limit"] == 1000
    assert len(list(rows[:1000])) == 1000
    with pytest.raises(TypeError):
        iter(rows.sum())


def test_a_program_that_grows_without_end_is_stopped(
    node: LocalNode, births: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape, "MAX_NODES", len(node.program) + 2)
    births.exp().exp()
    with pytest.raises(LimitExceededError, match="Connect again for a new session") as caught:
        births.exp()
    assert caught.value.details["limit"] == tape.MAX_NODES
    monkeypatch.setattr(tape, "MAX_NODES", 10**6)
    monkeypatch.setattr(tape, "MAX_PROGRAM_BYTES", node.recorder.tape.nbytes + 50)
    with pytest.raises(LimitExceededError, match=r"bytes\. Connect again"):
        births.exp().exp()


@pytest.mark.parametrize(
    "local",
    [
        torch.ones(3, 4).to_sparse(),
        torch.ones(3, 4, dtype=torch.complex64),
        torch.ones(3, 4, device="meta"),
    ],
    ids=["sparse", "complex", "meta"],
)
def test_a_local_tensor_that_cannot_travel_says_why(births: Pointer, local: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match="tensor"):
        births + local
    with pytest.raises(InvalidInputError):
        births.to(torch.complex64)
    with pytest.raises(GridError):
        torch.complex(births, births)


def test_no_error_and_no_text_holds_a_value(node: LocalNode) -> None:
    secret = node.publish(torch.full((2, 2), 8675309.0))
    texts = [repr(secret), str(secret), f"{secret}", repr(secret.sum())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for run in (*VALUES.values(), *(run for _, run in OPERATIONS.values())):
            try:
                run(secret, secret.sum())
            except Exception as error:
                texts.append(f"{error!r} {error.__cause__!r} {getattr(error, 'details', '')}")
    assert not any("8675309" in text for text in texts)


@pytest.mark.parametrize("case", ["remote mask", "t_", "operation", "value", "two nodes"])
def test_an_error_names_the_line_of_user_code(births: Pointer, case: str) -> None:
    run: dict[str, Callable[[], Any]] = {
        "remote mask": lambda: births[births > 0],
        "t_": lambda: births.t_(),
        "operation": lambda: births.nonzero(),
        "value": lambda: births.sum().item(),
        "two nodes": lambda: births + LocalNode("company").publish(torch.ones(3, 4)),
    }
    with pytest.raises(GridError) as caught:
        run[case]()
    line = f"test_recorder_refusals.py:{run[case].__code__.co_firstlineno}"
    assert caught.value.details["line"] == line
    assert str(caught.value).endswith(f"({line})")


def test_a_backward_through_an_operation_without_a_derivative_in_the_table_is_refused_by_name(
    births: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "OPERATIONS", OPERATIONS_OF_NODES - {"aten::sigmoid_backward"})
    monkeypatch.setattr(rules, "_rules", {})
    weights = torch.ones(4, requires_grad=True)
    loss = (births @ weights).sigmoid().sum()
    with pytest.raises(OperationNotAllowedError, match="sigmoid_backward"):
        loss.backward()
