"""A plan as bytes: a program over inputs that are named when it is called. Knows neither torch nor numpy.

    8 bytes   magic: "GRIDPLAN"
    1 byte    version of this format
    4 bytes   length of the body, little-endian
    ...       body: MessagePack of [operations, name, description, inputs, constants, instructions, code, results]
    ...       the constants' values as a safetensors file, its entries named by digest; nothing where there are none

Values are numbered: the inputs, then the constants, then every output of every operation in order. An *instruction* is
an operation with its arguments, in which empty bytes stand for a value; operations that differ only in their values
share one. `code` is a chain of LEB128 numbers: for each operation its instruction, and for each empty place how many
values back the value is. So a program that repeats itself takes about three bytes for an operation.

One plan has one encoding, and its sha256 names it: bytes that decode, but encode to others, are refused.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec

from gridclient.program import plan_tensors
from gridclient.program.graph import (
    AGGREGATE,
    ASSET,
    CONSTANT,
    MAX_ARGUMENTS,
    MAX_DEPTH,
    PARAMETER,
    Dtype,
    Node,
    Ref,
    constant,
    tensor_digest,
)
from gridclient.program.operations import OPERATIONS, OPERATIONS_VERSION
from gridclient.program.plan_graph import (
    MAX_DESCRIPTION,
    MAX_INPUTS,
    MAX_NAME,
    MAX_NBYTES,
    MAX_OPERATIONS,
    MAX_PLAN,
    MAX_RESULTS,
    MAX_VALUES,
    MAX_WRITTEN_OUT,
    SEEDED,
    Input,
    PlanGraph,
    Result,
)
from gridclient.program.plan_tensors import Constant
from gridclient.wire.errors import (
    InvalidInputError,
    LimitExceededError,
    OperationNotAllowedError,
    VersionMismatchError,
)
from gridclient.wire.tensors import ITEM_SIZES, MAX_DIMENSIONS, MAX_EXTENT

MAGIC = b"GRIDPLAN"
FORMAT_VERSION = 1
MAX_INSTRUCTION = 64 * 1024
"""Bytes of an instruction: a number of 9 bytes for each argument, and as much again for texts."""

_HEAD = struct.Struct("<8sBI")
_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_ATEN = "aten::"
_HOLE = b""
_NO_PLACE = frozenset({ASSET, CONSTANT, PARAMETER, AGGREGATE, "grid::column", "grid::columns"})


def plan_digest(data: bytes) -> str:
    """sha256 hex of a plan's bytes: what a call names it by."""
    return hashlib.sha256(data).hexdigest()


# --- encode -----------------------------------------------------------------------------------------------------


def encode_plan(graph: PlanGraph) -> bytes:
    """A plan as bytes. Raises LimitExceededError beyond the limits above."""
    numbers: list[int] = list(range(len(graph.inputs)))  # by node id, the number of its first value
    digests: list[bytes] = []
    templates: dict[bytes, int] = {}
    instructions: list[Any] = []
    code = bytearray()
    following = len(numbers)
    for node in graph.nodes:
        numbers.append(following)
        if node.op == CONSTANT:
            digests.append(bytes.fromhex(node.args[0]))
            following += 1
            continue
        back: list[int] = []
        args = [_hollow(given, numbers, following, back) for given in node.args]
        kwargs = {name: _hollow(node.kwargs[name], numbers, following, back) for name in sorted(node.kwargs)}
        template = [node.op.removeprefix(_ATEN), node.outputs, *args, *([kwargs] if kwargs else [])]
        key = msgspec.msgpack.encode(template)  # 1, 1.0 and True are equal, and not the same
        if key not in templates:
            templates[key] = len(instructions)
            instructions.append(template)
        _write_numbers(code, [templates[key], *back])
        following += node.outputs
    results = [
        Result(numbers[ref.node] + ref.output, spec.dtype, spec.shape, spec.stride)
        for ref, spec in zip(graph.results, graph.signature, strict=True)
    ]
    body = msgspec.msgpack.encode(
        [
            graph.operations, graph.name, graph.description, graph.inputs, digests, instructions, bytes(code),
            [_short(result) for result in results],
        ]
    )  # fmt: skip
    data = _HEAD.pack(MAGIC, FORMAT_VERSION, len(body)) + body + plan_tensors.encode(graph.constants)
    if len(data) > MAX_PLAN:
        raise LimitExceededError(
            f"This plan takes {len(data)} bytes; the limit is {MAX_PLAN}. Make large tensors inputs of it, and send "
            "them with grid.send(tensor, node).",
            limit=MAX_PLAN,
        )
    return data


def _short(result: Result) -> list[Any]:
    """Without the stride where it says nothing."""
    fields = [result.value, result.dtype, result.shape]
    return fields if result.stride is None else [*fields, result.stride]


