"""Test vectors of the wire: real frames, what they mean, and hostile ones with the code of their refusal."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from gridclient.program import graph
from gridclient.program.graph import Dtype, Node, Ref
from gridclient.wire import frames
from gridclient.wire import messages as m

_DATA = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)
_ESTIMATE = {
    "cost": 0.175,
    "remaining": 1.5,
    "epsilon": 0.5,
    "delta": 1e-06,
    "sigma": 22.125,
    "within_95": 43.375,
    "of_range": 0.0078125,
}
_RECEIPT = _ESTIMATE | {
    "id": "0190b3a0-0000-7000-8000-000000000003",
    "position": 1,
    "stored": False,
    "sigmas": [22.125],
}
_HEADER = m.TensorHeader("float32", [2, 2], 16)
_DIGEST = graph.tensor_digest("float32", [2, 2], _DATA)
_NODES = [
    graph.asset(1, "0190b3a0-0000-7000-8000-000000000001", 1),
    graph.constant(2, _DIGEST),
    Node(3, "aten::_to_copy", [Ref(1)], {"dtype": Dtype("float64")}, 1, "notebook.py:3"),
    Node(4, "aten::sum.dim_IntList", [Ref(3), [0], True], {}, 1, "notebook.py:4"),
    Node(5, "aten::max.dim", [Ref(3), 0], {}, 2, "notebook.py:5"),
    Node(6, "aten::add.Tensor", [Ref(4), Ref(5, 1)], {"alpha": 2.5}, 1, "notebook.py:6"),
]
_SPEC = m.PublishSpec(
    kind="tensor",
    description="Births of February.",
    tags=["#February", "#birth-records"],
    columns=[m.Column("weight_kg", low=0.5, high=6.0), m.Column("height_cm", low=30.0, high=60.0)],
    allowed_users=["bob"],
)

CLIENT: list[tuple[str, m.ClientCommand]] = [
    ("Open a session with an access token.", m.Hello("grd_abcdefgh_" + "A" * 43, m.PROTOCOL_VERSION, 1, "example 1.0")),
    (
        "Go on with a session over a new socket.",
        m.Hello("grd_abcdefgh_" + "A" * 43, m.PROTOCOL_VERSION, 1, "example 1.0", "44" * 32),
    ),
    ("Announce a constant of 16 bytes as transfer 1.", m.Upload(1, 16, "00" * 32, "constant", _DIGEST, _HEADER)),
    ("Announce the values of a dataset as transfer 2.", m.Upload(2, 2**20, "11" * 32, "values")),
    ("A small constant, [[1, 2], [3, 4]] in float32.", m.Constant(_DIGEST, _HEADER, _DATA)),
    ("Six nodes: inputs, a cast, a sum, a maximum with its index, an addition.", m.Run(_NODES)),
    ("The client holds outputs 0 and 1 of node 5 no longer.", m.Drop([Ref(5), Ref(5, 1)])),
    ("Ask for output 0 of node 6.", m.Get(1, Ref(6))),
    ("Ask for the same value privately, at epsilon 0.5.", m.Get(8, Ref(6), 0.5, key="once-8")),
    ("What would it cost, with noise of at most 50?", m.Estimate(9, Ref(6), None, 50.0)),
    ("Ask for the state of a module, as one.", m.Take(5, "6f1d", ["weight", "bias"], [Ref(3), Ref(4)])),
    ("Put the same value into the queue.", m.Request(2, Ref(6), "Monthly report of the ward")),
    (
        "Put the state of a module into the queue.",
        m.Request(6, Ref(3), "A risk score for the ward", "6f1d", ["weight", "bias"], [Ref(3), Ref(4)]),
    ),
    (
        "Put it into the queue; asked again under this key, it is the same request.",
        m.Request(8, Ref(6), "Monthly report of the ward", key="55" * 16),
    ),
    ("Fetch the answer of an approved request.", m.Fetch(3, "0190b3a0-0000-7000-8000-000000000002")),
    ("Publish what transfer 2 brought.", m.Publish(4, _SPEC, 2)),
    ("Keep the plan that transfer 3 brought; others may copy it.", m.Plan(7, 3, True)),
    ("The values were lost: the program begins anew.", m.Begin()),
    ("16 bytes of transfer 7 have arrived.", m.Ack(7, 16)),
    ("End the session.", m.Bye()),
]
NODE: list[tuple[str, m.NodeCommand]] = [
    (
        "The session is open.",
        m.Welcome(
            "5f2c",
            m.PROTOCOL_VERSION,
            1,
            "hospital",
            "Hospital",
            "bob",
            ["compute.use"],
            {"max_value": 2**30},
            "44" * 32,
        ),
    ),
    ("The session's worker ended: its values are gone.", m.Lost()),
    ("Transfer 2 may begin.", m.Ack(2, 0)),
    ("A released value, inline.", m.Answer(1, "tensor", _HEADER, _DATA)),
    (
        "A released value of 1 MiB that transfer 9 brings.",
        m.Answer(1, "tensor", m.TensorHeader("uint8", [2**20], 2**20), None, 9, "22" * 32),
    ),
    ("A private answer, and what it was charged.", m.Answer(8, "tensor", _HEADER, _DATA, receipt=_RECEIPT)),
    ("What a private answer would cost.", m.Estimated(9, _ESTIMATE)),
    ("The request is in the queue.", m.Submitted(2, "0190b3a0-0000-7000-8000-000000000002")),
    ("The dataset is published.", m.Published(4, {"slug": "births-of-february", "version": 1})),
    ("The plan is kept.", m.Planned(7, {"name": "train-step", "sha256": "33" * 32})),
    (
        "The value may not leave.",
        m.Refused(1, "get_not_permitted", "This value may not leave.", {"possible": ["ask with .request()"]}, "n.py:6"),
    ),
    ("A transfer failed outside an ask.", m.Error("invalid_input", "The checksum does not fit.", {}, 2)),
    ("The node ends the session.", m.Goodbye("authentication", "The token was revoked.")),
]


def _batch(value: Any) -> bytes:
    return frames.pack_batch(msgspec.msgpack.encode(value))


_GOOD = frames.pack_batch(m.encode(m.ClientBatch(1, [m.Bye()])))
_RUN = [1, [["run", [[1, "aten::neg", [msgspec.msgpack.Ext(9, b"x")]]]]]]
HOSTILE: list[tuple[str, bytes]] = [
    ("Shorter than a header.", _GOOD[:16]),
    ("Frame kind 2.", b"\x02" + _GOOD[1:]),
    ("A batch that claims to belong to transfer 1.", frames.HEADER.pack(frames.BATCH, 1, 0, 0)),
    ("One bit of the body differs from the checksum.", _GOOD[:-1] + bytes([_GOOD[-1] ^ 1])),
    ("Not MessagePack.", frames.pack_batch(b"\xc1")),
    ("A command that does not exist.", _batch([1, [["eval", "1 + 1"]]])),
    ("A command of the other direction.", _batch([1, [["goodbye", "", ""]]])),
    ("Text where a number belongs.", _batch([1, [["get", "1", {"node": 1, "output": 0}]]])),
    ("A field is missing.", _batch([1, [["request", 1]]])),
    ("One field too many.", _batch([1, [["bye", 1]]])),
    ("An extension that is neither a reference nor a dtype.", _batch(_RUN)),
    ("Nested deeper than any argument.", frames.pack_batch(b"\x91" * 4000)),
]


def _plain(body: bytes | memoryview) -> Any:
    """The MessagePack of a batch as JSON values; bytes as {"bytes": hex}, extensions as {"ref"} and {"dtype"}."""

    def convert(value: Any) -> Any:
        if isinstance(value, Ref):
            return {"ref": [value.node, value.output]}
        if isinstance(value, Dtype):
            return {"dtype": value.name}
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, list):
            return [convert(item) for item in value]
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return value

    return convert(msgspec.msgpack.decode(body, ext_hook=graph.ext_hook))


def _frame(meaning: str, sender: str, data: bytes) -> dict[str, Any]:
    frame = frames.unpack(data)
    header = {"kind": frame.kind, "transfer": frame.transfer, "offset": frame.offset}
    content = {"batch": _plain(frame.body)} if frame.kind == frames.BATCH else {"chunk": bytes(frame.body).hex()}
    return {"meaning": meaning, "from": sender, "hex": data.hex(), "header": header, **content}


def vectors() -> dict[str, Any]:
    """Everything in `docs/reference/wire/vectors.json`."""
    good = [
        _frame(meaning, "client", frames.pack_batch(m.encode(m.ClientBatch(number, [command]))))
        for number, (meaning, command) in enumerate(CLIENT, 1)
    ]
    good += [
        _frame(meaning, "node", frames.pack_batch(m.encode(m.NodeBatch(number, [command]))))
        for number, (meaning, command) in enumerate(NODE, 1)
    ]
    several = m.ClientBatch(13, [m.Run(_NODES[:1]), m.Get(5, Ref(1))], seen=4)
    good.append(
        _frame(
            "Two commands in one batch; batches up to 4 have arrived.", "client", frames.pack_batch(m.encode(several))
        )
    )
    good.append(_frame("Bytes 8 to 16 of transfer 1.", "client", frames.pack_chunk(1, 8, _DATA[8:])))
    hashes = graph.program_hashes(_NODES)
    return {
        "protocol": m.PROTOCOL_VERSION,
        "frames": good,
        "refused": [
            {"meaning": meaning, "from": "client", "hex": data.hex(), "code": "invalid_input"}
            for meaning, data in HOSTILE
        ],
        "hashes": {
            "tensor_digest": {"dtype": "float32", "shape": [2, 2], "bytes": _DATA.hex(), "sha256": _DIGEST},
            "lineage": {
                "meaning": "Hashes of the nodes that the `run` command above holds, by node id.",
                "sha256": {str(number): value for number, value in hashes.items()},
            },
            "results": {"refs": [[6, 0], [5, 1]], "sha256": graph.result_hash([Ref(6), Ref(5, 1)], hashes)},
        },
    }
