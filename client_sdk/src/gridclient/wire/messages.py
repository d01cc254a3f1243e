"""The commands that a batch carries, in both directions. One schema; `docs/reference/wire/` is generated from it.

A batch is MessagePack of `[id, [command, ...], seen]`; batch ids of one direction only grow, and `seen` is the last
batch that the sender has received: what is later was perhaps lost with a socket, and is sent again over the next one.
A command is an array whose first element is its kind. The node answers commands in order, but a transfer's chunks
travel between batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Annotated, Any, get_args

import msgspec

from gridclient.program.graph import (
    MAX_ARGUMENTS_TOGETHER,
    Node,
    Ref,
    check_size,
    ext_hook,
    packed,
    read_nodes,
    too_many_arguments,
)
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.specs import Column as Column  # part of the schema
from gridclient.wire.specs import Command, PublishSpec
from gridclient.wire.specs import TensorHeader as TensorHeader

PROTOCOL_VERSION = 1
OUTLIVES = 60.0
"""Seconds for which a session outlives its socket."""
INLINE_LIMIT = 64 * 1024
"""Values up to this many bytes travel inside the batch; longer ones as a transfer of chunks."""
INLINE_CONSTANT_LIMIT = 4 * 1024
MAX_COMMANDS = 1024
"""Commands in a batch."""
MAX_NODES = 4096
"""Nodes in one `Run`, and values in one `Drop`: the client sends the rest in the next."""
MAX_TENSORS = 4096
"""Parameters and buffers of a module."""
Key = Annotated[str, msgspec.Meta(max_length=64)]
"""Named by the client: asked again under the same key within 30 days, the same is answered, and nothing done twice."""


class Hello(Command, tag="hello", frozen=True):
    """First command over a socket, within 5 seconds, alone in the batch 1, which no session counts.

    `resume`: the token that the last welcome brought, to go on with that session; `seen` of this batch is then its
    last batch that arrived.
    """

    token: str
    protocol: int
    operations: int  # version of the operation set
    client: str  # "gridclient 0.1.0", for the node's log
    resume: str = ""


class Begin(Command, tag="begin", frozen=True):
    """The program of this session begins anew with what follows: the answer to `Lost`. Ids of nodes may be used again.

    Asks that are still open stay open; they are asked again, or not.
    """


class Upload(Command, tag="upload", frozen=True):
    """Announce a transfer; chunks may follow once the node has answered `Ack(transfer, 0)`.

    `purpose`: "constant" (name = its digest; `header` given), "values" or "mock" (an asset about to be published),
    "plan". `sha256`: of the bytes; of a constant it is not looked at, because its name is a digest of them.
    """

    transfer: int
    nbytes: int
    sha256: str
    purpose: str
    name: str = ""
    header: TensorHeader | None = None


class Constant(Command, tag="constant", frozen=True):
    """A small constant, inline. The digest is `tensor_digest(dtype, shape, data)`."""

    digest: str
    header: TensorHeader
    data: bytes


class Run(Command, tag="run", frozen=True):
    """Append nodes to the session's program."""

    nodes: Annotated[list[Node], msgspec.Meta(max_length=MAX_NODES)]


class Drop(Command, tag="drop", frozen=True):
    """The client holds these values no longer; their program rows stay."""

    values: Annotated[list[Ref], msgspec.Meta(max_length=MAX_NODES)]


class Get(Command, tag="get", frozen=True):
    """Ask for one value: exactly, or privately, with noise. Answered by `Answer` or `Refused` with the same `ask`.

    Privately: at `epsilon`, or with the noise `within` so much of 0 in 95 of 100 answers. Under `key`, an answer is
    charged once, however often it is asked for.
    """

    ask: int
    value: Ref
    epsilon: float | None = None
    within: float | None = None
    key: Key = ""


class Estimate(Command, tag="estimate", frozen=True):
    """What would a private answer cost, and how noisy would it be? Free. Answered by `Estimated` or `Refused`."""

    ask: int
    value: Ref
    epsilon: float | None = None
    within: float | None = None