def _hollow(given: Any, numbers: list[int], following: int, back: list[int]) -> Any:
    """An argument of an instruction; the values that it names go to `back`."""
    if isinstance(given, Ref):
        back.append(following - numbers[given.node] - given.output)
        return _HOLE
    if isinstance(given, Dtype):
        return given.name.encode()
    if isinstance(given, (list, tuple)):
        return [_hollow(item, numbers, following, back) for item in given]
    return given


def _write_numbers(code: bytearray, numbers: list[int]) -> None:
    for number in numbers:
        while number > 127:
            code.append(number & 127 | 128)
            number >>= 7
        code.append(number)


# --- decode -----------------------------------------------------------------------------------------------------


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Lists say their length before they are decoded; instructions stay bytes until each is looked at."""

    operations: int
    name: str
    description: str
    inputs: Annotated[list[Input], msgspec.Meta(max_length=MAX_INPUTS)]
    constants: Annotated[list[Annotated[bytes, msgspec.Meta(max_length=32)]], msgspec.Meta(max_length=MAX_VALUES)]
    instructions: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_OPERATIONS)]
    code: bytes
    results: Annotated[list[Result], msgspec.Meta(max_length=MAX_RESULTS)]


_decoder = msgspec.msgpack.Decoder(_Body)
_instruction_decoder = msgspec.msgpack.Decoder(list[Any])


def decode_plan(data: bytes) -> PlanGraph:
    """Inverse of `encode_plan`.

    Raises VersionMismatchError for another version of the format or newer operations, OperationNotAllowedError for an
    operation that has no place in a plan, LimitExceededError, and InvalidInputError for anything else that is no plan.
    """
    if len(data) > MAX_PLAN:
        raise LimitExceededError(f"A plan has at most {MAX_PLAN} bytes.", limit=MAX_PLAN)
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise InvalidInputError("This is not a plan.")
    _, version, length = _HEAD.unpack_from(data)
    if version != FORMAT_VERSION:
        raise VersionMismatchError(f"This plan has format {version}; this side reads format {FORMAT_VERSION}.")
    try:
        body = _decoder.decode(memoryview(data)[_HEAD.size : _HEAD.size + length])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"The body of this plan does not follow the schema: {error}") from None
    if body.operations > OPERATIONS_VERSION:
        raise VersionMismatchError(
            f"This plan was made for version {body.operations} of the operations; this side has {OPERATIONS_VERSION}."
        )
    graph = _graph(body, plan_tensors.decode(memoryview(data)[_HEAD.size + length :], len(body.constants)))
    if encode_plan(graph) != data:
        raise InvalidInputError("This plan is not in the one form that a plan has; save it again.")
    return graph


def _graph(body: _Body, constants: dict[str, Constant]) -> PlanGraph:
    check_words(body.name, body.description)
    if not body.results:
        raise LimitExceededError(f"A plan has 1 to {MAX_RESULTS} results.", limit=MAX_RESULTS)
    for given in body.inputs:
        if len(given.name) > 64 or not given.name.isascii() or not given.name.isidentifier():
            raise InvalidInputError("An input of a plan is named like a variable, with at most 64 letters.")
        _check_spec(given.dtype, given.shape)
    digests = [digest.hex() for digest in body.constants]
    if set(digests) != set(constants) or len(set(digests)) != len(digests):
        raise InvalidInputError("The constants of this plan are not those that it names.")
    for digest, (header, data) in constants.items():
        if tensor_digest(header.dtype, header.shape, data) != digest:
            raise InvalidInputError("A constant of this plan was changed.")
    values = [Ref(number) for number in range(len(body.inputs))]
    nodes: list[Node] = []
    for digest in digests:
        nodes.append(constant(len(values), digest))
        values.append(Ref(len(values)))
    nodes += _operations(body, values)
    results = []
    for result in body.results:
        _check_spec(result.dtype, result.shape, result.stride)
        if not 0 <= result.value < len(values):
            raise InvalidInputError("A result of this plan is none of its values.")
        results.append(values[result.value])
    return PlanGraph(body.name, body.description, body.inputs, nodes, results, body.results, constants, body.operations)


def check_words(name: str, description: str) -> None:
    """Raise InvalidInputError unless a plan may be called and described like this."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"The name of a plan has at most {MAX_NAME} small letters and digits, with - or _ between them, "
            'like "train-step".',
            field="name",
        )
    if len(description) > MAX_DESCRIPTION or not all(c.isprintable() or c == "\n" for c in description):
        raise InvalidInputError(
            f"The description of a plan has at most {MAX_DESCRIPTION} characters that print.", field="description"
        )


def _check_spec(dtype: str, shape: list[int], stride: list[int] | None = None) -> None:
    extents = [*shape, *(stride or [])]
    number = 1
    for extent in shape[: MAX_DIMENSIONS + 1]:
        number *= max(extent, 1)
    wrong = (
        dtype not in ITEM_SIZES
        or len(shape) > MAX_DIMENSIONS
        or any(not 0 <= extent <= MAX_EXTENT for extent in extents)
        or number * ITEM_SIZES[dtype] > MAX_NBYTES
        or (stride is not None and len(stride) != len(shape))
    )
    if wrong:
        raise InvalidInputError("A plan's input or result has a dtype or shape that no value has.")


