"""Attack 5: bytes whose decoding runs code, and decoders that the sender chooses.

What an owner would lose: the node. The bait leaves a file when it is unpickled; no upload, frame or dtype may do that.
"""

from __future__ import annotations

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from gridclient.program.graph import Dtype, tensor_digest
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, InvalidInputError
from gridclient.wire.frames import pack_batch, pack_chunk
from gridclient.wire.tensors import ITEM_SIZES
from tests.attacks.conftest import Private
from tests.attacks.ward import Ward
from tests.factories.raw import RawClient

TYPED = {"invalid_input", "limit_exceeded", "not_found", "operation_not_allowed", "shape", "publish_not_permitted"}


class Bait:
    """Unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "code-ran"


def pickles(trap: Path) -> list[bytes]:
    found = [pickle.dumps(Bait(trap), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    found.append(b"cpathlib\nPath.touch\n(tR.")
    return found


def test_the_bait_works(trap: Path) -> None:
    pickle.loads(pickles(trap)[2])
    assert trap.exists()


def alive(client: RawClient) -> None:
    """The session goes on."""
    constant = client.constant(np.ones(2))
    assert client.get(client.node("aten::add.Tensor", constant, 1)).tolist() == [2.0, 2.0]


def test_pickles_in_frames_are_bytes_that_mean_nothing(ward: Ward, trap: Path) -> None:
    source = random.Random(1)
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        for body in pickles(trap):
            ext = msgspec.msgpack.encode(
                [source.randrange(2, 900), [["run", [[1, "aten::neg", [msgspec.msgpack.Ext(3, body)]]]]]]
            )
            for data in (body, ext, pack_batch(body), pack_chunk(1, 0, body)):
                client.socket.send(data if data is not ext else pack_batch(ext))
                reply = client.receive()
                assert isinstance(reply, m.Error) and reply.code in TYPED, reply
        alive(client)
    assert not trap.exists()


def test_unknown_extensions_are_refused(ward: Ward, trap: Path) -> None:
    source = random.Random(2)
    for _ in range(2):
        with RawClient(ward.url, ward.tokens["scientist"]) as client:
            for number in range(24):
                code = source.choice([-1, 0, 1, 2, 3, 5, 42, 127, -128])
                body = source.choice([source.randbytes(source.randrange(80)), *pickles(trap)])
                if (code == 2 and len(body) <= 32) or (code == 1 and len(body) == 5):
                    code = 3
                value = msgspec.msgpack.Ext(code, body)
                frame = [100 + number, [["run", [[number + 1, "aten::neg", [value]]]]]]
                client.socket.send(pack_batch(msgspec.msgpack.encode(frame)))
                reply = client.receive()
                assert isinstance(reply, m.Error) and reply.code == "invalid_input", (code, reply)
    assert not trap.exists()


NAMES = [
    "os.system",
    "object",
    "O",
    "|O8",
    "torch.load",
    "numpy.object_",
    "__reduce__",
    "str",
    "U8",
    "void",
    "complex64",
    "qint8",
    "float32; import os",
    "../float32",
    "",
    "FLOAT32",
    "storage",
    "dtype",
    "load",
    "serialization",
]


def test_dtypes_are_names_of_a_list(ward: Ward, births: Private) -> None:
    """As header of a constant, and as an argument."""
    assert not set(NAMES) & set(ITEM_SIZES)
    with RawClient(ward.url, ward.tokens["owner"]) as client:
        x = client.asset(births.dataset)
        for name in NAMES:
            for build in (
                lambda name=name: client.node("aten::_to_copy", x, dtype=Dtype(name)),
                lambda name=name: client.node("aten::_to_copy", x, dtype=name),
                lambda name=name: client.node("aten::sum", x, dtype=Dtype(name)),
            ):
                with pytest.raises(InvalidInputError):
                    client.get(build())
            header = m.TensorHeader(name, [1], 8)
            client.send(m.Constant(tensor_digest(name, [1], b"8 bytes!"), header, b"8 bytes!"))
            with pytest.raises(GridError) as refused:
                client.get(client.node("grid::constant", tensor_digest(name, [1], b"8 bytes!")))
            assert refused.value.code in TYPED


def raw_safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F64") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def hostile_tensors(trap: Path) -> dict[str, bytes]:
    values = np.arange(8.0)
    good = save({"values": values})
    return {
        "pickle": pickles(trap)[4],
        "npz": b"PK\x03\x04" + pickles(trap)[2],
        "torch zip": b"PK\x03\x04archive/data.pkl" + pickles(trap)[2],
        "npy of objects": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        + pickles(trap)[2],
        "empty": b"\x00",
        "endless header": struct.pack("<Q", 2**63) + b"{}",
        "header longer than the file": struct.pack("<Q", 10_000) + b"{}",
        "no JSON": raw_safetensors(b"{'values': __import__('os')}"),
        "deep JSON": raw_safetensors(b'{"values":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
        "same key twice": raw_safetensors(
            b'{"values":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"values":{"dtype":"F64","shape":[8],"data_offsets":[0,64]}}',
            bytes(64),
        ),
        "overlap": raw_safetensors({"values": entry([8], 0, 64), "entities": entry([8], 0, 64, "I64")}, bytes(64)),
        "hole": raw_safetensors({"values": entry([1], 8, 16)}, bytes(16)),
        "beyond the file": raw_safetensors({"values": entry([100], 0, 800)}, bytes(64)),
        "negative": raw_safetensors({"values": entry([-8], 0, 64)}, bytes(64)),
        "huge": raw_safetensors({"values": entry([2**40, 2**40], 0, 64)}, bytes(64)),
        "zero times huge": raw_safetensors({"values": entry([0, 2**40], 0, 0)}),
        "object dtype": raw_safetensors({"values": entry([8], 0, 64, "O")}, bytes(64)),
        "code as dtype": raw_safetensors({"values": entry([8], 0, 64, "os.system")}, bytes(64)),
        "text as shape": raw_safetensors(
            {"values": {"dtype": "F64", "shape": "8", "data_offsets": [0, 64]}}, bytes(64)
        ),
        "float shape": raw_safetensors(
            {"values": {"dtype": "F64", "shape": [8.0], "data_offsets": [0, 64]}}, bytes(64)
        ),
        "many": raw_safetensors({f"t{i}": entry([0], 0, 0) for i in range(5000)}),
        "path as name": raw_safetensors({"../../values": entry([8], 0, 64)}, bytes(64)),
        "cut": good[:-8],
        "longer": good + b"12345678",
        "scalar": save({"values": np.array(1.0)}),
    }


def hostile_tables(trap: Path) -> dict[str, bytes]:
    def stream(table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    evil = pickles(trap)[4]
    extension = pa.field(
        "a",
        pa.binary(),
        metadata={b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil},
    )
    schema = pa.schema([extension], metadata={b"pandas": evil})
    good = stream(pa.table({"a": pa.array([1.0, 2.0])}))
    return {
        "pickle": evil,
        "pickled extension type": stream(pa.table([pa.array([evil, evil])], schema=schema)),
        "binary column": stream(pa.table({"a": pa.array([evil, evil])})),
        "nested": stream(pa.table({"a": pa.array([[1.0], [2.0]])})),
        "struct": stream(pa.table({"a": pa.array([{"__reduce__": 1.0}, {"__reduce__": 2.0}])})),
        "same column twice": stream(pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])),
        "cut": good[: len(good) // 2],
        "file, not stream": b"ARROW1\x00\x00" + good,
        "bytes": random.Random(3).randbytes(500),
        "length of 2**31": struct.pack("<II", 0xFFFFFFFF, 0x7FFFFFF0) + bytes(64),
        "flipped": bytes(byte ^ (255 if place % 61 == 60 else 0) for place, byte in enumerate(good)),
    }


@pytest.mark.parametrize("part", ["values", "mock"])
def test_hostile_uploads_are_refused_and_nothing_runs(ward: Ward, trap: Path, part: str) -> None:
    good = {"tensor": save({"values": np.arange(8.0)}), "table": b""}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("a", pa.float64())])) as writer:
        writer.write_table(pa.table({"a": pa.array([1.0, 2.0])}))
    good["table"] = bytes(sink.getvalue())
    listing = ward.call("owner", "GET", "datasets/?limit=100")[1]["results"]
    with RawClient(ward.url, ward.tokens["owner"]) as client:
        for kind, cases in (("tensor", hostile_tensors(trap)), ("table", hostile_tables(trap))):
            for number, (name, data) in enumerate(cases.items()):
                values = client.upload(data if part == "values" else good[kind], "values")
                mock = client.upload(data, "mock") if part == "mock" else 0
                columns = [m.Column("a", low=-1e9, high=1e9)] if kind == "table" else []
                spec = m.PublishSpec(kind=kind, name=f"Hostile {number}", columns=columns)
                with pytest.raises(GridError) as refused:
                    client.ask(m.Publish(5000 + number + 1000 * (kind == "table"), spec, values, mock))
                assert refused.value.code in TYPED, (kind, name, refused.value)
        alive(client)
    assert not trap.exists()
    assert ward.call("owner", "GET", "datasets/?limit=100")[1]["results"] == listing


def test_the_sender_chooses_no_decoder(ward: Ward) -> None:
    with RawClient(ward.url, ward.tokens["owner"]) as client:
        for number, kind in enumerate(["pickle", "npz", "torch", "pt2", "module", "../tensor", "", "TENSOR", "csv"]):
            values = client.upload(save({"values": np.arange(8.0)}), "values")
            with pytest.raises(GridError) as refused:
                client.ask(m.Publish(number + 1, m.PublishSpec(kind=kind, name="x"), values))
            assert refused.value.code in TYPED, refused.value
        for purpose in ("pickle", "onnx", "module", "../values", ""):
            with pytest.raises(GridError) as refused:
                client.upload(b"x", purpose)
            assert refused.value.code in TYPED
