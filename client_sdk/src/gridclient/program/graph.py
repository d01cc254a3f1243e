"""The program: an append-only graph of operations over named inputs. Knows neither torch nor numpy.

A node is an operation name with arguments; an argument may be a `Ref` to an output of an earlier node. Node ids are
chosen by the client and only grow. Two kinds of node have no operation of their own: inputs (`grid::asset`,
`grid::constant`), whose arguments name published data or a constant by its digest.

The **lineage hash** of a node is the Merkle hash of its operation, its arguments and the hashes of its inputs, so
the same computation has the same hash in any session, whatever its node ids.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gridclient.wire.counting import has_more_values
from gridclient.wire.errors import InvalidInputError, LimitExceededError

ASSET = "grid::asset"
CONSTANT = "grid::constant"
PARAMETER = "grid::parameter"
AGGREGATE = "grid::aggregate"

_REF, _DTYPE = 1, 2
_REF_BYTES = struct.Struct("<IB")
_LINEAGE_BYTES = 33
_OUTPUTS = [bytes([output]) for output in range(256)]


class Ref(msgspec.Struct, frozen=True, order=True):
    """Output number `output` of node `node`."""

    node: int
    output: int = 0


class Dtype(msgspec.Struct, frozen=True):
    """A dtype by its torch name without the prefix: "float32"."""

    name: str


class Node(msgspec.Struct, array_like=True, frozen=True):
    """One operation. `args` and `kwargs` hold None, bool, int, float, str, `Ref`, `Dtype` and lists of these."""

    id: int
    op: str
    args: list[Any]
    kwargs: dict[str, Any] = {}
    outputs: int = 1
    line: str = ""  # where the user wrote it: "notebook.py:12"; not part of the lineage


class Program(msgspec.Struct, array_like=True, frozen=True):
    """Nodes in order of their ids, and the references that are its results."""

    nodes: list[Node]
    results: list[Ref]


def asset(node: int, dataset: str, version: int, part: str = "values") -> Node:
    """The input for a published dataset. `part` is "values" (private) or "mock" (public)."""
    return Node(node, ASSET, [dataset, version, part])


def constant(node: int, digest: str) -> Node:
    """The input for a constant, by the sha256 of dtype, shape and bytes (`tensor_digest`)."""
    return Node(node, CONSTANT, [digest])


def tensor_digest(dtype: str, shape: Iterable[int], data: bytes | memoryview) -> str:
    """sha256 hex of a constant: of `dtype`, `shape` and its little-endian bytes."""
    digest = begin_digest(dtype, shape)
    digest.update(data)
    return digest.hexdigest()


def begin_digest(dtype: str, shape: Iterable[int]) -> hashlib._Hash:
    """`tensor_digest` before the first byte, for bytes that arrive one after the other."""
    return hashlib.sha256(msgspec.msgpack.encode([dtype, list(shape)]))


def ext_hook(code: int, data: memoryview) -> Any:
    """Decoder's hook for the two extensions of a program: 1 is a `Ref`, 2 a `Dtype`."""
    if code == _REF and len(data) == _REF_BYTES.size:
        return Ref(*_REF_BYTES.unpack(data))
    if code == _DTYPE and len(data) <= 32:
        return Dtype(bytes(data).decode("ascii", "replace"))
    raise InvalidInputError(f"Extension {code} with {len(data)} bytes is not part of a program.")


def _pack(value: Any) -> Any:
    """Replace references and dtypes by their MessagePack extensions (structs would be encoded as maps)."""
    if isinstance(value, Ref):
        return msgspec.msgpack.Ext(_REF, _REF_BYTES.pack(value.node, value.output))
    if isinstance(value, Dtype):
        return msgspec.msgpack.Ext(_DTYPE, value.name.encode())
    if isinstance(value, (list, tuple)):
        return [_pack(item) for item in value]
    return value


def packed(node: Node) -> Node:
    """The node as it travels: references and dtypes as extensions."""
    return Node(
        node.id, node.op, _pack(node.args), {k: _pack(v) for k, v in node.kwargs.items()}, node.outputs, node.line
    )


MAX_ARGUMENTS = 4_096
"""Values in the arguments of one node, those in lists counted."""
MAX_ARGUMENTS_TOGETHER = 65_536
"""The same over the nodes of a batch."""
MAX_DEPTH = 4
"""Lists in lists: what the deepest schema of an operation needs, and one more."""


def check_size(nodes: Iterable[Node]) -> None:
    """Raise LimitExceededError for more arguments than a reader should have to walk through."""
    together = 0
    for node in nodes:
        count = _count([*node.args, *node.kwargs.values()], 0)
        together += count
        if count > MAX_ARGUMENTS or together > MAX_ARGUMENTS_TOGETHER:
            raise too_many_arguments()


def too_many_arguments() -> LimitExceededError:
    return LimitExceededError(
        f"An operation has at most {MAX_ARGUMENTS} arguments, and a batch {MAX_ARGUMENTS_TOGETHER}: long lists "
        "belong into a tensor.",
        limit=MAX_ARGUMENTS,
    )


_nodes = msgspec.msgpack.Decoder(list[Node], ext_hook=ext_hook)
_LIST = struct.Struct(">BI")


