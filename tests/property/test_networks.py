"""Layers of networks and their gradients as the node computes them: what torch gives, whatever the values are.

Without this a model would learn something else on a node than at home, or one person's label would stop a worker.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from apps.compute.readers.torch import prepare
from apps.compute.rows import backward, networks
from apps.compute.targets import DTYPES, TARGETS, _overload
from tests.factories.operations import EXTENTS, Sample, T, draw, fits
from tests.factories.operations_networks import calls

OPS = sorted({row.name for row in (*networks.ROWS, *backward.ROWS)})
FAR = [-(2**63), -(2**40), -1, 0, 1, 2, 3, 4, 9, 2**40, 2**63 - 1]
PROBABILITIES = ("aten::binary_cross_entropy", "aten::binary_cross_entropy_backward")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    enabled, threads = torch.is_grad_enabled(), torch.get_num_threads()
    prepare()
    yield
    torch.set_grad_enabled(enabled)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@cache
def by_operation() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for n, d in [*EXTENTS, (0, 2)]:
        for sample in calls(n, d):
            found.setdefault(sample.op, []).append(sample)
    return found


def cases(op: str, most: int) -> list[Sample]:
    """Some calls of one operation that torch takes."""
    found = list(by_operation()[op])
    random.Random(op).shuffle(found)
    return list(islice(filter(fits, found), most))


def raw(value: Tensor) -> bytes:
    return value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def far(given: T, source: random.Random) -> Tensor:
    """Positions anywhere, other numbers hostile."""
    if given.dtype != "int64":
        return draw(given, source, hostile=True)
    count = torch.Size(given.shape).numel()
    return torch.tensor([source.choice(FAR) for _ in range(count)], dtype=torch.int64).reshape(given.shape)


def near(sample: Sample, given: T, source: random.Random) -> Tensor:
    """Values that torch takes: positions that exist everywhere, probabilities."""
    if given.dtype == "int64":
        return torch.zeros(given.shape, dtype=torch.int64)
    value = draw(given, source)
    return value.abs() / 2 if sample.op in PROBABILITIES and given.dtype == "float32" else value


def test_the_samples_hold_every_operation() -> None:
    assert {sample.op for op in OPS for sample in cases(op, 1)} == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_any_position_or_number_gives_a_value_of_the_judged_shape(op: str) -> None:
    """An index far out of range must neither raise nor read somebody else's memory."""
    source = random.Random(op)
    for sample in cases(op, 15):
        judged = list(sample.call().outputs)
        values = [far(given, source) for given in sample.operands]
        before = [raw(value) for value in values]
        assert [tuple(output.shape) for output in sample.run(values)] == judged
        assert [raw(value) for value in values] == before


@pytest.mark.parametrize("op", OPS)
def test_the_node_computes_what_torch_computes(op: str) -> None:
    source = random.Random(op)
    compared = 0
    for sample in cases(op, 15):
        if any(scale == 1e-300 or scale != scale for scale in sample.args if isinstance(scale, float)):
            continue  # torch reads wild memory
        values = [near(sample, given, source) for given in sample.operands]
        if not all(value.numel() for value in values):
            continue
        made = sample.run(values)
        known = plain(sample, values)
        assert len(made) == len(known)
        for output, other in zip(made, known, strict=True):
            if other is not None and output.numel():
                assert output.dtype == other.dtype
                assert raw(output) == raw(other), sample
                compared += 1
    assert compared


def plain(sample: Sample, values: list[Tensor]) -> list[Tensor | None]:
    """The overload itself."""
    operands = iter(values)

    def value(given: Any) -> Any:
        if isinstance(given, T):
            return next(operands)
        return (
            [value(item) for item in given]
            if isinstance(given, list)
            else DTYPES.get(getattr(given, "name", ""), given)
        )

    args = [value(given) for given in sample.args]
    made = _overload(sample.op)(*args, **{name: value(given) for name, given in sample.kwargs.items()})
    return list(made) if isinstance(made, (tuple, list)) else [made]


