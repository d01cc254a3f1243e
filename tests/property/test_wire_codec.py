"""Whatever arrives, the codec answers with a value or a GridError: a hostile frame must not end a node's process."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gridclient.program import graph
from gridclient.program.graph import Dtype, Node, Program, Ref
from gridclient.wire import errors, frames
from gridclient.wire import messages as m
from gridclient.wire.counting import has_more_values
from gridclient.wire.tensors import ITEM_SIZES, check_header

numbers = st.integers(-(2**63), 2**63 - 1)
small = st.integers(0, 2**31)
text = st.text(max_size=20)
references = st.builds(Ref, st.integers(0, 2**32 - 1), st.integers(0, 255))
dtypes = st.builds(Dtype, st.sampled_from(sorted(ITEM_SIZES)))
scalars = st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | text | references | dtypes
arguments = scalars | st.lists(scalars, max_size=4)
nodes = st.builds(
    Node, small, text, st.lists(arguments, max_size=4), st.dictionaries(text, arguments, max_size=3), small, text
)
headers = st.builds(m.TensorHeader, text, st.lists(numbers, max_size=4), numbers)
commands = st.one_of(
    st.builds(m.Hello, text, small, small, text, text),
    st.builds(m.Begin),
    st.builds(m.Upload, small, small, text, text, text, st.none() | headers),
    st.builds(m.Constant, text, headers, st.binary(max_size=64)),
    st.builds(m.Run, st.lists(nodes, max_size=4)),
    st.builds(m.Drop, st.lists(references, max_size=4)),
    st.builds(m.Get, small, references),
    st.builds(m.Request, small, references, text),
    st.builds(m.Ack, small, small),
    st.builds(m.Bye),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | text | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
kinds = st.sampled_from(["hello", "upload", "constant", "run", "drop", "get", "request", "fetch", "publish", "welcome"])


def _read(data: bytes | memoryview) -> None:
    for decode in (m.decode_client, m.decode_node, graph.decode_program):
        with suppress(errors.GridError):
            decode(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_frame_or_an_error(data: bytes) -> None:
    with suppress(errors.GridError):
        frames.unpack(data)


@given(st.binary(max_size=300))
def test_random_bodies_are_a_batch_or_an_error(data: bytes) -> None:
    _read(frames.unpack(frames.pack_batch(data)).body)


@given(st.lists(values, max_size=4) | values)
def test_any_message_pack_is_a_batch_or_an_error(value: Any) -> None:
    _read(msgspec.msgpack.encode(value))


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_size(key) + _size(item) for key, item in value.items())
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


extensions = st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.integers(0, 300).map(bytes))
long = st.sampled_from([0, 31, 32, 255, 256, 2**16 - 1, 2**16])


@given(st.lists(values | extensions | references.map(graph._pack) | long.map(bytes) | long.map("a".__mul__), max_size=8)
       | st.integers(0, 2**17).map(lambda count: [None] * count))  # fmt: skip
def test_values_are_counted_without_decoding_them(value: Any) -> None:
    data = msgspec.msgpack.encode(value)
    assert has_more_values(data, _size(value) - 1) and not has_more_values(data, _size(value))


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_can_be_counted(data: bytes, limit: int) -> None:
    has_more_values(data, limit)


@given(kinds, st.lists(values, max_size=8))
def test_any_fields_behind_a_known_kind_are_a_command_or_an_error(kind: str, fields: list[Any]) -> None:
    _read(msgspec.msgpack.encode([1, [[kind, *fields]]]))


@given(st.lists(commands, max_size=4), st.integers(0, 2**40), st.data())
def test_a_batch_cut_or_bent_on_its_way_never_arrives_as_another(
    sent: list[m.ClientCommand], number: int, data: st.DataObject
) -> None:
    frame = bytearray(frames.pack_batch(m.encode(m.ClientBatch(number, sent))))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(errors.GridError):
        unpacked = frames.unpack(bytes(frame))
        # One bit of the kind turns a batch into a chunk of transfer 0, which nobody announced.
        assert unpacked.kind == frames.CHUNK and unpacked.transfer == 0


@given(st.lists(commands, max_size=4), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_batch_arrives_as_it_was_sent(sent: list[m.ClientCommand], number: int, seen: int) -> None:
    batch = m.ClientBatch(number, sent, seen)
    assert m.decode_client(frames.unpack(frames.pack_batch(m.encode(batch))).body) == batch


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=100))
def test_a_chunk_arrives_as_it_was_sent(transfer: int, offset: int, body: bytes) -> None:
    frame = frames.unpack(frames.pack_chunk(transfer, offset, body))
    assert (frame.kind, frame.transfer, frame.offset, bytes(frame.body)) == (frames.CHUNK, transfer, offset, body)


@given(st.lists(nodes, max_size=4), st.lists(references, max_size=3))
def test_a_stored_program_is_read_back_as_it_was_approved(rows: list[Node], results: list[Ref]) -> None:
    program = Program(rows, results)
    assert graph.decode_program(graph.encode_program(program)) == program


@given(headers, st.integers(0, 2**40))
def test_a_tensor_header_that_passes_says_its_true_size(header: m.TensorHeader, limit: int) -> None:
    try:
        check_header(header, limit)
    except errors.GridError:
        return
    size = ITEM_SIZES[header.dtype]
    for extent in header.shape:
        assert extent >= 0
        size *= extent
    assert size == header.nbytes <= limit
