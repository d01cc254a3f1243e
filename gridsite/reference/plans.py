"""The page of the plan format, and its test vectors: real plans with what they hold, and hostile ones."""

from __future__ import annotations

import inspect
import struct
from typing import Any

import msgspec

from gridclient.program import plan_format
from gridclient.program.graph import Dtype, Node, Ref, constant, tensor_digest
from gridclient.program.operations import OPERATIONS
from gridclient.program.plan_format import FORMAT_VERSION, MAGIC, MAX_INSTRUCTION, decode_plan, encode_plan, plan_digest
from gridclient.program.plan_graph import (
    MAX_DESCRIPTION,
    MAX_INPUTS,
    MAX_NAME,
    MAX_OPERATIONS,
    MAX_PLAN,
    MAX_VALUES,
    MAX_WRITTEN_OUT,
    SEEDED,
    Input,
    PlanGraph,
    Result,
    seed_of,
)
from gridclient.program.plan_tensors import Constant
from gridclient.wire.messages import TensorHeader

_PAGE = """\
# The format of a plan

What `plan.save(path)` writes and `plan.send(node)` sends; `Plan.load(path)` and a node read it. It holds names of
operations, numbers and texts, and no code. `plan-vectors.json` beside this page holds plans with what they decode to,
bytes that must be refused with the code of the error, and seeds.

```text
{layout}
```

## Body

| field | type | meaning |
|---|---|---|
| `operations` | int | version of the set of operations that it was made for |
| `name` | str | what nodes keep it under: small letters and digits, with `-` or `_` between them, at most {max_name} |
| `description` | str | at most {max_description} characters |
| `inputs` | list of `[name, dtype, shape]` | what a call gives, in order |
| `constants` | list of 32 bytes | digests, in the order in which the constants are numbered |
| `instructions` | list of `[operation, outputs, argument, ..., named arguments]` | see below |
| `code` | bytes | see below |
| `results` | list of `[value, dtype, shape]` | what a call gives back; then the stride, where it is not contiguous |

In an instruction an operation without `::` is an `aten` one. An argument is nil, a bool, an int, a float, a text, a
list of these, bytes with the name of a dtype, or empty bytes for a value. Named arguments are a map at the end, sorted
by name, and left out where there are none. Numbers of instructions follow the order of their first use.

`code` is for each operation the number of its instruction, then for each of its empty places (left to right, then named
arguments by name) the distance to the value: the number that the operation's first output gets, minus that of the
value. All are LEB128, in as few bytes as they need.

The digest of a constant is the `tensor_digest` of [the wire](wire/README.md). Its entries in the safetensors part lie
in the order of their names without gaps; blanks behind the header bring the values to a multiple of 8.

**Random operations** ({seeded}) have 0 for a seed, their last argument. A call brings one seed, 63 bits; the operation
at `place` (counted from 0, constants included) gets the first 8 bytes, little-endian and shifted right by one, of
sha256 of `gridsite/plan-seed/1`, the seed as `u64` and the place as `u32`.

## A call

A node keeps a plan under its name and knows it by the sha256 of its bytes. A call is one node of a program, operation
`grid::plan`, with the arguments `[sha256, size, [input, ...]]` and, where the plan draws, `seed`. `size` is the number
of its constants and operations: the call takes as many node ids, from its own on. The node writes the plan out there,
so that each operation is checked, labelled, priced and shown to a reviewer as if it had come by itself; the values
that are results can be used by these ids, and no others.

## Limits

A plan has at most {max_plan} bytes, {max_inputs} inputs and results, {max_operations} operations, {max_values} values,
and {max_written_out} arguments once it is written out. An instruction has at most {max_instruction} bytes.
"""


def _example(name: str, nodes: list[Node], results: list[tuple[Ref, Result]], **more: Any) -> PlanGraph:
    fields: dict[str, Any] = {"description": "", "constants": {}, "inputs": [Input("x", "float32", [2, 3])], **more}
    return PlanGraph(
        name, nodes=nodes, results=[ref for ref, _ in results], signature=[spec for _, spec in results], **fields
    )


