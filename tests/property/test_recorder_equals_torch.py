"""Random mixes of views, in-place writes and operations: a program computes what torch computes, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gridclient.program.graph import program_hashes
from gridclient.recorder.places import check_writable
from gridclient.wire.errors import OperationNotAllowedError
from tests.sdk.local_node import LocalNode, assert_same

Step = tuple[int, int, int, int, int]
Tensor = torch.Tensor
SCALARS = [0, 1, 2, -3, 1.0, 0.5, -2.5, True]
DTYPES = [torch.float64, torch.float32, torch.int64, torch.bool]


def axis(x: Tensor, n: int) -> int:
    return n % (2 * x.dim()) - x.dim() if x.dim() else -1


def order(x: Tensor, n: int) -> list[int]:
    axes = list(range(x.dim()))
    turn = n % max(1, x.dim())
    axes = axes[turn:] + axes[:turn]
    return axes[::-1] if n % 2 else axes


def part(x: Tensor, n: int, m: int) -> slice:
    rows = max(1, x.shape[0])
    return slice(n % rows, n % rows + 1 + m % rows, 1 + m % 2)


VIEWS: list[Callable[[Tensor, Tensor, int, int], Any]] = [
    lambda x, y, n, m: x.select(axis(x, n), m % max(1, x.shape[axis(x, n)])),
    lambda x, y, n, m: x[part(x, n, m)],
    lambda x, y, n, m: x[..., -1],
    lambda x, y, n, m: x[:, :: 1 + n % 2],
    lambda x, y, n, m: x[-1:],
    lambda x, y, n, m: x[:],
    lambda x, y, n, m: x.t(),
    lambda x, y, n, m: x.T if x.dim() == 2 else x.mT,
    lambda x, y, n, m: x.transpose(axis(x, n), axis(x, m)),
    lambda x, y, n, m: x.permute(order(x, n)),
    lambda x, y, n, m: x.view(-1),
    lambda x, y, n, m: x.reshape(-1),
    lambda x, y, n, m: x.reshape(2, -1),
    lambda x, y, n, m: x.view(x.shape),
    lambda x, y, n, m: x.flatten(),
    lambda x, y, n, m: x.unsqueeze(n % (x.dim() + 1)),
    lambda x, y, n, m: x.squeeze(),
    lambda x, y, n, m: x.squeeze(axis(x, n)),
    lambda x, y, n, m: x.squeeze((0, -1)),
    lambda x, y, n, m: x.expand(2, *x.shape),
    lambda x, y, n, m: x.expand_as(y),
    lambda x, y, n, m: x.detach(),
    lambda x, y, n, m: x.data,
    lambda x, y, n, m: x.unbind(axis(x, n))[m % max(1, x.shape[axis(x, n)])],
    lambda x, y, n, m: next(iter(x)),
    lambda x, y, n, m: x.split(1 + m % 2, axis(x, n))[-1],
    lambda x, y, n, m: x.split([1, x.shape[0] - 1])[1],
    lambda x, y, n, m: x.chunk(2, axis(x, n))[0],
    lambda x, y, n, m: x.narrow(0, n % max(1, x.shape[0]), 1),
    lambda x, y, n, m: x.movedim(0, -1),
    lambda x, y, n, m: x[None],
    lambda x, y, n, m: x.diagonal(n % 3 - 1),
    lambda x, y, n, m: x.diagonal(n % 2, axis(x, n), axis(x, m)),
    lambda x, y, n, m: x[..., None].swapaxes(0, -1),
]


def rows(x: Tensor, n: int, m: int) -> Tensor:
    """One or two different positions of the first axis, from either end."""
    extent = max(1, x.shape[0])
    return torch.tensor([n % extent, (n + 1) % extent - extent][: 1 + m % 2])


def assign(x: Tensor, where: Any, what: Any) -> None:
    x[where] = what


def assign_data(x: Tensor, y: Tensor) -> None:
    x.data.copy_(y)


WRITES: list[Callable[[Tensor, Tensor, int, int], Any]] = [
    lambda x, y, n, m: x.add_(SCALARS[n % 8]),
    lambda x, y, n, m: x.add_(y, alpha=n % 3),
    lambda x, y, n, m: x.sub_(y),
    lambda x, y, n, m: x.mul_(SCALARS[n % 8]),
    lambda x, y, n, m: x.mul_(y),
    lambda x, y, n, m: x.div_(SCALARS[n % 8] or 3),
    lambda x, y, n, m: x.copy_(y),
    lambda x, y, n, m: x.copy_(y.t()),
    lambda x, y, n, m: x.fill_(SCALARS[n % 8]),
    lambda x, y, n, m: x.zero_(),
    lambda x, y, n, m: x.relu_(),
    lambda x, y, n, m: x.neg_(),
    lambda x, y, n, m: x.abs_(),
    lambda x, y, n, m: x.clamp_(-1, 2),
    lambda x, y, n, m: x.clamp_(min=0.5),
    lambda x, y, n, m: x.gt_(1),
    lambda x, y, n, m: x.floor_(),
    lambda x, y, n, m: x.t().mul_(2),
    lambda x, y, n, m: x.detach().add_(1),
    lambda x, y, n, m: assign(x, 0, SCALARS[n % 8]),
    lambda x, y, n, m: assign(x, 0, y),
    lambda x, y, n, m: assign(x, -1, torch.tensor(float(n % 5))),
    lambda x, y, n, m: assign(x, part(x, n, m), 2.5),
    lambda x, y, n, m: assign(x, (slice(None), 0), n % 7),
    lambda x, y, n, m: assign(x, (slice(None), slice(None, None, 2)), -1.5),
    lambda x, y, n, m: assign(x, ..., y),
    lambda x, y, n, m: assign_data(x, y),
    lambda x, y, n, m: assign(x, rows(x, n, m), SCALARS[n % 8]),
    lambda x, y, n, m: assign(x, rows(x, n, m), y),
    lambda x, y, n, m: assign(x, (slice(None), rows(x[0], n, m)), y[:, :1]),
    lambda x, y, n, m: assign(x, x > 0, SCALARS[n % 8]),
    lambda x, y, n, m: assign(x, x[..., 0] > 0, n % 3) if x.dim() > 1 else None,  # torch asks a mask of one for it
    lambda x, y, n, m: assign(x, torch.arange(x.shape[0]) % 2 == 0, y[:1]),
    lambda x, y, n, m: x.masked_fill_(y > 0, SCALARS[n % 8]),
    lambda x, y, n, m: x.index_put_((rows(x, n, m),), y, accumulate=True),
    lambda x, y, n, m: x.index_add_(0, rows(x, n, m) % max(1, x.shape[0]), y[: 1 + m % 2]),
    lambda x, y, n, m: x.index_fill_(axis(x, n), rows(x, n, m)[:1], 2),
    lambda x, y, n, m: x.diagonal().mul_(2),
    lambda x, y, n, m: x.diagonal(n % 2).copy_(y.reshape(-1)[0]),
    lambda x, y, n, m: x.addcmul_(y, y, value=2),
    lambda x, y, n, m: x.lerp_(y, 0.5),
    lambda x, y, n, m: x.tril_(n % 2),
]
COMPUTED: list[Callable[[Tensor, Tensor, int, int], Any]] = [
    lambda x, y, n, m: x + y,
    lambda x, y, n, m: x - SCALARS[n % 8],
    lambda x, y, n, m: SCALARS[n % 8] - x,
    lambda x, y, n, m: x * y,
    lambda x, y, n, m: x / 3,
    lambda x, y, n, m: x * SCALARS[n % 8],
    lambda x, y, n, m: x**2,
    lambda x, y, n, m: -x.abs(),
    lambda x, y, n, m: x > y,
    lambda x, y, n, m: x == SCALARS[n % 8],
    lambda x, y, n, m: torch.where(x > 0, x, y),
    lambda x, y, n, m: torch.where(x > 0, x, SCALARS[n % 8]),
    lambda x, y, n, m: torch.maximum(x, y),
    lambda x, y, n, m: x.clamp(-1, 1),
    lambda x, y, n, m: x.to(DTYPES[n % 4]),
    lambda x, y, n, m: x.clone(),
    lambda x, y, n, m: x.contiguous(),
    lambda x, y, n, m: x.t().contiguous(),
    lambda x, y, n, m: x.sum(),
    lambda x, y, n, m: x.sum(axis(x, n), keepdim=bool(m % 2)),
    lambda x, y, n, m: x.mean(axis(x, n)),
    lambda x, y, n, m: x.amax(axis(x, n)),
    lambda x, y, n, m: x.max(axis(x, n))[m % 2],
    lambda x, y, n, m: x.sort(axis(x, n))[m % 2],
    lambda x, y, n, m: x.var(axis(x, n)),
    lambda x, y, n, m: x @ y,
    lambda x, y, n, m: x @ y.t(),
    lambda x, y, n, m: x @ torch.arange(6.0).reshape(2, 3).t()[: x.shape[-1]],
    lambda x, y, n, m: torch.cat([x, y]),
    lambda x, y, n, m: torch.stack([x, y], n % 2),
    lambda x, y, n, m: x.flip(0),
    lambda x, y, n, m: torch.zeros_like(x),
    lambda x, y, n, m: torch.full_like(x, 2),
    lambda x, y, n, m: x.new_full((2, 3), 1.5),
    lambda x, y, n, m: x.new_zeros(3, 2, dtype=torch.float64),
    lambda x, y, n, m: torch.ones(3, 4)[:, 0].unsqueeze(1) * x,
    lambda x, y, n, m: x.softmax(axis(x, n)),
    lambda x, y, n, m: x[rows(x, n, m)],
    lambda x, y, n, m: x[:, rows(x[0], n, m)],
    lambda x, y, n, m: x[rows(x, n, m), rows(x[0], n, m)],
    lambda x, y, n, m: x[torch.arange(x.shape[0]) % 2 == n % 2],
    lambda x, y, n, m: x[(y.to(torch.int64) % x.shape[0]).reshape(-1)[:3]],
    lambda x, y, n, m: x.masked_fill(x > y, 1),
    lambda x, y, n, m: x.gather(0, torch.zeros(1, *[1] * (x.dim() - 1), dtype=torch.int64)),
    lambda x, y, n, m: torch.diag(x),
]
STEPS = [*VIEWS, *WRITES, *COMPUTED]

steps = st.lists(
    st.tuples(
        # Views and writes are what this is about.
        st.one_of(
            st.integers(0, len(VIEWS) + len(WRITES) - 1),
            st.integers(0, len(STEPS) - 1),
        ),
        st.integers(0, 99),
        st.integers(0, 99),
        st.integers(0, 99),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=25,
)
starts = st.tuples(
    st.sampled_from([(3, 4), (4, 3), (3, 3), (2, 3, 4), (5,), (1, 3), (2, 1, 2)]),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
)


def start(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    return ((numbers * 7) % 5 - 2 + (0.1 if dtype.is_floating_point else 0)).to(dtype)


def may_write(x: tuple[Tensor, Any], y: tuple[Tensor, Any]) -> bool:
    """Writes to expanded tensors are refused, and of memory written while it is read torch promises nothing."""
    try:
        check_writable(x[1]._place, "a write")
    except OperationNotAllowedError:
        return False
    return x[0].untyped_storage().data_ptr() != y[0].untyped_storage().data_ptr()


def play(node: LocalNode, given_: list[tuple[tuple[int, ...], torch.dtype]], moves: list[Step]) -> list[Any]:
    """Take every step that torch takes on local tensors, on pointers too. Returns the pairs (local, pointer)."""
    local = [start(*one) for one in given_]
    pairs: list[tuple[Tensor, Any]] = [(x, node.publish(x, str(i))) for i, x in enumerate(local)]
    for number, a, b, n, m in moves:
        step, writes = STEPS[number], len(VIEWS) <= number < len(VIEWS) + len(WRITES)
        x, y = pairs[a % len(pairs)], pairs[b % len(pairs)]
        if writes and not may_write(x, y):
            continue
        try:
            here = step(x[0], y[0], n, m)
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
        there = step(x[1], y[1], n, m)
        if not writes:
            pairs.append((here, there))
    return pairs


@settings(max_examples=300)
@given(st.lists(starts, min_size=1, max_size=2), steps)
def test_views_writes_and_operations_compute_what_torch_computes(
    given_: list[tuple[tuple[int, ...], torch.dtype]], moves: list[Step]
) -> None:
    node = LocalNode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = play(node, given_, moves)
        for here, there in pairs:
            assert there.shape == here.shape
            assert there.dtype is here.dtype
            assert_same(there.get(), here)


@settings(max_examples=50)
@given(st.lists(starts, min_size=1, max_size=2), steps)
def test_the_same_work_has_the_same_name_in_every_session(
    given_: list[tuple[tuple[int, ...], torch.dtype]], moves: list[Step]
) -> None:
    hashes = []
    for before in (0, 3):
        node = LocalNode()
        for extra in range(before):  # other work first: other node ids
            node.recorder.input_constant(torch.tensor(float(extra))).exp()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pairs = play(node, given_, moves)
        refs = [there.ref for _, there in pairs]
        found = program_hashes(node.program.values())
        hashes.append([(found[ref.node], ref.output) for ref in refs])
    assert hashes[0] == hashes[1]


def learn(x: Tensor, w: Tensor, moves: list[tuple[int, int, int]]) -> Tensor:
    """A function of `w` through views, writes and arithmetic; gives the gradient of its sum."""
    value = w * 1
    for number, n, m in moves:
        value = DIFFERENTIABLE[number](value, x, n, m)
    loss = (value * value).sum()
    (gradient,) = torch.autograd.grad(loss, w)
    return gradient


def written(v: Tensor, where: Any, what: Any) -> Tensor:
    v = v * 1
    v[where] = what
    return v


def filled(v: Tensor, mask: Tensor) -> Tensor:
    return (v * 1).masked_fill_(mask, 0.5)


def mixed(v: Tensor, x: Tensor, n: int) -> Tensor:
    made = v * 2
    made[:, n % 3] += x[:, 0]
    made.diagonal().mul_(0.5)
    return made


DIFFERENTIABLE: list[Callable[[Tensor, Tensor, int, int], Tensor]] = [
    lambda v, x, n, m: v + x,
    lambda v, x, n, m: v * x,
    lambda v, x, n, m: v @ x,
    lambda v, x, n, m: v.t(),
    lambda v, x, n, m: v.relu(),
    lambda v, x, n, m: v.tanh(),
    lambda v, x, n, m: torch.where(x > 0, v, x),
    lambda v, x, n, m: v[[n % 3, m % 3, 1]],
    lambda v, x, n, m: v[:, [n % 3, m % 3, 1]],
    lambda v, x, n, m: written(v, n % 3, x[0]),
    lambda v, x, n, m: written(v, (slice(None), m % 3), 2.0),
    lambda v, x, n, m: written(v, x > 0, 0.0),
    lambda v, x, n, m: written(v, [n % 3], x[:1]),
    lambda v, x, n, m: filled(v, x > 0),
    lambda v, x, n, m: mixed(v, x, n),
    lambda v, x, n, m: v.flip(n % 2),
    lambda v, x, n, m: torch.cat([v[1:], v[:1]]),
    lambda v, x, n, m: v - v.mean(n % 2, keepdim=True),
    lambda v, x, n, m: v.diagonal()[:, None] * x,
    lambda v, x, n, m: v.detach() + v,
]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, len(DIFFERENTIABLE) - 1), st.integers(0, 9), st.integers(0, 9)), max_size=8))
def test_gradients_through_views_and_writes_are_those_of_torch(moves: list[tuple[int, int, int]]) -> None:
    node = LocalNode()
    x, w = start((3, 3), torch.float32), start((3, 3), torch.float32).flip(0) / 3
    here = learn(x, w.clone().requires_grad_(), moves)
    there = learn(node.publish(x, "x"), node.publish(w, "w").requires_grad_(), moves)
    assert_same(there.get(), here)  # type: ignore[attr-defined]