class Take(Command, tag="take", frozen=True):
    """Ask for the state of a sent module as one: `values` are what its parameters and buffers are now, by `names`.

    `module`: the id that their `grid::parameter` nodes have. Answered by `Answer` (kind "state") or `Refused`.
    """

    ask: int
    module: str
    names: Annotated[list[str], msgspec.Meta(max_length=MAX_TENSORS)]
    values: Annotated[list[Ref], msgspec.Meta(max_length=MAX_TENSORS)]


class Request(Command, tag="request", frozen=True):
    """Put the program behind `value` into the queue. Answered by `Submitted` or `Refused`.

    With `names`: the program behind the state of a module, as in `take`; `value` is then the first of `values`.
    """

    ask: int
    value: Ref
    reason: str
    module: str = ""
    names: Annotated[list[str], msgspec.Meta(max_length=MAX_TENSORS)] = []
    values: Annotated[list[Ref], msgspec.Meta(max_length=MAX_TENSORS)] = []
    key: Key = ""


class Fetch(Command, tag="fetch", frozen=True):
    """Fetch the stored answer of an approved request. Answered by `Answer` or `Refused`, as often as asked."""

    ask: int
    request: str


class Publish(Command, tag="publish", frozen=True):
    """Publish uploaded values. `values` and `mock` are finished transfers (`mock` 0: made from public metadata)."""

    ask: int
    spec: PublishSpec
    values: int
    mock: int = 0
    key: Key = ""


class Plan(Command, tag="plan", frozen=True):
    """Keep the plan that a finished transfer brought (`purpose` "plan"), under the name in it. Answered by `Planned`.

    `allow_download`: others may copy its bytes from the node, not only run it.
    """

    ask: int
    transfer: int
    allow_download: bool = False
    key: Key = ""


class Bye(Command, tag="bye", frozen=True):
    """The client leaves; the node ends the session."""


# --- node to client ---------------------------------------------------------------------------------------------


class Welcome(Command, tag="welcome", frozen=True):
    """Answer to `Hello`, alone in the batch 1, which no session counts.

    `session`: the one that goes on, with `seen` of this batch as its last batch that arrived here; or a new one, in
    which nothing was said yet. `resume`: what to present in order to go on with it after this socket.
    """

    session: str
    protocol: int
    operations: int
    node_id: str
    node_name: str
    user: str
    rights: list[str]
    limits: dict[str, int]
    resume: str = ""


class Lost(Command, tag="lost", frozen=True):
    """The values of this session are gone, because its worker ended. What was asked until then was answered.

    Everything up to a `Begin` is passed over, and must be said again after it.
    """


class Ack(Command, tag="ack", frozen=True):
    """`offset` bytes of a transfer have arrived (0: begin). Both directions."""

    transfer: int
    offset: int


class Answer(Command, tag="answer", frozen=True):
    """A value that was released. `data` is inline, or None when transfer `transfer` brings it.

    `kind`: "tensor" (`header` describes the bytes), "table" (Arrow IPC stream) or "state" (a safetensors file with a
    tensor for each name). `receipt`: of a private answer, what it was charged.
    """

    ask: int
    kind: str
    header: TensorHeader
    data: bytes | None = None
    transfer: int = 0
    sha256: str = ""
    receipt: dict[str, Any] | None = None


class Estimated(Command, tag="estimated", frozen=True):
    """What a private answer would cost: `cost`, `remaining`, `epsilon`, `delta`, `sigma`, `within_95`, `of_range`."""

    ask: int
    estimate: dict[str, float]


class Submitted(Command, tag="submitted", frozen=True):
    """The request is in the queue."""

    ask: int
    request: str


class Published(Command, tag="published", frozen=True):
    """The dataset's public metadata, as `GET /api/datasets/{slug}/` gives it."""

    ask: int
    dataset: dict[str, Any]


class Planned(Command, tag="planned", frozen=True):
    """The plan is kept, as `GET /api/plans/{name}/` shows it."""

    ask: int
    plan: dict[str, Any]


class Refused(Command, tag="refused", frozen=True):
    """This ask failed; the session goes on. `line` is where the failing operation was recorded, if one failed."""

    ask: int
    code: str
    message: str
    details: dict[str, Any] = {}
    line: str = ""


