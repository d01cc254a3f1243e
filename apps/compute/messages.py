"""What the web process and a session's worker say to each other: MessagePack, each message a tagged array.

On the socket a message is `u32 length (little-endian) · bytes`. The worker answers questions (messages with an `ask`)
in order; the others have no reply: what went wrong with a node or a constant is told when a question needs it.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec

from apps.datasets.assets import AssetSpec
from gridclient.program.graph import Node, Ref, ext_hook, packed
from gridclient.wire.errors import GridError, from_code
from gridclient.wire.messages import PublishSpec, TensorHeader

LENGTH = struct.Struct("<I")


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Base of all messages."""


class Thresholds(Message, frozen=True):
    """What an exact aggregate must keep to. `k`: people; `p`, `dominance`: shares; `freedom`: degrees of freedom."""

    k: int
    p: float
    dominance: float
    freedom: int


class Limits(Message, frozen=True):
    """Caps of one session. Bytes, floating point operations, seconds."""

    memory: int = 4 * 2**30  # bytes of memory of the worker, beyond what it begins with
    value: int = 2**30  # bytes of one value
    flops: int = 10**13  # of what one question needs
    deadline: float = 60.0  # seconds for one question
    nodes: int = 1_000_000  # of the session's program
    program: int = 64 * 2**20  # bytes of the session's program
    constants: int = 64 * 2**20  # bytes of constants that an exported program takes along


# --- to the worker ----------------------------------------------------------------------------------------------


class Bind(Message, tag="bind", frozen=True):
    """Let the program use these parts of a dataset version: "values" (private), "mock" (public)."""

    spec: AssetSpec
    parts: tuple[str, ...] = ("values", "mock")


class PutConstant(Message, tag="constant", frozen=True):
    """A constant by its digest: `data`, or raw little-endian bytes in the file `path`."""

    digest: str
    header: TensorHeader
    data: bytes | None = None
    path: str | None = None


class PutPlan(Message, tag="plan", frozen=True):
    """A plan that the program may call, by the sha256 of its bytes."""

    digest: str
    data: bytes


class Append(Message, tag="append", frozen=True):
    """Append nodes to the program."""

    nodes: list[Node]


class Forget(Message, tag="forget", frozen=True):
    """The client holds these values no longer; their program rows stay."""

    values: list[Ref]


class State(NamedTuple):
    """What the parameters and buffers of a sent module are now, by name: one value to propose, compute and export."""

    module: str
    names: list[str]
    values: list[Ref]


class Propose(Message, tag="propose", frozen=True):
    """What is this value, and what may happen with it? Answered by `Proposal`.

    `aggregate`: where it is a cheap exact aggregate, its bytes are wanted too.
    """

    ask: int
    value: Ref | State
    aggregate: bool = False


class Evaluate(Message, tag="evaluate", frozen=True):
    """Compute a value, after the decision. Answered by `Value`; a long one is written to `path`."""

    ask: int
    value: Ref | State
    path: str


class Weigh(Message, tag="weigh", frozen=True):
    """What decides about the price of a private answer? Answered by `Weighed`; nothing private is computed."""

    ask: int
    value: Ref


class Account(Message, frozen=True):
    """A pot that charges each of its entities, at one moment. `folder`: of its records; `log`: those that count.

    `uniform`: what each entity was charged besides; `limit`: the most that all of it may be; `worst`: the most that
    this release can cost one, at a Renyi order of `order` / 1024; `tested`: whether somebody may have too little left.
    """

    folder: str
    log: list[str]
    uniform: int
    limit: int
    worst: int
    order: int
    tested: bool


class Seal(Message, tag="seal", frozen=True):
    """What does a private answer cost each entity, and who takes part? Written to `path`, which nobody else reads.

    Answered by `Sealed`. `unit` and `clips` are those of `Draw`.
    """

    ask: int
    value: Ref
    unit: float
    clips: list[float]
    account: Account
    path: str


class Draw(Message, tag="draw", frozen=True):
    """A private answer, after it was charged. Answered by `Value`; a long one is written to `path`.

    `unit`: the noise of each sum, as a multiple of its clip; `clips`: those that were charged for; `epsilon`: of a
    choice, which has no unit. `record`: the file that says who takes part; "": everybody does.
    """

    ask: int
    value: Ref
    unit: float
    clips: list[float]
    path: str
    epsilon: float = 0.0
    record: str = ""


class Export(Message, tag="export", frozen=True):
    """The program behind a value, by itself. Constants are written to `path` (safetensors). Answered by `Exported`."""

    ask: int
    value: Ref | State
    path: str
    names: dict[str, str] = {}  # dataset id -> how the text calls it


class Load(Message, tag="load", frozen=True):
    """Load an exported program into a fresh worker, whose assets are bound already. Answered by `Loaded`."""

    ask: int
    program: bytes
    constants: str  # path of the safetensors file; "" where the program has none


class Closed(Message, frozen=True):
    """A member of the closed set over all rows of a version, or over each group of the partition `by`.

    `kind`: "count", "sum", "mean", "variance", "histogram" or "product" of declared columns; `others`: the second
    factor of a product.
    """

    kind: str
    dataset: str
    version: int
    columns: list[str]
    others: list[str] = []
    by: str = ""