class OnTheNode(TorchDispatchMode):
    """What reaches the operations of networks runs by their total forms, as a node would run it."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).replace("aten.", "aten::", 1).removesuffix(".default")
        if name not in OPS:
            return func(*args, **(kwargs or {}))
        self.ran.add(name)
        made = TARGETS[name].call(*args, **(kwargs or {}))
        if not isinstance(made, tuple):
            return made
        mask = args[-1] if "backward" in name and isinstance(args[-1], list) else [True] * len(made)
        return tuple(output if wanted else None for output, wanted in zip(made, mask, strict=True))


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


LABELS = torch.tensor([1, 0, 2])
POOLS = [f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in (1, 2, 3)]
ACTIVATIONS = """relu6 elu selu celu leaky_relu gelu silu mish softplus logsigmoid hardtanh hardswish hardsigmoid
    softshrink hardshrink glu sigmoid tanh""".split()
PADS = [(mode, rank) for mode in ("constant", "reflect", "replicate") for rank in (1, 2, 3)]
RESIZES = [
    *(("nearest", 1), ("nearest", 2), ("nearest", 3), ("nearest-exact", 2), ("linear", 1), ("bilinear", 2)),
    *(("bicubic", 2), ("trilinear", 3), ("area", 2)),
]
LAYERS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: getattr(F, name)(leaf(3, 4)) for name in ACTIVATIONS},
    **{
        name: lambda name=name: getattr(F, name)(leaf(2, 3, *[6] * int(name[-2])), 2) for name in POOLS
    },
    **{
        f"pad {mode} {rank}": lambda mode=mode, rank=rank: F.pad(leaf(2, 3, *[5] * rank), [1, 2] * rank, mode=mode)
        for mode, rank in PADS
    },
    **{
        f"interpolate {mode} {rank}": lambda mode=mode, rank=rank: F.interpolate(
            leaf(2, 3, *[5] * rank), scale_factor=1.5, mode=mode
        )
        for mode, rank in RESIZES
    },
    **{
        f"conv{rank}d": lambda rank=rank: getattr(F, f"conv{rank}d")(
            leaf(2, 4, *[6] * rank), leaf(6, 2, *[3] * rank), leaf(6), stride=2, padding=1, groups=2
        )
        for rank in (1, 2, 3)
    },
    **{
        f"conv_transpose{rank}d": lambda rank=rank: getattr(F, f"conv_transpose{rank}d")(
            leaf(2, 4, *[4] * rank), leaf(4, 6, *[3] * rank), stride=2
        )
        for rank in (1, 2, 3)
    },
    "antialias": lambda: F.interpolate(leaf(2, 3, 6, 6), size=(4, 4), mode="bilinear", antialias=True),
    "gelu tanh": lambda: F.gelu(leaf(3, 4), approximate="tanh"),
    "threshold": lambda: F.threshold(leaf(3, 4), 0.1, 2.0),
    "prelu": lambda: F.prelu(leaf(2, 4, 3), leaf(4)),
    "softmin": lambda: F.softmin(leaf(3, 4), 1) * torch.arange(4),
    "softmax": lambda: F.softmax(leaf(3, 4), 1) * torch.arange(4),
    "log_softmax": lambda: F.log_softmax(leaf(3, 4), 1) * torch.arange(4),
    "unpool": lambda: F.max_unpool2d(*F.max_pool2d(leaf(2, 3, 4, 4), 2, return_indices=True), 2),
    "layer_norm": lambda: F.layer_norm(leaf(3, 2, 4), [2, 4], leaf(2, 4), leaf(2, 4)),
    "layer_norm without bias": lambda: F.layer_norm(leaf(3, 4), [4], leaf(4)),
    "layer_norm alone": lambda: F.layer_norm(leaf(3, 4), [4]),
    "group_norm": lambda: F.group_norm(leaf(2, 4, 5, 5), 2, leaf(4), leaf(4)),
    "group_norm alone": lambda: F.group_norm(leaf(2, 4, 5), 2),
    "batch_norm": lambda: F.batch_norm(leaf(3, 4, 5), None, None, leaf(4), leaf(4), training=True),
    "batch_norm evaluated": lambda: F.batch_norm(leaf(3, 4), torch.rand(4), torch.rand(4), leaf(4), leaf(4)),
    "embedding": lambda: F.embedding(LABELS, leaf(5, 3), padding_idx=1),
    "embedding by frequency": lambda: F.embedding(LABELS, leaf(5, 3), scale_grad_by_freq=True),
    "attention": lambda: F.scaled_dot_product_attention(leaf(2, 4, 6, 8), leaf(2, 4, 5, 8), leaf(2, 4, 5, 8)),
    "attention causal": lambda: F.scaled_dot_product_attention(*[leaf(2, 4, 6, 8)] * 3, is_causal=True),
    "attention masked": lambda: F.scaled_dot_product_attention(
        *[leaf(2, 4, 6, 8)] * 3, attn_mask=torch.ones(6, 6, dtype=torch.bool).tril()
    ),
    "attention of rank 3": lambda: F.scaled_dot_product_attention(*[leaf(2, 6, 8)] * 3),
    "unfold": lambda: F.unfold(leaf(2, 3, 4, 4), 2),
    "fold": lambda: F.fold(leaf(2, 16, 16), (5, 5), 2),
    "pixel_shuffle": lambda: F.pixel_shuffle(leaf(2, 4, 3, 3), 2),
    "channel_shuffle": lambda: F.channel_shuffle(leaf(2, 4, 3), 2),
    "cross_entropy": lambda: F.cross_entropy(leaf(3, 4), LABELS),
    "cross_entropy weighted": lambda: F.cross_entropy(leaf(3, 4), LABELS, weight=torch.rand(4), ignore_index=2),
    "cross_entropy each": lambda: F.cross_entropy(leaf(3, 4), LABELS, reduction="none"),
    "cross_entropy of planes": lambda: F.cross_entropy(leaf(2, 4, 3, 3), torch.ones(2, 3, 3, dtype=torch.long)),
    "multi_margin": lambda: F.multi_margin_loss(leaf(3, 4), LABELS, p=2),
    "bce": lambda: F.binary_cross_entropy(leaf(3, 4).sigmoid(), torch.rand(3, 4), weight=torch.rand(4)),
    "bce with logits": lambda: F.binary_cross_entropy_with_logits(leaf(3, 4), torch.rand(3, 4)),
    **{
        f"{name} {how}": lambda name=name, how=how: getattr(F, name)(leaf(3, 4), torch.randn(3, 4), reduction=how)
        for name in ("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss")
        for how in ("mean", "sum", "none")
    },
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)(leaf(2, 6, 8)),
}  # fmt: skip


def gradients(layer: Callable[[], Any]) -> list[bytes]:
    """The result and the gradients of all leaves."""
    leaves: list[Tensor] = []
    made = layer()
    first = made[0] if isinstance(made, tuple) else made
    todo = [first.grad_fn]
    seen = set()
    while todo:
        function = todo.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        todo += [before for before, _ in function.next_functions]
        if hasattr(function, "variable"):
            leaves.append(function.variable)
    first.backward(torch.ones_like(first) * 0.5)
    return [raw(first.detach()), *[raw(value.grad) for value in leaves if value.grad is not None]]


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_autograd_bit_for_bit(name: str) -> None:
    with torch.enable_grad():
        torch.manual_seed(7)
        known = gradients(LAYERS[name])
        torch.manual_seed(7)
        with OnTheNode() as node:
            found = gradients(LAYERS[name])
    assert len(known) > 1
    assert found == known
    assert node.ran or name.startswith("batch_norm")
