"""Layers of networks on private data: what stays apart, what becomes TAINTED, and what nonsense turns into."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from apps.compute.labels import NOTHING, ROWS, TAINTED, Dependence, Label
from apps.compute.operations import TABLE
from apps.compute.readers.labels import judge
from apps.compute.rows import backward, networks
from apps.compute.targets import TARGETS
from gridclient.wire.errors import GridError
from tests.factories.operations import Sample, T

CONV = [[1, 1], [0, 0], [1, 1], False, [0, 0], 1]
STATISTICS = [0.1, 1e-5]
BY_STATISTICS = [T((3, 3)), None, None, T((3,)), T((3,)), 0.1, 1e-5]
ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"


def rows(axis: int = 0, sequence: str = "people") -> Label:
    return Label(ROWS, frozenset([Dependence(sequence, 1, None)]), axis, ("asset", sequence, 0))


def kinds(sample: Sample, *labels: Label) -> list[str]:
    return [label.kind for label in judge(sample.call(list(labels))).labels]


def run(op: str, *args: object) -> torch.Tensor:
    return TARGETS[f"aten::{op}"].call(*args)


@pytest.mark.parametrize(
    ("sample", "labels", "expected"),
    [
        (Sample("aten::convolution", [T((3, 3, 4, 4)), T((2, 3, 2, 2)), None, *CONV]), [rows(), NOTHING], [ROWS]),
        (Sample("aten::native_layer_norm", [T((3, 3)), [3], None, None, 1e-5]), [rows()], [ROWS] * 3),
        (
            Sample("aten::_native_batch_norm_legit_no_training", BY_STATISTICS),
            [rows(), NOTHING, NOTHING],
            [ROWS, TAINTED, TAINTED],
        ),
        (Sample("aten::embedding", [T((4, 3)), T((3,), "int64")]), [NOTHING, rows()], [ROWS]),
        (Sample(ATTENTION, [T((3, 2, 4, 3))] * 3), [rows()] * 3, [ROWS] * 2),
        (Sample("aten::mse_loss", [T((3, 3)), T((3, 3)), 0]), [rows(), rows()], [ROWS]),
        (
            Sample("aten::nll_loss_forward", [T((3, 3)), T((3,), "int64"), T((3,)), 0, 1]),
            [rows(), rows(), NOTHING],
            [ROWS, TAINTED],
        ),
        (Sample("aten::max_pool2d_with_indices", [T((3, 3, 4, 4)), [2]]), [rows()], [ROWS] * 2),
        (Sample("aten::constant_pad_nd", [T((3, 3)), [1, 1]]), [rows()], [ROWS]),
        (Sample("aten::gelu_backward", [T((3, 3)), T((3, 3))]), [NOTHING, rows()], [ROWS]),
    ],
)
def test_each_sample_by_itself_keeps_its_rows(sample: Sample, labels: list[Label], expected: list[str]) -> None:
    assert kinds(sample, *labels) == expected


@pytest.mark.parametrize(
    ("sample", "labels"),
    [
        # Private weights, tables, statistics.
        (Sample("aten::convolution", [T((3, 3, 4, 4)), T((3, 3, 2, 2)), None, *CONV]), [NOTHING, rows()]),
        (Sample("aten::convolution", [T((3, 3, 4, 4)), T((3, 3, 2, 2)), T((3,)), *CONV]), [rows(), NOTHING, rows()]),
        (Sample("aten::embedding", [T((3, 3)), T((3,), "int64")]), [rows(), NOTHING]),
        (Sample("aten::embedding", [T((3, 3)), T((3,), "int64")]), [rows(), rows()]),
        (Sample("aten::native_layer_norm", [T((3, 3)), [3], T((3,)), None, 1e-5]), [rows(), rows()]),
        (
            Sample("aten::_native_batch_norm_legit_no_training", BY_STATISTICS),
            [rows(), rows(), NOTHING],
        ),
        (Sample("aten::_prelu_kernel", [T((3, 3)), T((3, 3))]), [NOTHING, rows()]),
        (Sample("aten::nll_loss_forward", [T((3, 3)), T((3,), "int64"), T((3,)), 0, 1]), [rows(), rows(), rows()]),
        (Sample("aten::binary_cross_entropy", [T((3, 3)), T((3, 3)), T((3, 3)), 0]), [rows(), rows(), rows()]),
        # Training couples the batch; so does a reduced loss of rows that don't pair, or by private weights.
        (Sample("aten::_native_batch_norm_legit.no_stats", [T((3, 3)), None, None, True, *STATISTICS]), [rows()]),
        (Sample("aten::mse_loss", [T((3, 3)), T((3, 3)), 1]), [rows(), rows(1)]),
        (Sample("aten::binary_cross_entropy", [T((3, 3)), T((3, 3)), T((3, 3)), 1]), [rows(), rows(), rows()]),
        (Sample("aten::nll_loss_forward", [T((3, 3)), T((3,), "int64"), None, 2, -100]), [rows(), rows()]),
        (Sample("aten::embedding_dense_backward", [T((3, 3)), T((3,), "int64"), 3, -1, False]), [rows(), rows()]),
        # The rows lie elsewhere, or in a layout without a batch.
        (Sample("aten::convolution", [T((3, 3, 4, 4)), T((2, 3, 2, 2)), None, *CONV]), [rows(1), NOTHING]),
        (Sample("aten::max_pool2d_with_indices", [T((3, 4, 4)), [2]]), [rows()]),
        (Sample("aten::avg_pool3d", [T((3, 4, 4, 4)), [2]]), [rows()]),
        (Sample("aten::native_layer_norm", [T((3, 3)), [3], None, None, 1e-5]), [rows(1)]),
        (Sample("aten::constant_pad_nd", [T((3, 3)), [0, 0, 1, 0]]), [rows()]),
        (Sample("aten::glu", [T((4, 3)), 0]), [rows()]),
        (Sample("aten::_safe_softmax", [T((3, 3)), 0]), [rows()]),
        (Sample("aten::nll_loss_forward", [T((3,)), T((), "int64"), None, 0, -100]), [rows(), NOTHING]),
        (Sample(ATTENTION, [T((3, 2, 4, 3))] * 3), [rows(2), NOTHING, NOTHING]),
        (Sample(ATTENTION, [T((3, 2, 3, 3))] * 3, {"attn_mask": T((3, 3))}), [rows(), rows(), rows(), rows()]),
        # Other people at the same positions.
        (Sample("aten::mse_loss", [T((3, 3)), T((3, 3)), 0]), [rows(), rows(0, "others")]),
    ],
)  # fmt: skip
def test_what_mixes_people_is_tainted(sample: Sample, labels: list[Label]) -> None:
    assert set(kinds(sample, *labels)) == {TAINTED}


def test_a_gradient_keeps_rows_for_the_input_and_not_for_the_weights() -> None:
    sample = Sample(
        "aten::convolution_backward",
        [T((3, 2, 3, 3)), T((3, 3, 4, 4)), T((2, 3, 2, 2)), [2], *CONV, [True, True, True]],
    )
    assert kinds(sample, rows(), rows(), NOTHING) == [ROWS, TAINTED, TAINTED]


def test_evaluated_batch_norm_passes_gradients_by_rows_and_trained_does_not() -> None:
    c = T((3,))
    for train, saved in ((False, T((0,))), (True, c)):
        sample = Sample(
            "aten::native_batch_norm_backward",
            [T((3, 3)), T((3, 3)), c, c, c, saved, saved, train, 1e-5, [True, True, True]],
        )
        first = kinds(sample, rows(), rows(), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)[0]
        assert first == (TAINTED if train else ROWS)


def test_the_total_weight_is_not_looked_at_without_reduction() -> None:
    """Else its label would have to count, and every gradient of a loss over classes would be TAINTED."""
    scores, target, back = torch.rand(3, 4), torch.tensor([1, 0, 2]), torch.rand(3)
    made = [run("nll_loss_backward", back, scores, target, None, 0, -100, torch.tensor(total)) for total in (0.0, 7.0)]
    assert torch.equal(*made)
    plane, places, over = torch.rand(2, 4, 2, 2), torch.ones(2, 2, 2, dtype=torch.int64), torch.rand(2, 2, 2)
    made = [run("nll_loss2d_backward", over, plane, places, None, 0, -100, torch.tensor(total)) for total in (0.0, 7.0)]
    assert torch.equal(*made)


def test_positions_and_classes_that_do_not_exist() -> None:
    table = torch.ones(3, 2)
    assert run("embedding", table, torch.tensor([2, 3, -1, 2**40])).tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
    added = run("embedding_dense_backward", torch.ones(3, 2), torch.tensor([0, 3, -5]), 3, -1, True)
    assert added.tolist() == [[1, 1], [0, 0], [0, 0]]
    scores = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    loss, total = TARGETS["aten::nll_loss_forward"].call(scores, torch.tensor([0, 2**40]), None, 1, -100)
    assert (loss.item(), total.item()) == (1.0, 1.0)
    assert run("multi_margin_loss", scores, torch.tensor([0, -7]), 1, 1, None, 0)[1] == 0
    made = run("max_unpool2d", torch.ones(1, 1, 2), torch.tensor([[[1, 2**40]]]), [1, 3])
    assert made.tolist() == [[[0, 1, 0]]]
    spread = run(
        "max_pool2d_with_indices_backward",
        *(torch.ones(1, 1, 1), torch.rand(1, 2, 2), [2], [2], [0], [1], False, torch.full((1, 1, 1), -(2**62))),
    )
    assert not spread.any()


class Calls(TorchDispatchMode):
    """The operations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("adaptive", [False, True])