def read_nodes(parts: list[msgspec.Raw]) -> Iterator[Node]:
    """Nodes from the bytes of each. Stop at what `check_size` refuses: little more than what was taken is decoded.

    Raises LimitExceededError for a node of too many values before it is decoded, and InvalidInputError.
    """
    together = b"".join(parts)
    if len(parts) > 1 and len(together) > MAX_ARGUMENTS_TOGETHER:  # a value takes a byte at least
        middle = len(parts) // 2
        yield from read_nodes(parts[:middle])
        yield from read_nodes(parts[middle:])
        return
    if len(together) > MAX_ARGUMENTS_TOGETHER and has_more_values(together, 3 * MAX_ARGUMENTS):
        raise too_many_arguments()  # names of arguments and the fields of the node may come on top
    try:
        yield from _nodes.decode(_LIST.pack(0xDD, len(parts)) + together)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"This node of a batch does not follow the schema: {error}") from error


def _count(values: list[Any], depth: int) -> int:
    count = len(values)
    if depth >= MAX_DEPTH or count > MAX_ARGUMENTS:
        return MAX_ARGUMENTS + 1
    for value in values:
        if isinstance(value, list):
            count += _count(value, depth + 1)
        elif isinstance(value, dict):
            return MAX_ARGUMENTS + 1
    return count


def refs(node: Node) -> Iterator[Ref]:
    """All references among a node's arguments."""

    def walk(value: Any) -> Iterator[Ref]:
        if isinstance(value, Ref):
            yield value
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    for value in (*node.args, *node.kwargs.values()):
        yield from walk(value)


def lineage_hash(node: Node, hashes: Mapping[int, str]) -> str:
    """sha256 hex of a node, given the hashes of the nodes that it refers to."""
    return hashlib.sha256(_lineage(node, lambda ref: lineage_of(ref, hashes))).hexdigest()


def lineage_of(ref: Ref, hashes: Mapping[int, str]) -> bytes:
    """What stands for a reference in the lineage of the node that has it."""
    return bytes.fromhex(hashes[ref.node]) + bytes([ref.output])


def _lineage(node: Node, told: Callable[[Ref], bytes]) -> bytes:
    """What is hashed of a node. `told` gives the bytes that stand for a reference."""

    def canonical(value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            return msgspec.msgpack.Ext(_REF, told(value))
        if kind is Dtype:
            return msgspec.msgpack.Ext(_DTYPE, value.name.encode())
        if kind is list or kind is tuple:
            return [canonical(item) for item in value]
        return value

    args, named = node.args, node.kwargs
    if node.op == PARAMETER:
        # The module's id is random and says nothing of the value: sent again, it is the same computation.
        args, named = [*args[:1], *args[2:]], {name: value for name, value in named.items() if name != "module"}
    kwargs = [[name, canonical(named[name])] for name in sorted(named)] if named else []
    return msgspec.msgpack.encode(["gridsite/lineage/1", node.op, canonical(args), kwargs])


class LineageForm:
    """The lineage hash of a node that is written again and again, with other operands each time."""

    def __init__(self, node: Node) -> None:
        size = _REF_BYTES.size
        self._body = _lineage(node, lambda _: b"\0" * _LINEAGE_BYTES)
        inverse = _lineage(node, lambda _: b"\xff" * _LINEAGE_BYTES)
        numbered = _lineage(node, lambda ref: _REF_BYTES.pack(ref.node, ref.output).rjust(_LINEAGE_BYTES, b"\0"))
        differ = [one != other for one, other in zip(self._body, inverse, strict=True)]
        starts = [place for place, here in enumerate(differ) if here and not differ[place - 1]]
        spans = [(start, start + _LINEAGE_BYTES) for start in starts]
        self._refs = [(start, end, *_REF_BYTES.unpack(numbered[end - size : end])) for start, end in spans]
        """Where what stands for a reference begins and ends, and which reference of the form's own node it is."""

    def digest(self, told: Sequence[bytes], whole: int) -> bytes:
        """The bytes of what `lineage_hash` gives for other operands.

        `told`: by number of a node in the form, the bytes of its hash; for the first `whole`, which stand for outputs
        that were chosen elsewhere, what `lineage_of` gives.
        """
        body = bytearray(self._body)
        for start, end, node, output in self._refs:
            body[start:end] = told[node] if node < whole else told[node] + _OUTPUTS[output]
        return hashlib.sha256(body).digest()


def program_hashes(nodes: Iterable[Node]) -> dict[int, str]:
    """Lineage hash of every node, by node id."""
    hashes: dict[int, str] = {}
    for node in nodes:
        hashes[node.id] = lineage_hash(node, hashes)
    return hashes


def result_hash(results: Iterable[Ref], hashes: Mapping[int, str]) -> str:
    """sha256 hex that names the results of a program: what a grant or an approval is bound to."""
    body = msgspec.msgpack.encode([[hashes[ref.node], ref.output] for ref in results])
    return hashlib.sha256(b"gridsite/results/1" + body).hexdigest()


def cut(nodes: Mapping[int, Node], results: Iterable[Ref]) -> Program:
    """The part of a graph that `results` need, in order."""
    results = list(results)
    needed: set[int] = set()
    todo = [ref.node for ref in results]
    while todo:
        number = todo.pop()
        if number not in needed:
            needed.add(number)
            todo.extend(ref.node for ref in refs(nodes[number]))
    return Program([nodes[number] for number in sorted(needed)], results)


def encode_program(program: Program) -> bytes:
    """Program as MessagePack."""
    plain = [[packed(node) for node in program.nodes], [[ref.node, ref.output] for ref in program.results]]
    return msgspec.msgpack.encode(plain)


def decode_program(data: bytes | memoryview) -> Program:
    """Inverse of `encode_program`. Raises InvalidInputError for anything else."""
    try:
        nodes, results = msgspec.msgpack.decode(data, type=tuple[list[Node], list[tuple[int, int]]], ext_hook=ext_hook)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"This is not a program: {error}") from error
    return Program(nodes, [Ref(*pair) for pair in results])
