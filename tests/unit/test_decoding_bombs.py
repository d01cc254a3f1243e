"""Small bytes that stand for very many values: refused before they take a node's memory and everybody's time."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gridclient.program.graph import MAX_ARGUMENTS, Dtype, Node, Ref
from gridclient.program.plan_format import FORMAT_VERSION, MAGIC, decode_plan
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, InvalidInputError, LimitExceededError
from gridclient.wire.frames import MAX_BATCH

CAP = 32 * 2**20
"""Bytes that refusing a file or a batch may take."""
SIZE = MAX_BATCH - 256

pack = msgspec.msgpack.encode
EMPTY = b"\x90"
RESULT = pack([[0, "float32", []]])


def array(*items: bytes) -> bytes:
    return many(len(items), b"".join(items))


def many(count: int, items: bytes) -> bytes:
    """A list that says to have `count` items."""
    return b"\xdd" + struct.pack(">I", count) + items


def filled(item: bytes, size: int = SIZE) -> bytes:
    """A list of so many times this item as fit into the size."""
    return many(size // len(item), item * (size // len(item)))


def refused(decode: Callable[[bytes], Any], data: bytes) -> GridError:
    tracemalloc.start()
    try:
        with pytest.raises(GridError) as caught:
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < CAP
    finally:
        tracemalloc.stop()
    return caught.value


def plan(
    *, inputs: bytes = EMPTY, constants: bytes = EMPTY, instructions: bytes = EMPTY, results: bytes = RESULT,
    tensors: bytes = b"",
) -> bytes:  # fmt: skip
    body = b"\x98" + pack(1) + pack("a") + pack("") + inputs + constants + instructions + pack(b"") + results
    return struct.pack("<8sBI", MAGIC, FORMAT_VERSION, len(body)) + body + tensors


def tensors(entries: str) -> bytes:
    text = f"{{{entries}}}".encode()
    return len(text).to_bytes(8, "little") + text


ENTRY = '"%d":{"dtype":"U8","shape":[],"data_offsets":[0,0]}'


@pytest.mark.parametrize(
    "build",
    [
        lambda: plan(instructions=filled(EMPTY)),
        lambda: plan(instructions=array(filled(EMPTY))),
        lambda: plan(instructions=array(filled(b"\x80"))),
        lambda: plan(instructions=array(b"\x91" * 900 + filled(EMPTY))),
        lambda: plan(instructions=array(array(pack("neg"), pack(1), filled(EMPTY)))),
        lambda: plan(instructions=filled(b"\x93\xa3neg\x01" + filled(EMPTY, 4_000))),
        lambda: plan(inputs=filled(b"\x93\xa0\xa0\x90")),
        lambda: plan(constants=filled(b"\xc4\x01a")),
        lambda: plan(results=filled(b"\x93\x00\xa0\x90")),
        lambda: plan(results=array(b"\x93\x00\xa0" + filled(b"\x01", 8 * SIZE))),
        lambda: plan(tensors=tensors(",".join(ENTRY % place for place in range(60_000)))),
        lambda: plan(tensors=tensors('"0":{"dtype":"U8","shape":[' + "1," * 4 * SIZE + '1],"data_offsets":[0,0]}')),
    ],
    ids=[
        "instructions", "lists", "maps", "nesting", "one argument", "arguments together", "inputs", "constants",
        "results", "extents", "entries", "extents of a constant",
    ],
)  # fmt: skip
def test_a_plan_of_very_many_values_is_refused_unread(build: Callable[[], bytes]) -> None:
    assert isinstance(refused(decode_plan, build()), (InvalidInputError, LimitExceededError))


def node(args: bytes = EMPTY, kwargs: bytes = b"\x80") -> bytes:
    return b"\x94" + pack(1) + pack("aten::neg") + args + kwargs


def batch(*commands: bytes) -> bytes:
    return b"\x92\x01" + array(*commands)


def run(*nodes: bytes) -> bytes:
    return b"\x92\xa3run" + array(*nodes)


REF, WORD = pack(msgspec.msgpack.Ext(1, bytes(5))), pack("ab")


@pytest.mark.parametrize("item", [EMPTY, b"\x80", b"\x91\x90", b"\x81\x01\x01", b"\x01", b"\xcb" + bytes(8), REF, WORD])
def test_a_batch_of_very_many_values_is_refused_unread(item: bytes) -> None:
    assert refused(m.decode_client, batch(run(node(filled(item))))).code == LimitExceededError.code


NAMED = b"".join(pack(f"{n:05x}") + EMPTY for n in range(290_000))


@pytest.mark.parametrize(
    "build",
    [
        lambda: batch(run(*[node(filled(EMPTY, 4_000))] * 500)),
        lambda: batch(run(*[node(filled(filled(EMPTY, 500), 4_000))] * 500)),
        lambda: batch(run(node(array(b"\x91" * 900 + filled(EMPTY, SIZE - 900))))),
        lambda: batch(run(node(kwargs=b"\xdf" + struct.pack(">I", 290_000) + NAMED))),
        lambda: batch(*[run(*[b"\x93\x01\xa0\x90"] * 1000)] * 500),
    ],
    ids=["many nodes", "lists of lists", "nesting", "named", "nodes without arguments"],
)  # fmt: skip
def test_a_batch_of_very_many_values_is_refused_however_they_are_spread(build: Callable[[], bytes]) -> None:
    data = build()
    assert len(data) <= MAX_BATCH
    assert isinstance(refused(m.decode_client, data), (InvalidInputError, LimitExceededError))


def test_a_long_batch_arrives_as_it_was_sent() -> None:
    """Long texts and constants are no values to count, and a wide operation has its place."""
    wide = [
        Node(1, "grid::columns", [Ref(0), [f"{'column' * 30} {place}" for place in range(MAX_ARGUMENTS - 2)]]),
        Node(2, "aten::full", [[2**62, -(2**62), True, None, 0.5], Dtype("float32")], {"fill": [Ref(1, 2), "x" * 300]}),
    ]
    many = [Node(n, "aten::add.Tensor", [Ref(n - 1), Ref(0)], {"alpha": 2.5}, 1, "a.py:1") for n in range(3, 4_000)]
    constant = m.Constant("0" * 64, m.TensorHeader("uint8", [200_000], 200_000), bytes(200_000))
    sent = m.ClientBatch(7, [m.Run(wide), constant, m.Run(many), m.Get(1, Ref(5)), m.Bye()])
    assert m.decode_client(m.encode(sent)) == sent


def test_a_long_batch_that_is_wrong_is_refused_like_a_short_one() -> None:
    good = m.encode(m.ClientBatch(1, [m.Run([Node(n, "aten::neg", [Ref(0)]) for n in range(1, 4_000)])]))
    assert len(good) > 2**16
    for data in (
        good[:-1],
        good[: len(good) // 2],
        batch(run(*[node(array(b"\xc1"))] * 10_000)),
        batch(run(*[node(array(pack(msgspec.msgpack.Ext(9, bytes(9)))))] * 4_000)),
        batch(run(*[b"\x93\xa1a\xa1a" + EMPTY] * 4_000), pack("x" * 2**16)),
        batch(run(*[b"\x93\xa1a\xa1a" + EMPTY] * 4_000), b"\x92\xa3bye" + pack("x" * 2**16)),
        batch(run(*[b"\x93\xa1a\xa1a" + array(pack("x" * 100))] * 4_000)),
        batch(run(b"\x94\x01\xa1a\x90" + filled(EMPTY, 10_000), *[node(array(pack("x" * 100)))] * 4_000)),
    ):
        with pytest.raises(InvalidInputError):
            m.decode_client(data)


def test_the_entries_of_a_plan_are_counted_as_others_write_them() -> None:
    """Blanks between the parts of an entry change nothing in the count."""
    text = json.dumps({"a" * 64: {"dtype": "F32", "shape": [1] * 17, "data_offsets": [0, 4]}}, indent=1)
    refused(decode_plan, plan(constants=array(pack(bytes(32))), tensors=tensors(text.strip("{}"))))