def _plans() -> list[tuple[str, PlanGraph]]:
    data = struct.pack("<3f", 1.0, 2.0, 3.0)
    digest = tensor_digest("float32", [3], data)
    whole, row = Result(0, "float32", [2, 3]), Result(0, "float32", [3])
    return [
        (
            "One operation: x * 2.",
            _example("double", [Node(1, "aten::mul.Tensor", [Ref(0), 2.0])], [(Ref(1), whole)]),
        ),
        (
            "A constant, a named argument, a dtype, an output that is not the first, and an input handed through.",
            _example(
                "mixed",
                [
                    constant(1, digest),
                    Node(2, "aten::add.Tensor", [Ref(0), Ref(1)], {"alpha": 0.5}),
                    Node(3, "aten::max.dim", [Ref(2), 0], {}, 2),
                    Node(4, "aten::_to_copy", [Ref(3, 1)], {"dtype": Dtype("float64")}),
                ],
                [(Ref(3), row), (Ref(4), Result(0, "float64", [3])), (Ref(0), whole)],
                description="The largest of each column.",
                constants={digest: Constant(TensorHeader("float32", [3], len(data)), data)},
            ),
        ),
        (
            "Two operations that share an instruction, and a result that is not contiguous.",
            _example(
                "turned",
                [
                    Node(1, "aten::add.Tensor", [Ref(0), Ref(0)]),
                    Node(2, "aten::add.Tensor", [Ref(1), Ref(0)]),
                    Node(3, "aten::t", [Ref(2)]),
                ],
                [(Ref(3), Result(0, "float32", [3, 2], [1, 3]))],
            ),
        ),
    ]


def _hostile() -> list[tuple[str, bytes, str]]:
    good = encode_plan(_plans()[0][1])
    x = ["x", "float32", [2]]

    def packed(operation: str, code: bytes = b"\0\1") -> bytes:
        body = msgspec.msgpack.encode([1, "bad", "", [x], [], [[operation, 1, b"", 2.0]], code, [[1, "float32", [2]]]])
        return struct.pack("<8sBI", MAGIC, FORMAT_VERSION, len(body)) + body

    return [
        ("Another magic.", b"GRIDPLOT" + good[8:], "invalid_input"),
        ("A version of the format that does not exist.", good[:8] + b"\xff" + good[9:], "version_mismatch"),
        ("Cut short.", good[:-1], "invalid_input"),
        ("Something behind it.", good + b"\0", "invalid_input"),
        ("A body that is no MessagePack.", good[:13] + b"\xc1" * len(good[13:]), "invalid_input"),
        ("An operation that is not in the table.", packed("set_.source_Tensor"), "operation_not_allowed"),
        ("An operation that reads a dataset.", packed("grid::asset"), "operation_not_allowed"),
        ("A value before the first.", packed("mul.Tensor", b"\0\2"), "invalid_input"),
        ("A value that is its own operand.", packed("mul.Tensor", b"\0\0"), "invalid_input"),
        ("An instruction that is not there.", packed("mul.Tensor", b"\1\1"), "invalid_input"),
        ("A number in more bytes than it needs.", packed("mul.Tensor", b"\0\x81\0"), "invalid_input"),
        ("A number that does not end.", packed("mul.Tensor", b"\0\xff\xff\xff\xff\xff\xff"), "invalid_input"),
    ]


def plain(graph: PlanGraph) -> list[Any]:
    """A plan's nodes as JSON values, as `wire/vectors.json` writes them."""

    def convert(value: Any) -> Any:
        if isinstance(value, Ref):
            return {"ref": [value.node, value.output]}
        if isinstance(value, Dtype):
            return {"dtype": value.name}
        return [convert(item) for item in value] if isinstance(value, list) else value

    return [
        [node.id, node.op, convert(node.args), {name: convert(given) for name, given in node.kwargs.items()}]
        for node in graph.nodes
    ]


def _vector(meaning: str, graph: PlanGraph) -> dict[str, Any]:
    data = encode_plan(graph)
    graph = decode_plan(data)
    return {
        "meaning": meaning,
        "hex": data.hex(),
        "sha256": plan_digest(data),
        "name": graph.name,
        "inputs": [msgspec.to_builtins(given) for given in graph.inputs],
        "nodes": plain(graph),
        "results": [[ref.node, ref.output] for ref in graph.results],
        "size": graph.size,
    }


def vectors() -> dict[str, Any]:
    """Everything in `docs/reference/plan-vectors.json`."""
    return {
        "format": FORMAT_VERSION,
        "plans": [_vector(meaning, graph) for meaning, graph in _plans()],
        "refused": [{"meaning": meaning, "hex": data.hex(), "code": code} for meaning, data, code in _hostile()],
        "seeds": [
            {"seed": seed, "place": place, "gives": seed_of(seed, place)}
            for seed, place in ((0, 0), (0, 1), (2**63 - 1, 7))
        ],
    }


def page() -> str:
    """`docs/reference/plan-format.md`."""
    layout = (inspect.getdoc(plan_format) or "").split("\n\n")[1]
    return _PAGE.format(
        layout=inspect.cleandoc(layout),
        max_name=MAX_NAME,
        max_description=MAX_DESCRIPTION,
        seeded=", ".join(f"`{name}`" for name in sorted(SEEDED & OPERATIONS)) or "none yet",
        max_plan=MAX_PLAN,
        max_inputs=MAX_INPUTS,
        max_operations=MAX_OPERATIONS,
        max_values=MAX_VALUES,
        max_written_out=MAX_WRITTEN_OUT,
        max_instruction=MAX_INSTRUCTION,
    )