class Error(Command, tag="error", frozen=True):
    """Something outside an ask failed (a node of a `run`, a transfer, the frame itself)."""

    code: str
    message: str
    details: dict[str, Any] = {}
    transfer: int = 0


class Goodbye(Command, tag="goodbye", frozen=True):
    """The node ends the session, and why."""

    code: str
    message: str


ClientCommand = (
    Hello
    | Begin
    | Upload
    | Constant
    | Run
    | Drop
    | Get
    | Estimate
    | Take
    | Request
    | Fetch
    | Publish
    | Plan
    | Ack
    | Bye
)
NodeCommand = Welcome | Lost | Ack | Answer | Estimated | Submitted | Published | Planned | Refused | Error | Goodbye


class ClientBatch(msgspec.Struct, array_like=True, frozen=True):
    id: int
    commands: Annotated[list[ClientCommand], msgspec.Meta(max_length=MAX_COMMANDS)]
    seen: int = 0


class NodeBatch(msgspec.Struct, array_like=True, frozen=True):
    id: int
    commands: list[NodeCommand]
    seen: int = 0


class PackedRun(Command, tag="run", frozen=True):
    """A `Run` whose nodes are bytes: not yet decoded, or encoded already (`pack`)."""

    nodes: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_NODES)]


_long: Any = reduce(or_, (PackedRun if kind is Run else kind for kind in get_args(ClientCommand)))
_LongBatch = msgspec.defstruct(
    "_LongBatch",
    [("id", int), ("commands", Annotated[list[_long], msgspec.Meta(max_length=MAX_COMMANDS)]), ("seen", int, 0)],
    array_like=True,
)

_encoder = msgspec.msgpack.Encoder()
_client = msgspec.msgpack.Decoder(ClientBatch, ext_hook=ext_hook)
_long_client = msgspec.msgpack.Decoder(_LongBatch, ext_hook=ext_hook)
_node = msgspec.msgpack.Decoder(NodeBatch, ext_hook=ext_hook)


def encode(batch: ClientBatch | NodeBatch) -> bytes:
    """The batch as MessagePack."""
    commands: list[Any] = [
        Run([packed(node) for node in command.nodes]) if isinstance(command, Run) else command
        for command in batch.commands
    ]
    return _encoder.encode(type(batch)(batch.id, commands, batch.seen))


def pack(node: Node) -> bytes:
    """A node as it travels in a `Run`, for a `PackedRun`."""
    return _encoder.encode(packed(node))


def decode_client(data: bytes | memoryview) -> ClientBatch:
    """Decode what a client sent.

    Raises InvalidInputError that names the field at fault, never a value, and LimitExceededError for more arguments
    than a batch may have: of a long batch, nodes are decoded only until then.
    """
    if len(data) <= MAX_ARGUMENTS_TOGETHER:  # a value takes a byte at least
        batch: ClientBatch = _decode(_client, data)
        check_size(node for command in batch.commands if isinstance(command, Run) for node in command.nodes)
        return batch
    return _decode_long(_decode(_long_client, data))


def _decode_long(batch: Any) -> ClientBatch:
    """The batch with its nodes decoded, one by one for as long as their arguments stay within the limits."""
    commands: list[ClientCommand] = [Run([]) if isinstance(each, PackedRun) else each for each in batch.commands]
    runs = [(mine, each) for mine, each in zip(commands, batch.commands, strict=True) if isinstance(mine, Run)]
    if sum(len(each.nodes) for _, each in runs) > MAX_ARGUMENTS_TOGETHER:
        raise too_many_arguments()

    def nodes() -> Iterator[Node]:
        for mine, each in runs:
            for node in read_nodes(each.nodes):
                mine.nodes.append(node)
                yield node

    check_size(nodes())
    return ClientBatch(batch.id, commands, batch.seen)


def decode_node(data: bytes | memoryview) -> NodeBatch:
    """Decode what a node sent. Raises InvalidInputError."""
    return _decode(_node, data)


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | memoryview) -> Any:
    try:
        return decoder.decode(data)
    except InvalidInputError:
        raise
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"This batch does not follow the schema: {error}") from error
