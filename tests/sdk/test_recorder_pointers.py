"""A pointer is a tensor to torch, and tells its reader all that is public and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gridclient.recorder import Pointer, Recorder
from gridclient.wire.errors import LimitExceededError
from tests.sdk.local_node import LocalNode

INFO = SimpleNamespace(
    name="february-births",
    description="Births of February.",
    tags=["#February"],
    columns=["weight_kg", "height_cm"],
    bounds=([0.5, 30.0], [6.0, 60.0]),
    mock=torch.zeros(84, 2),
)


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


@pytest.fixture
def births(node: LocalNode) -> Pointer:
    node.assets["id-1"] = torch.arange(168.0).reshape(84, 2)
    return node.recorder.input_asset("id-1", 3, (84, 2), torch.float32, info=INFO)


def test_a_pointer_is_a_tensor_with_public_shape_dtype_and_length(births: Pointer) -> None:
    assert isinstance(births, torch.Tensor)
    assert births.shape == (84, 2)
    assert births.dtype is torch.float32
    assert births.device.type == "cpu"
    assert len(births) == 84
    assert births.numel() == 168
    assert births.stride() == (2, 1)
    assert births.t().stride() == (1, 2)
    assert births.nbytes == 672


def test_a_dataset_pointer_carries_its_metadata_and_a_computed_one_only_its_place(
    node: LocalNode, births: Pointer
) -> None:
    assert births.location is node
    assert births.dataset == "february-births"
    assert births.description == INFO.description
    assert births.tags == INFO.tags
    assert births.columns == INFO.columns
    assert births.bounds == INFO.bounds
    assert births.mock is INFO.mock
    mean = births.mean(0)
    assert isinstance(mean, Pointer)
    assert mean.location is node
    for name in ("description", "tags", "columns", "bounds", "mock"):
        assert not hasattr(mean, name)
    with pytest.raises(AttributeError, match="dataset"):
        _ = mean.tags


def test_repr_shows_where_a_value_is_and_what_it_comes_from(node: LocalNode, births: Pointer) -> None:
    other = node.publish(torch.ones(2), "ages")
    expected = "Pointer(shape=[84, 2], dtype=float32, node='hospital', dataset='{}')"
    assert repr(births) == str(births) == f"{births}" == expected.format("february-births")
    assert repr(births * 2 + other) == expected.format("ages, february-births")
    sent = node.recorder.input_constant(torch.ones(1, requires_grad=True))
    assert repr(sent) == "Pointer(shape=[1], dtype=float32, node='hospital', requires_grad=True)"


def test_get_and_request_go_to_the_node_with_the_present_value(node: LocalNode, births: Pointer) -> None:
    column = births[:, 0]
    assert column.sum().get() == sum(range(0, 168, 2))
    births.zero_()
    assert column.get().sum() == 0
    assert isinstance(column, Pointer)
    assert column.request("Monthly report") == "request 1"
    assert node.asked == [(column.ref, "Monthly report")]


def test_count_is_a_node_of_its_own(node: LocalNode, births: Pointer) -> None:
    count = births.count()
    assert (count.shape, count.dtype, count.get()) == ((), torch.int64, 84)
    assert node.program[count.ref.node].op == "grid::count"
    assert node.recorder.count(births).dataset == "february-births"


def test_columns_of_a_table_are_pointers_and_the_table_is_none(node: LocalNode) -> None:
    table = node.recorder.input_table("id-2", 1, info=INFO)
    weight = node.recorder.table_column(table, "weight_kg", (84,), torch.float64)
    both = node.recorder.table_column(table, ["weight_kg", "height_cm"], (84, 2), torch.float64)
    assert isinstance(weight, Pointer)
    assert weight.dataset == both.dataset == "february-births"
    assert node.recorder.count(table).dtype is torch.int64
    assert [(one.op, one.args[1:]) for one in node.program.values()] == [
        ("grid::asset", [1, "values"]),
        ("grid::column", ["weight_kg"]),
        ("grid::columns", [["weight_kg", "height_cm"]]),
        ("grid::count", []),
    ]


def test_rows_can_be_unpacked_and_looped_over_up_to_a_limit(births: Pointer) -> None:
    assert [row.get().tolist() for row in births[:2]] == [[0, 1], [2, 3]]
    first, second = births[0]
    assert (second - first).get() == 1
    with pytest.raises(LimitExceededError):
        list(births.expand(12, 84, 2).reshape(-1))


def test_a_data_loader_takes_batches_of_a_pointer(births: Pointer) -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(births), batch_size=50)
    sizes = [batch.shape for (batch,) in loader]
    assert sizes == [(50, 2), (34, 2)]


def test_only_the_recorder_makes_pointers() -> None:
    with pytest.raises(TypeError, match="search"):
        Pointer(torch.ones(2))


def test_a_pointer_can_be_a_parameter_and_a_key(births: Pointer) -> None:
    parameter = torch.nn.Parameter(births)
    assert isinstance(parameter, Pointer)
    assert isinstance(parameter, torch.nn.Parameter)
    assert parameter.requires_grad
    assert {births: 1}[births] == 1


def test_two_recorders_do_not_share_programs() -> None:
    nodes = [LocalNode(), LocalNode()]
    for node in nodes:
        node.publish(torch.ones(2)).sum()
    assert [len(node.program) for node in nodes] == [2, 2]
    assert isinstance(nodes[0].recorder, Recorder)
