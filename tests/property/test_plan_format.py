"""Bytes that nobody made: a node or a notebook that reads them gets a typed error or a plan, and nothing else."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gridclient.program.operations import OPERATIONS
from gridclient.program.plan_format import FORMAT_VERSION, MAGIC, decode_plan, encode_plan
from gridclient.wire.errors import GridError
from gridsite.reference.plans import vectors

GOOD = [bytes.fromhex(vector["hex"]) for vector in vectors()["plans"]]
CAP = 8 * 2**20
"""Bytes that reading a short file may take."""

_names = st.sampled_from(sorted(OPERATIONS)).map(lambda name: name.removeprefix("aten::"))
_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
    | st.sampled_from([b"", b"float32", b"int64"]) | st.binary(max_size=4)
)  # fmt: skip
_arguments = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
_instructions = st.lists(
    st.tuples(_names | st.text(max_size=8), st.integers(-1, 4)).flatmap(
        lambda head: st.lists(_arguments, max_size=4).map(lambda args: [*head, *args])
    ),
    max_size=4,
)
_shapes = st.lists(st.integers(-1, 2**62), max_size=4)
_bodies = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["plan", "a-b", "", "A", "../x"]),
    st.text(max_size=5),
    st.lists(
        st.tuples(st.sampled_from(["x", "y", "1"]), st.sampled_from(["float32", "bool", "no"]), _shapes), max_size=3
    ),
    st.lists(st.binary(min_size=31, max_size=32), max_size=1),
    _instructions,
    st.binary(max_size=12),
    st.lists(st.tuples(st.integers(-1, 9), st.sampled_from(["float32", "int64"]), _shapes), max_size=3),
)


def read(data: bytes) -> None:
    """A plan, whose encoding is these bytes and no others, or one of our errors; never much memory."""
    tracemalloc.start()
    try:
        try:
            graph = decode_plan(data)
        except GridError:
            return
        finally:
            assert tracemalloc.get_traced_memory()[1] < CAP
    finally:
        tracemalloc.stop()
    assert encode_plan(graph) == data


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    read(data)
    read(struct.pack("<8sBI", MAGIC, FORMAT_VERSION, len(data)) + data)


@settings(max_examples=300)
@given(_bodies, st.binary(max_size=16))
def test_any_body_that_follows_the_schema(body: Any, constants: bytes) -> None:
    data = msgspec.msgpack.encode(list(body))
    read(struct.pack("<8sBI", MAGIC, FORMAT_VERSION, len(data)) + data + constants)
    read(struct.pack("<8sBI", MAGIC, FORMAT_VERSION, len(data)) + data)


@settings(max_examples=300)
@given(st.sampled_from(GOOD), st.data())
def test_a_plan_with_bytes_changed_added_or_taken(good: bytes, data: st.DataObject) -> None:
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    read(bytes(changed))
    read(good[: data.draw(st.integers(0, len(good)))])