class Examine(Message, tag="examine", frozen=True):
    """May an exact aggregate be known beside the earlier ones? Answered by `Examined`.

    `least`: what it must keep to. `data`: the digest of the version's values. `known`: files of the crowds behind
    earlier answers. Those behind this one are written to `path`.
    """

    ask: int
    closed: Closed
    least: Thresholds
    data: str
    known: list[str]
    path: str


class Ingest(Message, tag="ingest", frozen=True):
    """Check an upload and write the files of a dataset version into the folder `out`. Answered by `Ingested`."""

    ask: int
    spec: PublishSpec
    values: str
    mock: str  # "" where the mock data are made from public metadata
    out: str
    key: bytes


# --- from the worker --------------------------------------------------------------------------------------------


class Input(Message, frozen=True):
    """Private data that a value depends on. `columns` None: all of them."""

    dataset: str
    version: int
    columns: list[str] | None = None


class Proposal(Message, tag="proposal", frozen=True):
    """`label`: "public", "rows", "agg" or "tainted". `value`: the bytes of a small public tensor, or
    of a cheap aggregate.

    `flops` and `operations` are of what is left to compute. `trained`: it is what a `train` grant gives, a module's
    state or a loss; `untrained`: why it is not, in words, where it has to do with a module at all.
    """

    ask: int
    program_hash: str
    label: str
    inputs: list[Input]
    closed: Closed | None
    kind: str  # "tensor" | "table" | "state"
    dtype: str  # "" for a table or a state
    shape: list[int]  # of a state: how many tensors, and numbers in them
    flops: int
    nbytes: int
    operations: int
    assets: list[tuple[str, int, str]] = []  # dataset, version, part of all that it was made from, if only by shape
    value: bytes | None = None
    trained: bool = False
    untrained: str = ""


class Weighed(Message, tag="weighed", frozen=True):
    """A private answer as public metadata say it. By sum over people that it is made of: how many numbers (`sizes`),
    how much one entity moves it at most (`clips`, in units of the declared half-range), how many entities there can be.

    `spread`: standard deviation of each number of the answer, for each unit of noise, one where they are equal;
    `of_reach`: the most beside the declared half-range. Of a choice, both say how far the chosen one may be below the
    largest, in 95 of 100, at epsilon 1. `numbers`: how many are summed.
    """

    ask: int
    program_hash: str
    inputs: list[Input]
    mechanism: str
    shape: list[int]
    sizes: list[int]
    clips: list[float]
    entities: list[int]
    spread: list[float]
    of_reach: float
    flops: int
    numbers: int
    assets: list[tuple[str, int, str]]


class Sealed(Message, tag="sealed", frozen=True):
    """`record`: sha256 of what was written. `alone`: it holds only if nothing was charged to the pot meanwhile."""

    ask: int
    record: str
    alone: bool


class Value(Message, tag="value", frozen=True):
    """A computed value. `data` is None when it was written to the path asked for.

    Raw bytes, an Arrow IPC stream, or a safetensors file.
    """

    ask: int
    header: TensorHeader
    data: bytes | None
    kind: str


PEOPLE = 32
"""128 bits, as many as are left for the rest."""


class Examined(Message, tag="examined", frozen=True):
    """`failed`: the names of the checks that failed. `crowds`: the name of what was written, by what is in it; its
    first `PEOPLE` digits tell the sets of people and of their rows alone."""

    ask: int
    failed: list[str]
    crowds: str


class Exported(Message, tag="exported", frozen=True):
    """`program` as `encode_program` writes it, node ids from 0; `constants` is the path written, "" without any."""

    ask: int
    program: bytes
    words: str
    constants: str


class Loaded(Message, tag="loaded", frozen=True):
    """The program's results."""

    ask: int
    program_hash: str
    results: list[Ref]


class Ingested(Message, tag="ingested", frozen=True):
    """`meta` is `apps.datasets.ingest.Ingested` as plain JSON values."""

    ask: int
    meta: dict[str, Any]


class Failed(Message, tag="failed", frozen=True):
    """The question has no answer. `line` is where the failing operation was recorded."""

    ask: int
    code: str
    message: str
    details: dict[str, Any] = {}
    line: str = ""

    def error(self) -> GridError:
        """The error that the web process raises; `details["line"]` where the user's line is known."""
        return from_code(self.code, self.message, {**self.details, "line": self.line} if self.line else self.details)


Question = Propose | Evaluate | Examine | Weigh | Seal | Draw | Export | Load | Ingest
Order = Bind | PutConstant | PutPlan | Append | Forget | Question
Reply = Proposal | Value | Examined | Weighed | Sealed | Exported | Loaded | Ingested | Failed


def asked(question: Question) -> list[Ref]:
    """The values that a question is about."""
    value = getattr(question, "value", None)
    return value.values if isinstance(value, State) else [value] if isinstance(value, Ref) else []


_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order, ext_hook=ext_hook)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Order | Reply) -> bytes:
    """The message with its length in front."""
    if isinstance(message, Append):
        message = Append([packed(node) for node in message.nodes])
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_order(body: bytes | bytearray) -> Order:
    """What the web process said, without the length."""
    return _orders.decode(body)


def decode_reply(body: bytes | bytearray) -> Reply:
    """What a worker said, without the length."""
    return _replies.decode(body)