def test_where_a_maximum_was_found_is_not_looked_for_again(rank: int, adaptive: bool) -> None:
    x = torch.rand(2, 3, *[6] * rank)
    x[0, 0] = torch.nan
    x[0, 1] = -torch.inf
    name = f"adaptive_max_pool{rank}d" if adaptive else f"max_pool{rank}d_with_indices"
    windows = [[3] * rank] if adaptive else [[3] * rank, [2] * rank, [1] * rank, [1] * rank, True]
    maxima, places = run(name, x, *windows)
    assert 0 <= places.min() <= places.max() < 6**rank
    back = torch.rand_like(maxima)
    given = (back, x, *([] if adaptive else windows), places)
    back_of = f"{name}_backward"
    with Calls() as calls:
        made = run(back_of, *given)
    assert calls.names == [f"aten::{back_of}"]
    assert torch.equal(made, getattr(torch.ops.aten, back_of).default(*given))
    assert torch.equal(made, run(back_of, *given[:-1], places.clone()))


def test_a_maximum_of_another_value_is_written_nowhere_beyond_this_one() -> None:
    large, small = torch.arange(16.0).reshape(1, 4, 4), torch.rand(1, 2, 2)
    (_, places), back = run("max_pool2d_with_indices", large, [4]), torch.ones(1, 1, 1)
    assert places.item() == 15
    assert not run("max_pool2d_with_indices_backward", back, small, [2], [2], [0], [1], False, places).any()