class _Instruction(NamedTuple):
    op: str
    outputs: int
    args: list[Any]
    kwargs: dict[str, Any]
    arguments: int


def _instructions(given: list[msgspec.Raw]) -> list[_Instruction]:
    """Decoded one by one, for as long as they can be those of a plan: each is used, so their arguments are written."""
    found: list[_Instruction] = []
    together = 0
    for raw in given:
        if len(memoryview(raw)) > MAX_INSTRUCTION:
            raise LimitExceededError(
                f"An instruction of a plan has at most {MAX_INSTRUCTION} bytes.", limit=MAX_INSTRUCTION
            )
        try:
            found.append(_instruction(_instruction_decoder.decode(raw)))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"An instruction of this plan does not follow the schema: {error}") from None
        together += found[-1].arguments
        if together > MAX_WRITTEN_OUT:
            raise LimitExceededError(f"A plan has at most {MAX_WRITTEN_OUT} arguments.", limit=MAX_WRITTEN_OUT)
    return found


def _instruction(given: list[Any]) -> _Instruction:
    match given:
        case [str() as name, int() as outputs, *args] if type(outputs) is int and 1 <= outputs <= 255:
            op = name if "::" in name else _ATEN + name
        case _:
            raise InvalidInputError("An instruction of a plan is an operation, its number of outputs, its arguments.")
    if op not in OPERATIONS or op in _NO_PLACE:
        raise OperationNotAllowedError(f"{op[:64]!r} has no place in a plan.", operation=op[:64])
    kwargs: dict[str, Any] = args.pop() if args and isinstance(args[-1], dict) else {}
    if not all(isinstance(name, str) for name in kwargs):
        raise InvalidInputError("Arguments of a plan are named by text.")
    if op in SEEDED and (kwargs or not args or args[-1] != 0 or type(args[-1]) is not int):
        raise InvalidInputError(f"The seed of {op} in a plan is 0: every call brings its own.")
    arguments = _check([*args, *kwargs.values()], 0)
    if arguments > MAX_ARGUMENTS:
        raise LimitExceededError(f"An operation has at most {MAX_ARGUMENTS} arguments.", limit=MAX_ARGUMENTS)
    return _Instruction(op, outputs, args, kwargs, arguments)


def _check(values: list[Any], depth: int) -> int:
    """How many values the arguments of an instruction have. Raises InvalidInputError for what is no argument."""
    if depth >= MAX_DEPTH:
        raise InvalidInputError("Arguments of a plan are nested too deep.")
    count = len(values)
    for value in values:
        if isinstance(value, list):
            count += _check(value, depth + 1)
        elif isinstance(value, bytes):
            if value != _HOLE and value.decode("ascii", "replace") not in ITEM_SIZES:
                raise InvalidInputError("A dtype in this plan is none.")
        elif value is not None and type(value) not in (bool, int, float, str):
            raise InvalidInputError("An argument in this plan is neither a number, a text, a list nor a value.")
    return count


def _operations(body: _Body, values: list[Ref]) -> list[Node]:
    """The nodes of the code; the values that they give are appended to `values`."""
    instructions = _instructions(body.instructions)
    numbers = _read_numbers(body.code)
    before = len(values)
    nodes: list[Node] = []
    written = 0

    def filled(given: Any) -> Any:
        if given == _HOLE and type(given) is bytes:
            back = next(numbers, 0)
            if not 1 <= back <= len(values):
                raise InvalidInputError("An operation of this plan names a value that is not there before it.")
            return values[-back]
        if type(given) is bytes:
            return Dtype(given.decode())
        return [filled(item) for item in given] if type(given) is list else given

    for number in numbers:
        if number >= len(instructions):
            raise InvalidInputError("The code of this plan names an instruction that is not there.")
        chosen = instructions[number]
        written += chosen.arguments
        args = [filled(item) for item in chosen.args]
        kwargs = {name: filled(item) for name, item in chosen.kwargs.items()}
        mine = before + len(nodes)
        nodes.append(Node(mine, chosen.op, args, kwargs, chosen.outputs))
        values += [Ref(mine, output) for output in range(chosen.outputs)]
        if len(nodes) > MAX_OPERATIONS or len(values) > MAX_VALUES or written > MAX_WRITTEN_OUT:
            raise LimitExceededError(
                f"A plan has at most {MAX_OPERATIONS} operations with {MAX_WRITTEN_OUT} arguments.",
                limit=MAX_OPERATIONS,
            )
    return nodes


def _read_numbers(code: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in code:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
        elif shift > 28:
            break
    if shift:
        raise InvalidInputError("The code of this plan ends within a number.")
