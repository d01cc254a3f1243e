"""Good messages to begin from: the vectors of the wire, files, plans, bodies and texts."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from gridclient.program import graph
from gridclient.program.graph import Dtype, Node, Program, Ref, constant, tensor_digest
from gridclient.program.plan_format import _HEAD, encode_plan
from gridclient.program.plan_graph import Input, PlanGraph, Result
from gridclient.program.plan_tensors import Constant
from gridclient.wire import messages as m
from gridclient.wire.frames import BATCH, unpack
from tests.factories.network import metadata

_unpacked = msgspec.msgpack.decode
VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "docs" / "reference" / "wire" / "vectors.json").read_text()
)


def _batches(sender: str) -> list[Any]:
    framed = [unpack(bytes.fromhex(each["hex"])) for each in VECTORS["frames"] if each["from"] == sender]
    return [_unpacked(frame.body) for frame in framed if frame.kind == BATCH]


_SPEC = m.PublishSpec(
    "table", "Births", "Weights of newborns.", ["#births"], [m.Column("a", low=0.0, high=1.0), m.Column("b", "category",
    categories=["x", "y"])], "id", None, 2, 100, "null", "listed", True, ["ana"], None,
)  # fmt: skip
_COMMANDS = [
    m.Begin(), m.Take(2, "module", ["weight"], [Ref(1)]),
    m.Request(3, Ref(1), "A study.", "m", ["w"], [Ref(1)], "key-1"),
    m.Fetch(4, "00000000-0000-4000-8000-000000000000"), m.Publish(5, _SPEC, 1, 2, "key-2"), m.Plan(6, 1, True, "key-3"),
    m.Drop([Ref(1), Ref(2, 1)]), m.Get(7, Ref(1)), m.Ack(1, 512),
]  # fmt: skip
CLIENT = [*_batches("client"), *(_unpacked(m.encode(m.ClientBatch(2, [command], 1))) for command in _COMMANDS)]


def _stream(table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


_TABLE = pa.table(
    {
        "a": pa.array([1.0, None, 3.0]),
        "b": pa.array(["x", "yy", "x"]),
        "c": pa.array(["x", "yy", "x"]).dictionary_encode(),
        "d": pa.array([True, False, None]),
        "e": pa.array([date(2026, 2, 1)] * 3),
        "f": pa.array([1, 2, 3], pa.int16()),
    }
)
ARROW = [
    _stream(_TABLE),
    _stream(_TABLE.select(["a"])),
    _stream(pa.table({"n": pa.array([[1.0], [2.0]]), "s": pa.array([{"k": 1}, {"k": 2}])})),
    _stream(_TABLE, pa.ipc.IpcWriteOptions(compression="zstd")),
]
_STATE: tuple[dict[str, Any], bytes] = (
    {
        "values": {"dtype": "F64", "shape": [2, 3], "data_offsets": [0, 48]},
        "entities": {"dtype": "I64", "shape": [2], "data_offsets": [48, 64]},
        "empty": {"dtype": "U8", "shape": [0, 4], "data_offsets": [64, 64]},
        "__metadata__": {"format": "pt"},
    },
    bytes(64),
)
SAFETENSORS = [_STATE, ({name: _STATE[0][name] for name in ("values", "entities")}, bytes(64))]
_FILE = len(text := json.dumps(_STATE[0]).encode()).to_bytes(8, "little") + text + bytes(64)
_ANSWERS = [
    m.Answer(1, "tensor", m.TensorHeader("float32", [2, 2], 16), bytes(16)),
    m.Answer(1, "table", m.TensorHeader("uint8", [len(ARROW[0])], len(ARROW[0])), ARROW[0]),
    m.Answer(1, "state", m.TensorHeader("uint8", [len(_FILE)], len(_FILE)), _FILE),
]
NODE = [*_batches("node"), *(_unpacked(m.encode(m.NodeBatch(2, [command], 1))) for command in _ANSWERS)]

_NODES = [
    graph.asset(1, "00000000-0000-4000-8000-000000000000", 1),
    constant(2, "0" * 64),
    Node(3, "aten::_to_copy", [Ref(1)], {"dtype": Dtype("float32")}),
    Node(4, "aten::sum.dim_IntList", [Ref(3), [0, 1], True], {}, 1, "a.py:1"),
    Node(5, "aten::max.dim", [Ref(4), 0], {}, 2),
]
PROGRAMS = [_unpacked(graph.encode_program(Program(_NODES[:count], [Ref(count)]))) for count in (1, 3, 5)]


def _plan(name: str, *nodes: Node, constants: dict[str, Constant]) -> tuple[bytes, Any, bytes]:
    last = nodes[-1].id
    inputs, results = [Input("x", "float32", [2])], [Result(0, "float32", [2], [1])]
    plan = PlanGraph(name, "Doubles.", inputs, list(nodes), [Ref(last)], results, constants)
    data = encode_plan(plan)
    end = _HEAD.size + _HEAD.unpack_from(data)[2]
    return data[: _HEAD.size], _unpacked(data[_HEAD.size : end]), data[end:]


_DIGEST = tensor_digest("float32", [2], bytes(8))
PLANS = [
    _plan("double", Node(1, "aten::mul.Tensor", [Ref(0), 2.0]), constants={}),
    _plan(
        "with-constants", constant(1, _DIGEST), Node(2, "aten::add.Tensor", [Ref(0), Ref(1)], {"alpha": 2}),
        Node(3, "grid::rand", [[2], Dtype("float32"), 0]), Node(4, "aten::stack", [[Ref(2), Ref(3)], 0]),
        Node(5, "aten::sum.dim_IntList", [Ref(4), [0]]),
        constants={_DIGEST: Constant(m.TensorHeader("float32", [2], 8), bytes(8))},
    ),
]  # fmt: skip

_ID = "00000000-0000-4000-8000-000000000000"
PUSHES = [
    {"base": None, "revision": 3, "put": [metadata()], "remove": [], "keep": [_ID]},
    {"base": 1, "revision": 2, "put": [metadata(2, tags=[], columns=None), metadata(3)], "remove": [_ID], "keep": []},
]
MESSAGES = [
    {"id": "hospital", "name": "Hospital", "url": "https://hospital.example", "public_key": "0" * 64},
    {"id": "hospital", "state": "approved", "reason": "Known."},
    {"state": "approved", "revision": 1, "in_step": True, "refused": [[_ID, "too long"]]},
    {"role": "node", "name": "H", "id": "h", "protocol": 1, "operations": 1, "public_key": "0" * 64, "signature": "00"},
    metadata(),
]
ASSERTION = {
    "protocol": "gridsite/assertion/1", "network_key": "0" * 64, "network": "n", "user_id": "7", "username": "dana",
    "node_key": "0" * 64, "session_key": "0" * 64, "issued": 1, "expires": 2, "id": "0" * 32,
}  # fmt: skip
BODIES: list[Any] = [
    {"username": "ana", "password": "correct horse battery staple"},
    {"username": "ana", "password": "correct horse battery staple", "roles": ["owner"]},
    {"roles": ["owner"], "active": True, "password": "x", "old_password": "y"},
    {"slug": "lab", "name": "Lab", "members": ["ana"]},
    {"name": "laptop", "user": None, "expires": "2027-01-31", "scopes": ["read"]},
    {"name": "Births", "description": "d", "tags": ["#a"], "visibility": "listed", "accounts_may_compute": False},
    {
        "to": "team:lab",
        "right": "train",
        "columns": ["a"],
        "programs": ["0" * 64],
        "expires": "2027-01-31",
        "reason": "r",
    },
    {"reason": "Fine.", "seen": "2026-02-01T12:00:00Z"},
    {"node": "hospital", "session_key": "0" * 64},
    {"assertion": ASSERTION, "signature": "0" * 128, "challenge": "00" * 88, "proof": "0" * 128},
    {"public_key": "0" * 64, "reason": ""},
]
WORDS = [
    "#February", "birth-records", "ana", "dana@network", "team:lab", "key-1", "0" * 64, "00" * 88,
    "A study of weights.", "https://hospital.example:8443/", "2027-01-31T12:00:00Z", "Kölner Straße", "เด็ก", "नमस्ते",
    "가나다", "eee\u0301\u0316",
]  # fmt: skip