def test_a_window_that_steps_over_every_element_has_no_maximum_to_write_to() -> None:
    x, windows = torch.rand(1, 2, 2), [[2, 2], [1, 1], [1, 1], [3, 3], False]
    maxima, places = run("max_pool2d_with_indices", x, *windows)
    assert places.item() == 6
    assert not run("max_pool2d_with_indices_backward", torch.ones_like(maxima), x, *windows, places).any()


def test_a_probability_that_is_none_gives_nan_for_its_own_element() -> None:
    found = run("binary_cross_entropy", torch.tensor([0.5, 1.5, -0.1, torch.nan]), torch.full((4,), 0.5), None, 0)
    assert found.isnan().tolist() == [False, True, True, True]


@pytest.mark.parametrize("scale", [1e-300, float("nan"), float("inf"), -1.0, 1e300])
def test_a_scale_that_does_not_fit_the_sizes_counts_as_none(scale: float) -> None:
    """Kernels would read memory far away from the image."""
    image = torch.rand(1, 1, 3, 3)
    for name in ("upsample_bicubic2d", "upsample_bilinear2d"):
        assert torch.equal(run(name, image, [6, 6], False, scale, scale), run(name, image, [6, 6], False, None, None))


@pytest.mark.parametrize(
    "sample",
    [
        # The sizes are the client's word; kernels would believe it and read beyond the input.
        Sample("aten::native_group_norm", [T((2, 4, 3)), None, None, 2, 4, 3000, 2, 1e-5]),
        Sample("aten::native_layer_norm_backward", [T((4, 3)), T((4, 3)), [3], T((1, 1)), T((1, 1)), None, None,
                                                    [True, False, False]]),
        Sample("aten::max_pool2d_with_indices_backward", [T((1, 9, 9)), T((1, 2, 2)), [2], [2], [0], [1], False,
                                                          T((1, 9, 9), "int64")]),
        Sample("aten::convolution_backward", [T((1, 2, 9, 9)), T((1, 3, 4, 4)), T((2, 3, 2, 2)), [2], *CONV,
                                              [True, True, True]]),
        Sample(f"{ATTENTION}_backward", [T((1, 1, 4, 2)), T((1, 1, 4, 2)), T((1, 1, 4, 2)), T((1, 1, 4, 2)),
                                         T((1, 1, 4, 2)), T((1, 1, 1)), 0.0, False]),
        Sample("aten::convolution", [T((1, 3, 4, 4), "int64"), T((2, 3, 2, 2), "int64"), None, *CONV]),
        Sample("aten::avg_pool2d", [T((1, 1, 4, 4)), [2**40]]),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused_before_anything_runs(sample: Sample) -> None:
    with pytest.raises(GridError):
        sample.call()


def test_gradients_that_are_not_asked_for_are_empty() -> None:
    made = TARGETS["aten::native_layer_norm_backward"].call(
        *(torch.ones(2, 3), torch.rand(2, 3), [3], torch.zeros(2, 1), torch.ones(2, 1), None, None),
        [True, False, False],
    )
    assert [tuple(output.shape) for output in made] == [(2, 3), (0,), (0,)]


def test_a_window_costs_as_much_as_it_has_elements() -> None:
    """A large window over a large image keeps a worker busy for minutes: its estimate must say so."""
    row = TABLE["aten::avg_pool2d"]
    image = [(1, 1, 100, 100)]
    small, large = (row.price({"kernel_size": size}, image, image) for size in ([1], [50]))
    assert large == 2500 * small
    convolved = TABLE["aten::convolution"].cost([(8, 3, 32, 32), (16, 3, 5, 5)], [(8, 16, 28, 28)])
    assert convolved > 2 * 8 * 16 * 28 * 28 * 3 * 25


def test_operations_that_write_or_need_values_are_not_in_the_table() -> None:
    absent = """native_batch_norm _native_batch_norm_legit rrelu_with_noise _ctc_loss multilabel_margin_loss_forward
        fractional_max_pool2d embedding_renorm_ _fused_sdp_choice native_dropout _embedding_bag""".split()
    assert not {f"aten::{name}" for name in absent} & set(TABLE)
    assert {row.name for row in (*networks.ROWS, *backward.ROWS)} <= set(TABLE)
