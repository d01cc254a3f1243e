"""Attack 33: bytes that somebody else's computation left in memory. What a person would lose: their row, to a stranger.

A worker keeps what is freed (`apps.compute.memory`), so an operation that returned memory as it found it would give
out what the one before had in it.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator

import pytest
import torch

from apps.compute.readers.torch import prepare
from apps.compute.targets import TARGETS
from gridclient.program.operations import OPERATIONS
from tests.factories.operations import draw, samples

_M_PERTURB = -6
_libc = ctypes.CDLL(None)


@pytest.fixture
def left() -> Iterator[None]:
    yield
    _libc.mallopt(_M_PERTURB, 0)


def leave(byte: int) -> None:
    """From now on the C library fills what it gives out with the inverse of this byte, and what is freed with it."""
    _libc.mallopt(_M_PERTURB, byte)


def test_memory_is_left_as_said(left: None) -> None:
    """The attack works on memory that nobody fills."""
    leave(0x5A)
    assert (torch.empty(1000, dtype=torch.uint8) == 0xA5).float().mean() > 0.9


@pytest.mark.parametrize("op", sorted({sample.op for sample in samples(3, 4)}))
def test_no_answer_depends_on_what_was_in_memory(op: str, left: None) -> None:
    """Every operation, by its own samples: the same bits, whatever was there before."""
    source = random.Random(op)
    cases = [sample for sample in samples(3, 4) if sample.op == op]
    for sample in source.sample(cases, min(8, len(cases))):
        drawn = [draw(given, source, hostile=source.random() < 0.3) for given in sample.operands]
        found = []
        for byte in (0x5A, 0xC3):
            leave(byte)
            try:
                outputs = sample.run([value.clone() for value in drawn])
                found.append([_bits(output) for output in outputs])
            except Exception as error:
                found.append([type(error).__name__.encode()])
            finally:
                leave(0)
        assert found[0] == found[1], sample


def _bits(value: object) -> bytes:
    if not isinstance(value, torch.Tensor):
        return repr(value).encode()
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def test_there_is_no_operation_that_leaves_memory_unfilled() -> None:
    words = ("empty", "resize", "set_", "as_strided_", "_like_")
    found = [op for op in [*OPERATIONS, *TARGETS] if any(word in op for word in words)]
    assert not found, found
    prepare()
